"""Windows of motion, codes, audio features and words for training task=a2g; ratios of one run.

Against a window an item in LMDB, pickled with its audio, as EMAGE and GestureLSM keep them: read, unpickled, made into
tensors and collated. That batch still lacks what task=a2g has in its own: WavLM and MFCC. Batches of 64 windows in
random order, one thread, files in the page cache, by CPU time (others may share the machine).

.venv/bin/python benchmarks/a2g_loading.py --clips 12
"""

import argparse
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from voxlab import audio
from voxlab.data.beat2 import Beat2
from voxlab.data.motion_store import MotionStore, open_motion_store
from voxlab.data.motion_windows import window_starts
from voxlab.features.mfcc import Mfcc
from voxlab.features.wavlm import WavLMFeatures
from voxlab.models.gesture.masking import Masking
from voxlab.models.gesture.motion_codec import MotionCodec, part_record
from voxlab.models.gesture.motion_rvq import MotionArchitecture, MotionRvq
from voxlab.models.gesture.text import WordTable
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.motion.clip import Motion
from voxlab.motion.files import read_motion, write_motion
from voxlab.motion.parts import read_layout
from voxlab.parallel import Ranks, launched
from voxlab.tasks.a2g.aligned import align, open_aligned
from voxlab.tasks.a2g.data import TrainData
from voxlab.tasks.a2g.features import measure_moments, open_tracks
from voxlab.tasks.a2g.windows import ClipData, Windows
from voxlab.tasks.extract.features import extract_features

FPS, SAMPLE_RATE, LENGTH, STRIDE, BATCH = 30, 16000, 64, 20, 64
SECONDS = 60
# Of full width with little depth: only the size of what it gives matters.
WAVLM: dict[str, Any] = {"num_hidden_layers": 1, "intermediate_size": 64, "conv_dim": [16] * 7}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12, help=f"of {SECONDS} s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where all is written; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        corpus = write_corpus(folder, options.clips)
        store = open_motion_store(corpus)
        windows = open_windows(corpus, store, folder)
        items = PickledItems(write_items(store, folder / "lmdb"))
        print(f"{options.clips} clips of {SECONDS} s, {len(windows.places)} windows. Bytes for a second of motion:")
        print(f"{bytes_of(folder, store):.0f} in stores, {items.num_bytes / (options.clips * SECONDS):.0f} in LMDB.\n")
        compare(windows, items, options.rounds)


# ---- material ------------------------------------------------------------------------------------------------------


def write_corpus(folder: Path, clips: int) -> Beat2:
    """Write noise in the form of BEAT2: clips that move and sound."""
    root, rng = folder / "beat_english_v2.0.0", np.random.default_rng(0)
    ids = [f"2_scott_0_{number}_{number}" for number in range(17, 17 + clips)]
    for clip in ids:
        walk = lambda *shape: 0.01 * rng.standard_normal(shape).cumsum(0)  # noqa: E731
        frames = SECONDS * FPS
        write_motion(
            root / "smplxflame_30" / f"{clip}.npz",
            Motion(
                poses=np.sin(walk(frames, 165)).astype(np.float32),
                trans=np.sin(walk(frames, 3)),
                expressions=np.sin(walk(frames, 100)).astype(np.float32),
                betas=rng.standard_normal(300).astype(np.float32),
                fps=FPS,
            ),
        )
        wav = 0.1 * torch.from_numpy(rng.standard_normal((1, SECONDS * SAMPLE_RATE), np.float32))
        (root / "wave16k").mkdir(exist_ok=True)
        (root / "wave16k" / f"{clip}.wav").write_bytes(audio.encode_wav(wav, SAMPLE_RATE))
    rows = "".join(f"{clip},train\n" for clip in ids)
    (root / "train_test_split.csv").write_text(f"id,type\n{rows}")
    return Beat2(root=str(root), store=str(folder / "motion"))


def open_windows(corpus: Any, store: MotionStore, folder: Path) -> Windows:
    """Make features and codes, and return the windows as task=a2g has them."""
    clips, layout = store.split("train"), read_layout(corpus.layout)
    codecs = {part.name: random_codec(part, layout) for part in layout.parts}
    tracks = {}
    features = {"features": WavLMFeatures(weights="random", config=WAVLM), "acoustic": Mfcc()}
    for key, node in features.items():
        place: dict[str, Any] = {"ranks": Ranks(), "run_dir": folder / "run"}
        extract_features(corpus, node, str(folder / key), verify="size", max_bad=0.0, dry_run=False, **place)
        tracks[key] = open_tracks(str(folder / key), node, corpus, clips, key=key, extraction=None)
    align(store, tracks, Ranks())
    aligned = {key: open_aligned(store, value, clips) for key, value in tracks.items()}
    data = [
        ClipData(
            clip=clip,
            speaker=0,
            aligned={key: values[number] for key, values in aligned.items()},
            codes={name: codec.tokenize(clip.frames()) for name, codec in codecs.items()},
            words=tuple((f"word{n % 100}", n / 3, n / 3 + 0.2) for n in range(3 * SECONDS)),
        )
        for number, clip in enumerate(clips)
    ]
    moments = {key: measure_moments(value.tracks, clips, Ranks()) for key, value in tracks.items()}
    table = WordTable(tuple(f"word{n}" for n in range(100)))
    return Windows(data, codecs, moments, table, length=LENGTH, stride=STRIDE, fps=FPS)


def random_codec(part: Any, layout: Any) -> MotionCodec:
    """Return a tokenizer with the code rates and sizes of the published ones, and small convolutions."""
    quantizer = QuantizerSettings(num_codebooks=6, codebook_size=1024)
    small = MotionArchitecture(width=16, depth=1, code_dim=16, quantizer=quantizer)
    network = MotionRvq(architecture=small).of_part(part).build().eval().requires_grad_(False)
    return MotionCodec(part, part_record(part, layout, FPS, "velocity"), network, "random")


def bytes_of(folder: Path, store: MotionStore) -> float:
    """Return the bytes of motion and features for a second."""
    files = [*store.folder.rglob("frames.npy"), *folder.rglob("a0.features.npy")]
    return sum(path.stat().st_size for path in files) / (len(store.clips) * SECONDS)


def write_items(store: MotionStore, path: Path) -> Path:
    """Write one pickled list a window, all in float64, audio as amplitude and onsets at the rate of samples."""
    environment = lmdb.open(str(path), map_size=1 << 34)
    number = 0
    for clip in store.clips:
        motion = read_motion(clip.source.motion)
        wav = audio.load(clip.wav)[0][0].numpy().astype(np.float64)
        sound = np.stack([np.abs(wav), wav > 0.2], axis=1).astype(np.float64)
        with environment.begin(write=True) as transaction:
            for start in window_starts(clip.num_frames, LENGTH, STRIDE):
                item = item_of(motion, sound, start, clip.wav)
                transaction.put(f"{number:08d}".encode(), pickle.dumps(item))
                number += 1
    environment.sync()
    environment.close()
    return path


def item_of(motion: Motion, sound: np.ndarray, start: int, wav: Path) -> list[Any]:
    """Return what one window holds."""
    span, first = slice(start, start + LENGTH), round(start * SAMPLE_RATE / FPS)
    trans = motion.trans[span].astype(np.float64)
    return [
        np.concatenate([motion.poses[span], np.zeros((LENGTH, 4))], axis=1).astype(np.float64),
        sound[first : first + round(LENGTH * SAMPLE_RATE / FPS)].copy(),
        motion.expressions[span].astype(np.float64),
        np.repeat(motion.betas[None].astype(np.float64), LENGTH, 0),
        np.zeros(LENGTH, np.int64),
        np.zeros(LENGTH, np.int64),
        np.zeros(LENGTH),
        np.zeros((LENGTH, 1), np.int64),
        trans,
        np.diff(trans, axis=0, prepend=trans[:1]),
        str(wav),
    ]


class PickledItems(Dataset[list[Any]]):
    """One window an item."""

    def __init__(self, path: Path) -> None:
        self.num_bytes = (path / "data.mdb").stat().st_size
        self.environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
        with self.environment.begin() as transaction:
            self.count = transaction.stat()["entries"]

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> list[Any]:
        """Return what is stored of a window."""
        with self.environment.begin() as transaction:
            stored: Any = transaction.get(f"{index:08d}".encode())
            return pickle.loads(stored)

    def unpickled(self) -> Iterator[list[Any]]:
        """Yield batches of what is stored."""
        order = np.random.default_rng(0).permutation(self.count)
        for start in range(0, self.count - BATCH + 1, BATCH):
            yield [self.read(index) for index in order[start : start + BATCH]]

    def __getitem__(self, index: int) -> list[Any]:
        item = self.read(index)
        return [
            torch.from_numpy(value).to(torch.float32 if value.dtype.kind == "f" else torch.int32)
            if isinstance(value, np.ndarray)
            else value
            for value in item
        ]


# ---- comparison ----------------------------------------------------------------------------------------------------


def compare(windows: Windows, items: PickledItems, rounds: int) -> None:
    """Print windows a second of an epoch."""
    data = TrainData(windows, BATCH, Masking(), seed=0, world=1)
    ways: dict[str, Callable[[], Iterator[Any]]] = {
        "LMDB and pickle, a window an item": lambda: iter(DataLoader(items, BATCH, shuffle=True, drop_last=True)),
        "of that, reading and unpickling alone": lambda: items.unpickled(),
        "task=a2g: a batch as it is handed over": lambda: (data.batch(step) for step in range(data.per_epoch)),
        "task=a2g: the same, standardised and split into parts": lambda: (
            windows.finish(data.batch(step)) for step in range(data.per_epoch)
        ),
    }
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds + 1):  # the first one fills the page cache
        for name, begin in ways.items():
            started, count = time.process_time(), 0
            for _ in begin():
                count += BATCH
            best[name] = max(best[name], count / (time.process_time() - started))
    plain = next(iter(ways))
    print("| batches of 64 windows of 64 frames | windows/s | vs. LMDB |\n|---|---|---|")
    for name, speed in best.items():
        print(f"| {name} | {speed:.0f} | {speed / best[plain]:.1f} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    launched("cpu")  # as every run does: memory is reused
    main()
