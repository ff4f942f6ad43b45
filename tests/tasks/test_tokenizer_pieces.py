"""The pieces of tokenizer training, each against a closed form or an obvious loop."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.tasks.tokenizer_runs import FIT, LOSS, TINY, sample
from voxlab.models.tokenizer.output import Output
from voxlab.parallel import Ranks
from voxlab.tasks.averages import update_average
from voxlab.tasks.history import History, curve, read_history
from voxlab.tasks.optim import AdamWCosine
from voxlab.tasks.train_tokenizer.alarms import Alarms
from voxlab.tasks.train_tokenizer.callbacks import weighted_means
from voxlab.tasks.train_tokenizer.data import StepBatches, TokenizerData, evenly
from voxlab.tasks.train_tokenizer.mel import MelModule
from voxlab.tasks.train_tokenizer.settings import Fit, Loop, fit_settings
from voxlab.tasks.train_tokenizer.usage import CodebookUse, count_codes, use_metrics, valid_codes


def _module(step: int = 0, rank: int = 0, world: int = 1, fit: Fit | None = None) -> MelModule:
    given: dict[str, Any] = {"optim": AdamWCosine(), "loop": Loop(max_steps=10), "seed": 3, "facts": {}}
    module = MelModule(TINY.build(), TINY, loss=LOSS["mel"], fit=fit or Fit(), **given)
    module.step = step
    module._trainer = SimpleNamespace(global_rank=rank, world_size=world)  # type: ignore[assignment]
    module.network.quantizer.initialized.fill_(True)
    return module


# ---- optimiser -----------------------------------------------------------------------------------------------------


def test_the_rate_rises_linearly_and_falls_along_a_cosine() -> None:
    optim = AdamWCosine(lr=1e-3, final_lr=1e-5, warmup_steps=10)
    rates = [optim.rate(step, 1000) for step in range(1000)]
    assert rates[:10] == pytest.approx([1e-4 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-5)
    middle = 10 + 989 / 2
    assert (rates[math.floor(middle)] + rates[math.ceil(middle)]) / 2 == pytest.approx((1e-3 + 1e-5) / 2)


def test_the_warm_up_of_short_runs_is_a_tenth() -> None:
    optim = AdamWCosine(lr=1.0, final_lr=0.0, warmup_steps=1000)
    assert [optim.rate(step, 50) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_vectors_are_not_decayed() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 5, 2))
            self.slope = nn.Parameter(torch.ones(1, 5, 1))
            self.frozen = nn.Parameter(torch.ones(3, 3), requires_grad=False)

    network = Network()
    kernels, vectors = AdamWCosine(weight_decay=0.1).build([network], fused=False).param_groups
    assert (kernels["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert [parameter.shape for parameter in kernels["params"]] == [(5, 3, 2)]
    assert sorted(parameter.numel() for parameter in vectors["params"]) == [5, 5, 5]


# ---- random choices ------------------------------------------------------------------------------------------------


def test_dropout_of_two_ranks_is_that_of_one() -> None:
    whole = _module(step=7).draw_codebooks(64)
    parts = [_module(step=7, rank=rank, world=2).draw_codebooks(32) for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(_module(step=8).draw_codebooks(64), whole)


@pytest.mark.parametrize(("share", "full"), [(0.0, 1.0), (0.5, 0.5 + 0.5 / 3), (1.0, 1 / 3)])
def test_a_share_of_the_items_uses_fewer_codebooks(share: float, full: float) -> None:
    drawn = _module(fit=Fit(quantizer_dropout=share)).draw_codebooks(20000)
    assert set(drawn.tolist()) <= {1, 2, 3}
    assert float((drawn == 3).double().mean()) == pytest.approx(full, abs=0.015)


def test_the_warm_up_bypasses_the_quantizer() -> None:
    module = _module()
    module.network.quantizer.initialized.fill_(False)
    assert module.draw_codebooks(4).tolist() == [0, 0, 0, 0]


@settings(max_examples=30, deadline=None)
@given(per_rank=st.integers(1, 4), world=st.integers(1, 4), extra=st.integers(0, 9), first=st.integers(0, 12))
def test_the_ranks_parts_are_the_batch_from_any_step_on(per_rank: int, world: int, extra: int, first: int) -> None:
    size = per_rank * world
    length = 3 * size + extra % size
    whole = [[(step // 3, step % 3 * size + item) for item in range(size)] for step in range(12)]
    parts = [list(StepBatches(length, size, first, 12, rank, world)) for rank in range(world)]
    joined = [[item for part in parts for item in part[step]] for step in range(len(parts[0]))]
    assert joined == whole[first:]
    assert all(len(part) == max(0, 12 - first) for part in parts)


# ---- data ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenizerData:
    corpus = sample(tmp_path_factory.mktemp("corpus"))
    corpus.prepare()
    return TokenizerData(corpus.items(), sample_rate=24000, fit=fit_settings(FIT, "mel"), seed=5, max_steps=20)


def test_mel_statistics_are_those_of_the_segments(data: TokenizerData) -> None:
    network = TINY.build()
    mean, std = data.measure_mel(network.compute_log_mel)
    segments = data.train_set.others(200, data.seed + 1)
    values = []
    for index in range(200):
        segment = segments[index]
        log_mel, mask = network.compute_log_mel(segment["wav"][None], torch.tensor([segment["lengths"]]))
        values.append(log_mel[0][:, mask[0]].double().flatten())
    assert mean == pytest.approx(float(torch.cat(values).mean()), abs=1e-9)
    assert std == pytest.approx(float(torch.cat(values).std(correction=0)), abs=1e-9)


def test_the_constant_is_the_median_of_each_bin(data: TokenizerData) -> None:
    network = TINY.build()
    assert data.val_set is not None
    frames = []
    for index in range(len(data.val_set)):
        segment = data.val_set[index]
        log_mel, mask = network.compute_log_mel(segment["wav"][None], torch.tensor([segment["lengths"]]))
        frames.append(log_mel[0][:, mask[0]].double().numpy())
    stacked = np.concatenate(frames, axis=1)
    expected = np.abs(stacked - np.median(stacked, axis=1, keepdims=True)).mean()
    assert data.measure_constant(network.compute_log_mel) == pytest.approx(expected, rel=1e-6)


def test_batches_are_the_same_with_workers_and_from_the_middle(data: TokenizerData) -> None:
    import dataclasses

    plain = [batch["wav"] for batch in data.train_dataloader()]
    data.fit = dataclasses.replace(data.fit, num_workers=2)
    try:
        worked = [batch["wav"] for batch in data.train_dataloader()]
    finally:
        data.fit = dataclasses.replace(data.fit, num_workers=0)
    assert all(torch.equal(a, b) for a, b in zip(plain, worked, strict=True))
    assert plain[0].shape == (4, 1, 12000)
    assert len(plain) == 20


def test_evenly_takes_all_or_some() -> None:
    assert evenly([1, 2, 3], None) == [1, 2, 3]
    assert evenly(list(range(10)), 4) == [0, 2, 5, 7]
    assert evenly([1, 2], 5) == [1, 2]


# ---- averages and losses -------------------------------------------------------------------------------------------


def test_the_average_moves_and_buffers_are_copied() -> None:
    average, network = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.constant_(network.weight, 3.0)
    network.running_mean.fill_(5.0)  # type: ignore[union-attr]
    update_average(average, network, 0.9)
    assert average.weight.tolist() == pytest.approx([1.2] * 3)
    assert average.running_mean.tolist() == [5.0] * 3  # type: ignore[union-attr]


def test_the_averaged_weights_stay_in_evaluation_mode() -> None:
    module = _module().train()
    assert module.network.training
    assert not module.ema_network.training


def test_the_mel_loss_is_the_weighted_sum_over_valid_frames() -> None:
    module = _module()
    module.network.standardize(-2.0, 1.5)
    generator = torch.Generator().manual_seed(0)
    target, output = torch.randn(2, 2, 100, 8, generator=generator)
    mask = torch.arange(8) < torch.tensor([[8], [4]])
    quantized: Any = SimpleNamespace(commitment=torch.tensor(0.4))
    found = module.losses(Output(target, output, mask, quantized=quantized), training=False)
    difference = torch.cat([(output - target)[0], (output - target)[1, :, :4]], dim=1)
    l1, mse = difference.abs().mean(), difference.square().mean()
    assert float(found["loss"]) == pytest.approx(float(l1 + 0.5 * mse + 0.25 * 0.4), rel=1e-6)
    assert float(found["mel_l1"]) == pytest.approx(1.5 * float(l1), rel=1e-6)
    assert float(found["mel_l1_db"]) == pytest.approx(1.5 * 8.685889638 * float(l1), rel=1e-6)
    # Bins with weight above 8 kHz, by the filters' upper edges on the HTK scale.
    top = 2595 * math.log10(1 + 12000 / 700)
    edges = [700 * (10 ** (top * (index + 2) / 101 / 2595) - 1) for index in range(100)]
    low = sum(edge <= 8000 for edge in edges)
    assert float(found["mel_l1_8k"]) == pytest.approx(1.5 * float(difference[:low].abs().mean()), rel=1e-5)


def test_means_weigh_each_rank_by_its_frames() -> None:
    assert weighted_means(Ranks(), {"loss": (6.0, 4.0)}) == {"loss": 1.5}


# ---- use of the codebooks ------------------------------------------------------------------------------------------


def test_entropy_is_in_bits() -> None:
    metrics = use_metrics(torch.tensor([[5, 5, 5, 5, 5, 5, 5, 5], [9, 0, 0, 0, 0, 0, 0, 0], [0] * 8]))
    assert metrics["vq/entropy_bits/1"] == pytest.approx(3.0)
    assert metrics["vq/perplexity/1"] == pytest.approx(8.0)
    assert (metrics["vq/use/1"], metrics["vq/use/2"], metrics["vq/entropy_bits/2"]) == (1.0, 0.125, 0.0)
    assert "vq/use/3" not in metrics


def test_only_valid_codes_of_used_codebooks_count() -> None:
    codes = torch.tensor([[[1, 2, 3], [4, 5, 6]], [[1, 1, 1], [7, 7, 7]]])
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])  # two mel frames a code: 3 codes, and 2 with any frame
    counts = count_codes(valid_codes(codes, torch.tensor([2, 1]), mask), 8)
    assert counts[0].tolist() == [0, 3, 1, 1, 0, 0, 0, 0]
    assert counts[1].tolist() == [0, 0, 0, 0, 1, 1, 1, 0]


def test_the_window_holds_ten_vectors_an_entry_over_all_ranks() -> None:
    use, single = CodebookUse(4), CodebookUse(4)
    quantized: Any = SimpleNamespace(
        codes=torch.zeros(1, 2, 8, dtype=torch.int64), relative_error=torch.ones(2), revived=torch.ones(2)
    )
    for _ in range(20):
        single.add(quantized, torch.tensor([2]), torch.ones(1, 8, dtype=torch.bool))
        use.add(quantized, torch.tensor([2]), torch.ones(1, 8, dtype=torch.bool), world=2)
    counts, half = single.counts(), use.counts()
    assert counts is not None
    assert half is not None
    assert counts[0].tolist() == [40, 0, 0, 0]
    assert half[0].tolist() == [24, 0, 0, 0]  # 48 of both ranks: 40, rounded up to whole batches
    assert single.take()[1].tolist() == [20.0, 20.0]
    other = CodebookUse(4)
    other.load(single.state(), torch.device("cpu"))
    assert torch.equal(other.counts(), counts)  # type: ignore[arg-type]


def test_alarms_are_told_once() -> None:
    alarms = Alarms()
    counts = torch.zeros(2, 100, dtype=torch.int64)
    counts[0, :50], counts[1, :5] = 20, 200
    alarms.check_use(counts, 500)
    assert alarms.check_row({}, 500, 50) == []
    alarms.check_use(counts, 1000)
    (told,) = alarms.check_row({}, 1000, 50)
    assert told.startswith("codebook 2 uses 5% of its 100 entries")
    alarms.check_use(counts, 1050)
    assert alarms.check_row({"vq/entropy_bits/1": 2.0}, 1050, 50) == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"train/z_std": 5e-4}, "latents have collapsed"),
        ({"vq/entropy_bits/3": 0.5}, "codebook 3 carries 0.50 bits"),
    ],
)
def test_signs_of_collapse_are_told(row: dict[str, float], message: str) -> None:
    (told,) = Alarms().check_row(row, 1000, 50)
    assert message in told


def test_a_discriminator_that_has_won_is_told_after_2000_steps() -> None:
    alarms, row = Alarms(), {"gan/d_real": 1.0, "gan/d_fake": 0.0}
    told = [bool(alarms.check_row(row, step, 50)) for step in range(50, 2101, 50)]
    assert told.index(True) == 39
    assert sum(told) == 1


def test_codebooks_that_fit_only_the_training_speakers_are_told() -> None:
    alarms = Alarms()
    train, val = torch.zeros(1, 10, dtype=torch.int64), torch.zeros(1, 10, dtype=torch.int64)
    train[:], val[:, :6] = 10, 10
    alarms.check_use(train, 10)
    alarms.check_validation(val)
    (told,) = alarms.check_row({}, 10, 5)
    assert told.startswith("codebook 1 uses 60% of its entries in validation, 100% in training")


# ---- history -------------------------------------------------------------------------------------------------------


def test_the_history_of_a_resumed_run_goes_on_at_its_step(tmp_path: Any) -> None:
    history = History(tmp_path, {}, 0)
    for step in (1, 2, 3):
        history.add(step, {"loss": step / 10, "bad": float("nan")})
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    rows = read_history(tmp_path / "history.jsonl")
    assert rows[0] == {"step": 1, "loss": 0.1, "bad": None}
    History(tmp_path, {}, 2).add(3, {"loss": 0.5})
    assert curve(read_history(tmp_path / "history.jsonl"), "loss") == ([1, 2, 3], [0.1, 0.2, 0.5])
