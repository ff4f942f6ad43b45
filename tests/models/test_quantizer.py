"""The residual quantizer against slow obvious loops, closed forms, vector-quantize-pytorch, and itself on two ranks."""

import copy
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import main_process
from voxlab.errors import UserError
from voxlab.models.tokenizer.kmeans import ROUNDS, cluster
from voxlab.models.tokenizer.quantizer import Quantized, QuantizerSettings, ResidualQuantizer

SMALL = QuantizerSettings(num_codebooks=3, codebook_size=8, decay=0.9)
ONE_FRAME = torch.ones(1, 1, dtype=torch.bool)


def make(dim: int = 6, *, seed: int = 0, settings: QuantizerSettings = SMALL, **changes: object) -> ResidualQuantizer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return replace(settings, **changes).build(dim).double()  # pyright: ignore[reportArgumentType]


def batch(seed: int, dim: int = 6, items: int = 4, frames: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (B, D, T), a ragged mask (B, T), and the codebooks each of the four items uses: 0, 1, 2, 3."""
    generator = torch.Generator().manual_seed(seed)
    z = 0.5 * torch.randn(items, dim, frames, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([frames, frames - 3, 1, frames - 1])[:items]
    return z, torch.arange(frames) < lengths[:, None], torch.arange(items) % 4


def full(z: Tensor) -> Tensor:
    return torch.ones(len(z), z.shape[-1], dtype=torch.bool)


class Naive:
    """One forward pass and one update, number by number."""

    def __init__(self, quantizer: ResidualQuantizer) -> None:
        self.counts = quantizer.counts.numpy().copy()
        self.sums = quantizer.sums.numpy().copy()
        self.decay = quantizer.decay

    def step(self, z: Tensor, mask: Tensor, limits: Tensor) -> dict[str, np.ndarray]:
        q_total, k_total, dim = self.sums.shape
        entries = self.sums / np.maximum(self.counts, 1e-5)[..., None]
        output, codes = np.zeros(z.shape), np.zeros((len(z), q_total, z.shape[2]), dtype=np.int64)
        n, s = np.zeros_like(self.counts), np.zeros_like(self.sums)
        error, pairs, left, whole = 0.0, 0, np.zeros(q_total), np.zeros(q_total)
        for b in range(len(z)):
            for t in range(z.shape[2]):
                if not mask[b, t]:
                    continue
                vector = z[b, :, t].numpy()
                residual, chosen = vector.copy(), np.zeros(dim)
                for q in range(q_total):
                    k = min(range(k_total), key=lambda k: float(((residual - entries[q, k]) ** 2).sum()))
                    codes[b, q, t] = k
                    after = residual - entries[q, k]
                    if q < limits[b]:
                        n[q, k] += 1
                        s[q, k] += residual
                        chosen = chosen + entries[q, k]
                        left[q] += (after**2).sum()
                        whole[q] += (vector**2).sum()
                        error, pairs = error + (after**2).mean(), pairs + 1
                    residual = after
                output[b, :, t] = chosen if limits[b] else vector
        for q in range(q_total):
            if n[q].any():
                self.counts[q] = self.decay * self.counts[q] + (1 - self.decay) * n[q]
                self.sums[q] = self.decay * self.sums[q] + (1 - self.decay) * s[q]
        commitment = np.array(error / max(pairs, 1))
        return {"output": output, "codes": codes, "commitment": commitment, "relative_error": left / whole}


def test_steps_equal_a_naive_loop() -> None:
    quantizer = make(revive_every=100)
    naive = Naive(quantizer)
    for step in range(3):
        z, mask, limits = batch(step)
        expected = naive.step(z, mask, limits)
        result = quantizer(z, mask, limits)
        assert result.codes.dtype == torch.int64
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(result, name).numpy(), value, rtol=1e-12, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(quantizer.counts.numpy(), naive.counts, rtol=1e-12)
        np.testing.assert_allclose(quantizer.sums.numpy(), naive.sums, rtol=1e-12, atol=1e-14)


def test_every_codebook_moves_in_one_step() -> None:
    quantizer = make()
    before = quantizer.entries.clone()
    z, mask, _ = batch(0)
    quantizer(z, mask)
    assert ((quantizer.entries - before).abs().amax(dim=(1, 2)) > 1e-3).all()


def test_a_codebook_that_nobody_uses_keeps_its_averages() -> None:
    quantizer = make(revive_every=1)
    before = copy.deepcopy(quantizer)
    z, mask, _ = batch(0)
    result = quantizer(z, mask, torch.tensor([1, 0, 1, 0]))
    assert torch.equal(quantizer.sums[1:], before.sums[1:])
    assert torch.equal(quantizer.counts[1:], before.counts[1:])
    assert not torch.equal(quantizer.sums[0], before.sums[0])
    assert result.relative_error.isnan().tolist() == [False, True, True]
    assert result.revived[1:].tolist() == [0, 0]


def test_evaluation_changes_nothing() -> None:
    quantizer = make().eval()
    before = copy.deepcopy(quantizer.state_dict())
    quantizer(*batch(0))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_codes_and_sums_equal_vector_quantize_pytorch() -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    ours = make(dim=16, num_codebooks=4, codebook_size=32).float().eval()
    theirs = library.ResidualVQ(dim=16, num_quantizers=4, codebook_size=32, rotation_trick=False).eval()
    for layer, entries in zip(theirs.layers, ours.entries, strict=True):
        layer._codebook.embed.copy_(entries[None])
        layer._codebook.initted.fill_(1)
    z = 0.5 * torch.randn(3, 16, 50, generator=torch.Generator().manual_seed(1))
    sums, codes, _ = theirs(z.transpose(1, 2))
    result = ours(z, full(z))
    assert torch.equal(result.codes, codes.transpose(1, 2))
    torch.testing.assert_close(result.output, sums.transpose(1, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.decode(result.codes), sums.transpose(1, 2), rtol=0, atol=1e-6)


def test_gradient_passes_straight_through() -> None:
    z, mask, limits = batch(0)
    z.requires_grad_()
    make()(z, mask, limits).output.sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad, mask[:, None].expand_as(z).double())


def test_commitment_gradient_has_its_closed_form() -> None:
    """d/dz of the mean over (frame, codebook) pairs of |z - sum_(j<=q) e_j|^2 / D."""
    quantizer = make()
    entries = quantizer.entries.clone()
    z, mask, limits = batch(3)
    z.requires_grad_()
    result = quantizer(z, mask, limits)
    result.commitment.backward()
    expected = torch.zeros_like(z)
    for b, t in mask.nonzero().tolist():
        coded = torch.zeros(6, dtype=torch.float64)
        for q in range(int(limits[b])):
            coded = coded + entries[q, result.codes[b, q, t]]
            expected[b, :, t] += 2 * (z[b, :, t].detach() - coded) / 6
    torch.testing.assert_close(z.grad, expected / (mask.sum(1) * limits).sum(), rtol=1e-12, atol=1e-15)


def test_commitment_reaches_every_codebook_of_the_encoder() -> None:
    """The gradient differs when only a deeper codebook's entries do: it isn't the first codebook's alone."""
    grads = []
    for scale in (1.0, 2.0):
        quantizer = make().eval()
        quantizer.sums[2] *= scale
        z, mask, _ = batch(0)
        z.requires_grad_()
        quantizer(z, mask).commitment.backward()
        grads.append(z.grad)
    assert not torch.equal(*grads)


@pytest.mark.parametrize("codebook_dim", [None, 4])
def test_forward_equals_decoding_the_codes(codebook_dim: int | None) -> None:
    quantizer = make(codebook_dim=codebook_dim).float().eval()
    z = torch.randn(2, 6, 9)
    result = quantizer(z, full(z))
    assert torch.equal(quantizer.encode(z), result.codes)
    assert int(result.codes.min()) >= 0
    assert int(result.codes.max()) < 8
    torch.testing.assert_close(quantizer.decode(result.codes), result.output, rtol=0, atol=1e-6)
    for count in (1, 2, 3):
        prefix = quantizer.encode(z, count)
        assert torch.equal(prefix, result.codes[:, :count])
        limited = quantizer(z, full(z), torch.full((2,), count))
        torch.testing.assert_close(quantizer.decode(prefix), limited.output, rtol=0, atol=1e-6)


def test_bypass_gives_the_latents_through_the_projections() -> None:
    quantizer = make(codebook_dim=4)
    z, mask, _ = batch(0)
    z.requires_grad_()
    result = quantizer(z, mask, torch.zeros(4, dtype=torch.int64))
    expected = quantizer.project_out(quantizer.project_in(z)) * mask[:, None]
    torch.testing.assert_close(result.output, expected)
    assert result.commitment == 0
    result.output.square().sum().backward()
    assert float(quantizer.project_in.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 3, 2), "torch.float32"),
        (torch.zeros(3, 2, dtype=torch.int64), r"shape \(3, 2\)"),
        (torch.zeros(1, 4, 2, dtype=torch.int64), r"got 4 codebooks; allowed 1\.\.3"),
        (torch.zeros(1, 0, 2, dtype=torch.int64), r"got 0 codebooks; allowed 1\.\.3"),
        (torch.tensor([[[0, 0], [0, 8]]]), r"item 0, codebook 1, frame 1: code 8 is out of range; allowed 0\.\.7"),
        (torch.tensor([[[0, -1]]]), r"item 0, codebook 0, frame 1: code -1 is out of range; allowed 0\.\.7"),
    ],
    ids=["float", "shape", "too many", "none", "too large", "negative"],
)
def test_bad_codes_say_what_and_where(codes: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().decode(codes)


def test_bad_number_of_codebooks_to_encode() -> None:
    with pytest.raises(ValueError, match=r"got 4 codebooks; allowed 1\.\.3"):
        make().encode(torch.zeros(1, 6, 1), 4)


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_codebooks", 0), ("codebook_size", 1), ("codebook_dim", 0), ("decay", 1.0), ("revive_every", 0)],
)
def test_bad_settings_name_their_key(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"quantizer.{name}={value}"):
        replace(SMALL, **{name: value})


def test_autocast_is_ignored() -> None:
    quantizer = make().float().eval()
    z = torch.randn(2, 6, 9)
    expected = quantizer(z, full(z))
    with torch.autocast("cpu", torch.bfloat16):
        result = quantizer(z, full(z))
        assert torch.equal(quantizer.encode(z), expected.codes)
        assert torch.equal(quantizer.decode(expected.codes), quantizer.decode(result.codes))
    assert result.output.dtype == torch.float32
    assert torch.equal(result.output, expected.output)


def test_numbers_that_are_not_finite_stay_out_of_the_codebooks() -> None:
    quantizer, clean = make(revive_every=1), make(revive_every=1)
    z, mask, limits = batch(0)
    mask[1, 2] = False
    clean(z, mask, limits)
    z[1, 0, 2], mask[1, 2] = float("nan"), True
    result = quantizer(z, mask, limits)
    assert result.commitment.isnan()
    assert torch.equal(quantizer.sums, clean.sums)
    assert torch.equal(quantizer.counts, clean.counts)


def test_dead_entries_restart_at_different_vectors_of_the_batch() -> None:
    quantizer = make(num_codebooks=1, revive_every=2, revive_ratio=0.5)
    quantizer.counts[0, :3] = 1e-3
    z = torch.randn(4, 6, 7, dtype=torch.float64)
    mask = batch(0)[1]
    assert quantizer(z, mask).revived.tolist() == [0]
    counts, sums = quantizer.counts.clone(), quantizer.sums.clone()
    result = quantizer(z, mask, torch.tensor([1, 1, 0, 1]))
    assert result.revived.tolist() == [int((quantizer.counts[0] == quantizer.counts[0, 0]).sum())]
    allowed = z.transpose(1, 2)[mask & (torch.tensor([1, 1, 0, 1]) > 0)[:, None]]
    fresh = quantizer.entries[0][quantizer.counts[0] == quantizer.counts[0, 0]]
    distances = torch.cdist(fresh, allowed)
    assert (distances.min(dim=1).values < 1e-9).all()
    assert len(distances.argmin(dim=1).unique()) == len(fresh) >= 3
    assert not torch.equal(counts, quantizer.counts)
    assert not torch.equal(sums, quantizer.sums)


def test_no_more_entries_restart_than_there_are_vectors() -> None:
    quantizer = make(num_codebooks=1, revive_every=1, revive_ratio=0.5)
    quantizer.counts[0, 1:] = 1e-3
    z = torch.randn(1, 6, 2, dtype=torch.float64)
    result = quantizer(z, full(z))
    assert result.revived.tolist() == [2]
    dead = (quantizer.counts < 0.5 * quantizer.counts.mean()).sum()
    assert int(dead) > 0


def test_revival_rescues_a_collapsed_codebook() -> None:
    generator = torch.Generator().manual_seed(0)
    quantizer = ResidualQuantizer(16, num_codebooks=1, codebook_size=256, decay=0.95)
    centers = 3 * torch.randn(64, 16, generator=generator)
    quantizer.sums.copy_(torch.randn(16, generator=generator) + 0.01 * torch.rand(1, 256, 16, generator=generator))
    used = torch.zeros(256, dtype=torch.int64)
    for step in range(300):
        which = torch.randint(64, (1024,), generator=generator)
        z = (centers[which] + torch.randn(1024, 16, generator=generator)).T[None]
        codes = quantizer(z, full(z)).codes
        used += torch.bincount(codes.flatten(), minlength=256) * (step >= 280)
    assert int((used > 0).sum()) >= 230


def test_start_from_a_pool_keeps_deep_codebooks_alive() -> None:
    """576 vectors a step and 1,024 entries: a start on one batch leaves the deep codebooks dead."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(32, 32, generator=generator) * torch.linspace(1, 0.05, 32)[:, None]
    quantizer = ResidualQuantizer(32, num_codebooks=8, codebook_size=1024)
    quantizer.initialize(torch.randn(8192, 32, generator=generator) @ mixing, 576, seed=0)
    assert bool(quantizer.initialized)
    torch.testing.assert_close(quantizer.counts.sum(1), torch.full((8,), 576.0), rtol=0.02, atol=0)
    used = torch.zeros(8, 1024, dtype=torch.bool)
    for step in range(60):
        z = (torch.randn(576, 32, generator=generator) @ mixing).T[None]
        codes = quantizer(z, full(z)).codes[0]
        if step >= 40:
            used.scatter_(1, codes, True)
    assert (used.float().mean(1) >= 0.3).all(), used.float().mean(1)


def test_the_pool_start_lowers_the_error_of_every_codebook() -> None:
    quantizer = make(num_codebooks=3).float().eval()
    pool = torch.randn(500, 6)
    quantizer.initialize(pool, 100, seed=1)
    error = quantizer(pool.T[None], torch.ones(1, 500, dtype=torch.bool)).relative_error
    assert 1 > error[0] > error[1] > error[2] > 0


def test_clusters_equal_a_naive_loop() -> None:
    vectors = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centers, nearest = cluster(vectors, 5, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    expected = vectors[torch.randperm(60, generator=generator)[:5]].numpy().copy()
    points = vectors.numpy()
    for _ in range(ROUNDS):
        closest = np.array([((point - expected) ** 2).sum(1).argmin() for point in points])
        for k in range(5):
            expected[k] = points[closest == k].mean(0)
    np.testing.assert_allclose(centers.numpy(), expected, rtol=1e-10)
    assert nearest.tolist() == [int(((point - expected) ** 2).sum(1).argmin()) for point in points]


def test_clusters_of_fewer_points_than_centers_cover_all_points() -> None:
    vectors = torch.arange(4, dtype=torch.float64)[:, None] * 10
    centers, nearest = cluster(vectors, 6, torch.Generator().manual_seed(0))
    torch.testing.assert_close(centers[nearest], vectors)


@pytest.mark.parametrize(
    "pool", [torch.zeros(0, 6), torch.full((5, 6), float("nan")), torch.zeros(2, 5, 6)], ids=["empty", "nan", "3-d"]
)
def test_bad_pool(pool: Tensor) -> None:
    with pytest.raises(ValueError, match="pool"):
        make().initialize(pool, 10, seed=0)


def test_a_restored_quantizer_goes_on_as_if_nothing_happened() -> None:
    whole = make(revive_every=3, revive_ratio=0.4)
    saved: dict[str, Tensor] = {}
    for step in range(12):
        if step == 5:
            saved = copy.deepcopy(whole.state_dict())
        whole(*batch(step), generator_seed=4)
    resumed = make(seed=9, revive_every=3, revive_ratio=0.4)
    resumed(*batch(99))
    resumed.load_state_dict(saved)
    for step in range(5, 12):
        resumed(*batch(step), generator_seed=4)
    assert int(resumed.steps) == 12
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def run_steps(dtype: torch.dtype, rank: int, world: int, steps: int = 50) -> dict[str, Tensor | int]:
    """Train a linear map and a quantizer on this rank's share of the same batches; the gradients are averaged."""
    torch.manual_seed(0)
    network = nn.Linear(5, 6).to(dtype)
    quantizer = ResidualQuantizer(6, num_codebooks=3, codebook_size=16, decay=0.8, revive_ratio=0.5).to(dtype)
    generator = torch.Generator().manual_seed(1)
    quantizer.initialize(0.5 * torch.randn(200, 6, generator=generator).to(dtype), 50, seed=3)
    revived = torch.zeros(3, dtype=torch.int64)
    share = slice(rank * 8 // world, (rank + 1) * 8 // world)
    for step in range(steps):
        x = torch.randn(8, 9, 5, generator=generator, dtype=torch.float64).to(dtype) * (1 + step % 3)
        mask = torch.arange(9) < torch.randint(1, 10, (8, 1), generator=generator)
        limits = torch.randint(0, 4, (8,), generator=generator)
        z = network(x[share]).transpose(1, 2)
        result: Quantized = quantizer(z, mask[share], limits[share], generator_seed=11)
        result.commitment.backward()
        revived += result.revived
        for parameter in network.parameters():
            assert parameter.grad is not None
            if world > 1:
                torch.distributed.all_reduce(parameter.grad)
            parameter.data -= 0.1 * parameter.grad / world
            parameter.grad = None
    state = dict(quantizer.state_dict()) | {"weight": network.weight.data}
    return state | {"revived": revived, "errors": result.relative_error}


def worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        torch.save(run_steps(dtype, rank, 2), Path(folder) / f"{name}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    main_process.spawn(worker, (port, str(folder)), 2)
    return folder


@pytest.mark.parametrize(("name", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
def test_two_ranks_with_half_batches_equal_one(two_ranks: Path, name: str, tolerance: float) -> None:
    expected = run_steps(getattr(torch, name), 0, 1)
    assert int(torch.as_tensor(expected["revived"]).min()) >= 5
    for rank in (0, 1):
        state = torch.load(two_ranks / f"{name}-{rank}.pt", weights_only=True)
        assert torch.equal(state["revived"], expected["revived"])
        for key in ("counts", "sums", "weight", "errors"):
            torch.testing.assert_close(state[key], expected[key], rtol=0, atol=tolerance)
