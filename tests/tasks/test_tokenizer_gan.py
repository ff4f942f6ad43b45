"""Adversarial training: the two descents, their schedule, and that a small wave codec learns."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import torchaudio
from lightning import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from voxlab.errors import UserError
from voxlab.losses.spectral import MultiScaleMel
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.models.tokenizer.wave_codec import WaveArchitecture
from voxlab.tasks.optim import AdamWCosine
from voxlab.tasks.train_tokenizer.gan import GanModule
from voxlab.tasks.train_tokenizer.settings import Fit, Loop

LOSS = {"mel": 15.0, "adversarial": 1.0, "feature": 2.0, "commitment": 0.25, "discriminators": "msstft"}
TINY = WaveArchitecture(
    strides=(4, 5, 8), width=4, latent=16, quantizer=QuantizerSettings(num_codebooks=2, codebook_size=16, decay=0.9)
)


def voice(samples: int, seed: int) -> Tensor:
    """Return (1, samples) of something like speech at 24 kHz: gliding harmonics in syllables, and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    pitch, glide, start = (100 + 120 * torch.rand(1, generator=generator)), *torch.rand(2, generator=generator)
    time = torch.arange(samples) / 24000
    phase = 2 * torch.pi * (pitch * time + 20 * (glide - 0.5) * time**2)
    tone = sum((phase * k).sin() / k for k in range(1, 20))
    syllables = (torch.sin(2 * torch.pi * (3 * time + start)) > -0.4).float()
    noise = torch.randn(samples, generator=generator)
    return (0.1 * (tone + 0.1 * noise) * (0.05 + syllables))[None]


class Clips(LightningDataModule):
    """Batches made by `draw(step) -> wav (B, 1, N)`."""

    def __init__(self, draw: Callable[[int], Tensor], steps: int) -> None:
        super().__init__()
        self.draw, self.steps = draw, steps

    def _batch(self, step: int) -> dict[str, Any]:
        wav = self.draw(step)
        return {"wav": wav, "lengths": torch.full((len(wav),), wav.shape[-1]), "id": [f"{step}"] * len(wav)}

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        batches: Any = [self._batch(step) for step in range(self.steps)]
        return DataLoader(batches, batch_size=None)

    def pool_batches(self, num_segments: int) -> Iterator[dict[str, Any]]:
        first = self._batch(100_000)
        yield from (self._batch(100_000 + i) for i in range(-(-num_segments // len(first["wav"]))))


def make(architecture: WaveArchitecture, *, steps: int, adv_start_step: int, kind: type = GanModule, **fit: Any) -> Any:
    torch.manual_seed(0)
    settings = Fit(**{"batch_size": 2, "segment_seconds": 0.2, "warmup_steps": 2, **fit})
    return kind(
        architecture.build(),
        architecture,
        loss={**LOSS, "adv_start_step": adv_start_step},
        optim=AdamWCosine(lr=5e-4, warmup_steps=10, betas=(0.9, 0.99)),  # from 1e-3 on, wave codecs diverge
        fit=settings,
        loop=Loop(max_steps=steps, gradient_clip_val=10.0),
        seed=0,
        facts={},
    )


def fit(module: GanModule, draw: Callable[[int], Tensor], steps: int, **changes: Any) -> None:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    shape = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    trainer = Trainer(**{"logger": False, "use_distributed_sampler": False, **quiet, **shape, **changes})  # type: ignore[arg-type]
    trainer.fit(module, datamodule=Clips(draw, steps))
    assert module.step == steps


class Recorded(GanModule):
    """Keeps the logged numbers of each step, and what each descent changed."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.rows: list[dict[str, float]] = []
        self.moved: list[tuple[int, list[bool]]] = []

    def descend(self, index: int, loss: Tensor) -> None:
        parts = (self.network, self.discriminators)
        before = [nn.utils.parameters_to_vector(part.parameters()).clone() for part in parts]
        old_gradients = [parameter.grad for parameter in self.discriminators.parameters()]
        super().descend(index, loss)
        after = [nn.utils.parameters_to_vector(part.parameters()) for part in parts]
        self.moved.append((index, [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]))
        if index == 0:  # the very same gradient tensors as before the network's pass
            new = [parameter.grad for parameter in self.discriminators.parameters()]
            assert all(a is b for a, b in zip(old_gradients, new, strict=True))

    def finish_step(self, losses: Any, output: Any) -> None:
        super().finish_step(losses, output)
        self.rows.append({name: float(value) for name, value in self.train_log.items()})


def test_twenty_adversarial_steps() -> None:
    module = make(TINY, steps=24, adv_start_step=4, kind=Recorded)
    fit(module, lambda step: torch.stack([voice(4800, 2 * step + i) for i in (0, 1)]), 24)
    assert [index for index, _ in module.moved] == [0] * 4 + [1, 0] * 20
    assert all(moved == [index == 0, index == 1] for index, moved in module.moved)
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in module.rows)
    assert [set(row) for row in module.rows[:4]] == [{"mel_ms", "loss", "commit"}] * 4
    for row in module.rows[4:]:
        assert row["gan/feat"] > 0
        expected = 15 * row["mel_ms"] + row["gan/adv"] + 2 * row["gan/feat"] + 0.25 * row["commit"]
        assert row["loss"] == pytest.approx(expected, rel=1e-5)
    assert module.rows[-1]["gan/d_loss"] < module.rows[4]["gan/d_loss"]
    assert set(module.grad_norms) == {0, 1}


def test_the_average_and_the_evaluation_leave_the_discriminators_alone() -> None:
    module = make(TINY, steps=3, adv_start_step=0)
    fit(module, lambda step: voice(4800, step)[None], 3)
    batch = {"wav": voice(4800, 50)[None], "lengths": torch.tensor([4800])}
    module.validation_step(batch, 0)
    taken = module.take_validation()
    assert set(taken) == {"mel_ms", "loss", "commit"}
    total, weight = taken["mel_ms"]
    with torch.no_grad():
        output = module.run_average(batch)
        expected = MultiScaleMel(24000)(output.output, output.target)
    assert total / weight == pytest.approx(expected.item(), rel=1e-5)
    assert not any(parameter.requires_grad for parameter in module.ema_network.parameters())
    assert all(parameter.requires_grad for parameter in module.discriminators.parameters())


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"fit.segment_seconds=0.05.*0.085 s"):
        make(TINY, steps=1, adv_start_step=0, segment_seconds=0.05)
    with pytest.raises(UserError, match=r"loss.wave.discriminators='msd'.*msstft, mpd_mrd"):
        GanModule(
            TINY.build(), TINY, loss={**LOSS, "discriminators": "msd"}, optim=AdamWCosine(), fit=Fit(),
            loop=Loop(max_steps=1), seed=0, facts={},
        )  # fmt: skip


RANK_SCRIPT = """
import os, sys
import torch
sys.path.insert(0, {folder!r})
import test_tokenizer_gan as tests
tests.train_as_a_rank(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)), {out!r})
"""


def train_as_a_rank(rank: int, world: int, out: str) -> None:
    """Train on this rank's part of batches of four; rank 0 writes the weights and codebooks."""
    from lightning.pytorch.strategies import DDPStrategy

    def draw(step: int) -> Tensor:
        wav = torch.stack([voice(2400, 4 * step + i) for i in range(4)]).double()
        return wav if step >= 100_000 else wav.chunk(world)[rank]

    strategy: Any = DDPStrategy(process_group_backend="gloo", find_unused_parameters=True, broadcast_buffers=False)
    module = make(TINY, steps=12, adv_start_step=4, batch_size=4, segment_seconds=0.1)
    fit(module, draw, 12, precision="64-true", devices=world, strategy=strategy if world > 1 else "auto")
    if rank == 0:
        torch.save({"network": module.network.state_dict(), "judges": module.discriminators.state_dict()}, out)


@pytest.mark.slow
@pytest.mark.training
def test_two_ranks_with_half_the_batch_equal_one(tmp_path: Path) -> None:
    states: list[dict[str, dict[str, Tensor]]] = []
    for world in (1, 2):
        out, script = str(tmp_path / f"{world}.pt"), tmp_path / f"train_{world}.py"
        script.write_text(RANK_SCRIPT.format(folder=str(Path(__file__).parent), out=out))
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *(launcher if world > 1 else []), str(script)], check=True, env=environment)
        states.append(torch.load(out, weights_only=True))
    one, two = states
    for part, tensors in one.items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(two[part][name], tensor, rtol=1e-6, atol=1e-6, msg=f"{part}.{name}")


def _excerpts() -> tuple[list[Tensor], Tensor]:
    """Return training clips (1, N) at 24 kHz and 4 s of a speaker that is not among them."""
    root = os.environ.get("VOXLAB_REAL_DATA")
    if not root:
        pytest.skip("set VOXLAB_REAL_DATA to a folder with LibriSpeech excerpts in librispeech/")
    clips: dict[str, list[Tensor]] = {}
    for file in sorted(Path(root, "librispeech").rglob("*.flac")):
        samples, rate = soundfile.read(file, dtype="float32")
        wav = torchaudio.functional.resample(torch.from_numpy(samples)[None], rate, 24000)
        clips.setdefault(file.name.split("-")[0], []).append(wav)
    held_out = "3331"
    training = [wav for speaker, wavs in clips.items() if speaker != held_out for wav in wavs]
    return training, max(clips[held_out], key=lambda wav: wav.shape[-1])[:, :96000]


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.timeout(3600)
def test_a_small_wave_codec_learns_speech() -> None:
    training, unseen = _excerpts()
    quantizer = QuantizerSettings(num_codebooks=4, codebook_size=64, decay=0.95)
    architecture = WaveArchitecture(strides=(2, 4, 5, 8), width=16, latent=128, quantizer=quantizer)
    module = make(architecture, steps=300, adv_start_step=10_000, batch_size=6, segment_seconds=0.5, warmup_steps=60)

    def draw(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        chosen = [training[int(i)] for i in torch.randint(len(training), (6,), generator=generator)]
        starts = [int(torch.randint(wav.shape[-1] - 12000, (1,), generator=generator)) for wav in chosen]
        return torch.stack([wav[:, start : start + 12000] for wav, start in zip(chosen, starts, strict=True)])

    lengths = torch.tensor([96000])
    with torch.no_grad():
        before = unnormalised_distance(module.ema_network.eval()(unseen[None], lengths).output[0], unseen)
    fit(module, draw, 300)
    with torch.no_grad():
        output = module.ema_network(unseen[None], lengths)
    after = unnormalised_distance(output.output[0], unseen)
    silence = unnormalised_distance(torch.zeros_like(unseen), unseen)
    used = [len(row.unique()) for row in output.quantized.codes[0]]
    trained_on = MultiScaleMel(24000)(output.output, unseen[None]).item()
    print(f"distance on an unseen speaker {before:.2f} -> {after:.2f} ({trained_on=:.2f}, {silence=:.1f}), {used=}")
    assert before > 2 * after
    assert after <= 3.8  # collapsed networks stay at 4.8
    assert min(used) >= 20
    assert output.output.shape == (1, 1, 96000)


def unnormalised_distance(output: Tensor, target: Tensor) -> float:
    """Return the multi-scale distance of six windows from 64 samples, on HTK bins that are not divided by width."""
    total = 0.0
    for window, bins in zip((64, 128, 256, 512, 1024, 2048), (5, 10, 20, 40, 80, 160), strict=True):
        settings = {"n_fft": window, "hop_length": window // 4, "n_mels": bins, "power": 1.0}
        mel = torchaudio.transforms.MelSpectrogram(24000, **settings)  # type: ignore[arg-type]
        total += float((mel(output).clamp_min(1e-5).log10() - mel(target).clamp_min(1e-5).log10()).abs().mean())
    return total
