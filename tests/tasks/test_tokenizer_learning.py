"""What training of the mel codec achieves: it learns made-up and real speech, by heart too, codebook after codebook."""

import itertools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from tests.tasks.tokenizer_runs import sample, train
from voxlab import audio
from voxlab.codecs.rvq import Rvq
from voxlab.data.audiofolder import AudioFolder
from voxlab.data.items import AudioItem
from voxlab.data.librispeech import LibriSpeech
from voxlab.metrics.audio import stoi
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.mel_codec import MelArchitecture, MelCodec
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.models.tokenizer.vocoders import GriffinLim
from voxlab.tasks.history import read_history
from voxlab.tasks.optim import AdamWCosine

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.timeout(3600)]

QUANTIZER = QuantizerSettings(num_codebooks=8, codebook_size=64, decay=0.95)
FIT = {"batch_size": 8, "segment_seconds": 2.0, "warmup_steps": 60, "ema_decay": 0.98, "loudness": None}
OPTIM = AdamWCosine(lr=1e-3, final_lr=1e-3)


def learn(run_dir: Path, corpus: Any, steps: int, hidden: int = 128, **fit: Any) -> dict[str, Any]:
    """Train a small mel codec for `steps`; one validation, at the end."""
    codec = Rvq(weights=None, architecture=MelArchitecture(hidden=hidden, quantizer=QUANTIZER), vocoder=GriffinLim())
    settings = {**FIT, "save_every": steps, **fit}
    trainer = {"max_steps": steps, "val_check_interval": steps}
    return train(run_dir, corpus, codec=codec, fit=settings, trainer=trainer, optim=OPTIM)


def trained_mel_l1(run_dir: Path) -> float:
    """The mean training error of the last 20 steps, in nats."""
    rows = [row["train/mel_l1"] for row in read_history(run_dir / "history.jsonl") if "train/mel_l1" in row]
    return sum(rows[-20:]) / 20


@dataclass(frozen=True)
class Clip:
    """A whole recording as a batch of one, at 24 kHz."""

    wav: torch.Tensor

    @classmethod
    def read(cls, item: AudioItem) -> "Clip":
        return cls(audio.load(item.path, 24000)[0][None])

    @property
    def lengths(self) -> torch.Tensor:
        return torch.tensor([self.wav.shape[-1]])

    def mel_l1(self, network: MelCodec, count: int = 8) -> float:
        """The error of a reconstruction from the first `count` codebooks, in nats."""
        with torch.no_grad():
            output = network(self.wav, self.lengths, torch.tensor([count]))
        return float((output.output - output.target).abs().mean() * network.mel_std)


@pytest.fixture(scope="module")
def real() -> Path:
    folder = Path(os.environ.get("VOXLAB_REAL_DATA", "")) / "librispeech"
    if "VOXLAB_REAL_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("VOXLAB_REAL_DATA names no folder with librispeech/ in it")
    return folder


def test_it_learns_made_up_speech(tmp_path: Path) -> None:
    corpus = sample(tmp_path)
    summary = learn(tmp_path / "run", corpus, steps=150, quantizer_dropout=0.0)
    print(f"training {trained_mel_l1(tmp_path / 'run'):.3f}, held out {summary['val_mel_l1']:.3f} nats")
    assert trained_mel_l1(tmp_path / "run") <= 0.75


def test_each_codebook_adds_something_on_speakers_never_heard(real: Path, tmp_path: Path) -> None:
    fractions = {"train": 0.84, "validation": 0.16}
    corpus = LibriSpeech(source="disk", root=str(real), subsets=None, split_fractions=fractions)
    learn(tmp_path / "run", corpus, steps=400, quantizer_dropout=0.5)
    network: Any = files.load(tmp_path / "run")[0]
    clips = [Clip.read(item) for item in corpus.items() if item.split == "validation"]
    frames = [clip.wav.shape[-1] for clip in clips]
    errors = [
        sum(clip.mel_l1(network, count) * n for clip, n in zip(clips, frames, strict=True)) / sum(frames)
        for count in range(1, 9)
    ]
    print("held out, 1 to 8 codebooks:", " ".join(f"{error:.4f}" for error in errors))
    assert all(after <= 1.01 * before for before, after in itertools.pairwise(errors))
    assert errors[-1] <= 0.96 * errors[0]


def test_four_recordings_are_learnt_by_heart(real: Path, tmp_path: Path) -> None:
    lengths = {path: soundfile.info(path).duration for path in sorted(real.rglob("*.flac"))}
    (tmp_path / "audio").mkdir()
    for path in sorted(lengths, key=lambda path: (abs(lengths[path] - 12.5), path))[:4]:  # 50 s together
        shutil.copy(path, tmp_path / "audio")
    corpus = AudioFolder(root=str(tmp_path / "audio"))
    learn(tmp_path / "run", corpus, steps=600, hidden=256, quantizer_dropout=0.0, val_split=None)
    network: Any = files.load(tmp_path / "run")[0]
    codec = Rvq.of_network(network, network.architecture, GriffinLim())
    clips = [Clip.read(item) for item in corpus.items()]
    errors = [clip.mel_l1(network) for clip in clips]
    decoded = [codec.detokenize(codec.tokenize(clip.wav[0]))[: clip.wav.shape[-1]] for clip in clips]
    rated = [
        [audio.resample(x, 24000, 16000) for x in (clip.wav[0, 0], wav)]
        for clip, wav in zip(clips, decoded, strict=True)
    ]
    heard = [stoi(*pair) for pair in rated]
    print(f"mel L1 {errors}, STOI {heard}")
    assert sum(errors) / 4 <= 0.65
    assert sum(heard) / 4 >= 0.70
