"""Stores of WavLM and MFCC through task=extract: any kind of WAV, going on after an end in the middle, same bytes."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.features.test_feature_contract import build
from voxlab import audio
from voxlab.data.audiofolder import AudioFolder
from voxlab.data.feature_store import FeatureStore, open_store
from voxlab.errors import UserError
from voxlab.features.base import Chunk, Features, Recording
from voxlab.features.interpolate import at_frames, frame_times
from voxlab.parallel import Ranks
from voxlab.tasks.extract.features import extract_features

SECONDS = 2.3
# name -> sample rate, channels, subtype
KINDS = {
    "float": (16000, 1, "FLOAT"),
    "pcm16": (16000, 1, "PCM_16"),
    "pcm24": (44100, 2, "PCM_24"),
    "pcm8": (16000, 1, "PCM_U8"),
    "double": (48000, 4, "DOUBLE"),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> AudioFolder:
    """One sound in WAVs of several kinds; its channels differ, their mean is the sound."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, (rate, channels, subtype) in KINDS.items():
        time = np.arange(round(SECONDS * rate)) / rate
        partials = sum(np.sin(2 * np.pi * 220 * n * time + n**2) for n in range(1, 30))
        sound = 0.01 * partials * (1 + np.sin(2 * np.pi * 3 * time))
        balance = np.linspace(-0.3, 0.3, channels) if channels > 1 else np.zeros(1)
        soundfile.write(folder / f"{name}.wav", sound[:, None] * (1 + balance), rate, subtype=subtype)
    return AudioFolder(source="disk", root=str(folder))


def run(corpus: Any, out: Path, features: Features) -> FeatureStore:
    place: dict[str, Any] = {"ranks": Ranks(), "run_dir": out.parent / "run"}
    extract_features(corpus, features, str(out), verify="size", max_bad=0.0, dry_run=False, **place)
    return open_store(out)


def digests(store: Path) -> dict[str, str]:
    files = [path for path in sorted(store.rglob("*")) if path.is_file() and ".state" not in path.parts]
    return {path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(("name", "dim"), [("mfcc", 128), ("wavlm_tiny", 32)])
def test_any_wav_gives_rows_of_its_sound(corpus: AudioFolder, tmp_path: Path, name: str, dim: int) -> None:
    store = run(corpus, tmp_path / "out", build(name))
    rows = {episode.name: np.asarray(episode.features(), np.float32) for episode in store.episodes}
    assert set(rows) == set(KINDS)
    assert {values.shape for values in rows.values()} == {(-(-round(SECONDS * 16000) // 320), dim)}
    assert store.flags["random_weights"] == (name == "wavlm_tiny")
    for other in ("pcm16", "pcm24", "double"):
        difference = np.abs(rows[other][8:-8] - rows["float"][8:-8]).mean()
        assert difference < 0.1 * rows["float"].std(), other


def test_rows_of_a_store_are_brought_to_motion_frames(corpus: AudioFolder, tmp_path: Path) -> None:
    store = run(corpus, tmp_path / "out", build("mfcc"))
    episode = next(episode for episode in store.episodes if episode.name == "float")
    rows = np.asarray(episode.features())
    frames = at_frames(rows, frame_times(store.features, len(rows)), 69, 30)[:, 0]
    wav = audio.load(corpus.folder / "float.wav")[0][0].numpy()
    edges = [round(frame * 16000 / 30) for frame in range(70)]
    level = np.log([np.square(wav[edges[i] : edges[i + 1]]).mean() for i in range(69)])
    lags = [np.corrcoef(level[5:-5], np.roll(frames, lag)[5:-5])[0, 1] for lag in (-2, -1, 0, 1, 2)]
    assert int(np.argmax(lags)) == 2
    assert lags[2] > 0.9


def test_real_recordings_have_a_row_for_every_320_samples(tmp_path: Path) -> None:
    real = os.environ.get("VOXLAB_REAL_DATA")
    if not real:
        pytest.skip("VOXLAB_REAL_DATA names no folder of real data")
    folder = tmp_path / "wavs"
    folder.mkdir()
    for wav in sorted((Path(real) / "beat2" / "BEAT2" / "beat_english_v2.0.0").rglob("2_scott_0_1_1.wav")):
        (folder / wav.name).write_bytes(wav.read_bytes())
    store = run(AudioFolder(source="disk", root=str(folder)), tmp_path / "out", build("mfcc"))
    (episode,) = store.episodes
    samples = soundfile.info(folder / "2_scott_0_1_1.wav").frames
    assert episode.num_frames == -(-samples // 320)
    num_frames = samples * 30 // 16000
    frames = at_frames(np.asarray(episode.features()), frame_times(store.features, episode.num_frames), num_frames, 30)
    assert frames.shape == (num_frames, 128)
    assert np.isfinite(frames).all()


class Ending:
    """Features that end with an error after their first recording."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def __getattr__(self, name: str) -> Any:
        return getattr(self.features, name)

    def to(self, device: str) -> "Ending":
        self.features.to(device)
        return self

    def stream(self, recordings: Iterable[Recording]) -> Iterator[Chunk]:
        for chunk in self.features.stream(recordings):
            yield chunk
            if chunk.last:
                raise UserError("the disk is full")


@pytest.mark.parametrize("name", ["mfcc", "wavlm_tiny"])
def test_an_extraction_that_ended_early_goes_on_to_the_same_bytes(
    corpus: AudioFolder, tmp_path: Path, name: str
) -> None:
    whole = run(corpus, tmp_path / "whole", build(name)).folder
    ending: Any = Ending(build(name))
    with pytest.raises(UserError, match="the disk is full"):
        run(corpus, tmp_path / "halves", ending)
    assert len(list((tmp_path / "halves").rglob("episode.json"))) == 1
    assert digests(run(corpus, tmp_path / "halves", build(name)).folder) == digests(whole)
