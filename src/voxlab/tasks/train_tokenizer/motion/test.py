"""stage=test of a motion tokenizer: whole clips to codes and back, beside what needs no codec at all.

python main.py task=train_tokenizer data=beat2 codec=motion_rvq stage=test codec.weights=<run folder>
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxlab.data.motion_store import MotionStore, StoredClip, find_motion_store, open_motion_store
from voxlab.metrics.codes import CodebookUse, count_codes, describe_use
from voxlab.models.gesture.motion_codec import MotionCodec
from voxlab.motion.parts import Layout
from voxlab.motion.representation import assemble, from_frames
from voxlab.motion.rotations import geodesic, sixd_to_matrix
from voxlab.motion.skeleton import synthetic_skeleton
from voxlab.parallel import Ranks, barrier, gather
from voxlab.progress import track
from voxlab.storage import atomic_write_json
from voxlab.tasks import estimate
from voxlab.tasks.settings import log_facts
from voxlab.tasks.train_tokenizer.data import evenly
from voxlab.tasks.train_tokenizer.motion.test_report import write_page

log = logging.getLogger(__name__)

VIDEOS = "videos"
CODEC, MEAN_POSE, HOLD = "codec", "mean pose", "hold every 4th frame"
_HELD = 4  # frames
_SPLITS = ("test", "validation")


def test(
    *,
    corpus: Any,
    layout: Layout,
    codec: MotionCodec,
    split: str | None,
    limit: int | None,
    video_seconds: float,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
) -> dict[str, Any]:
    """Measure a tokenizer on the clips of a split; write quality.json and report.html.

    Args:
        corpus: with motion.
        layout: parts of the body.
        codec: trained.
        split: None: test, else validation, else all clips.
        limit: clips at most, evenly spaced; None: all.
        video_seconds: of the video of the first clip; 0: none.
        dry_run: return what would be measured.
        ranks: this process among its peers; clips are dealt out.
        run_dir: folder of this run.

    Raises:
        UserError: the tokenizer does not fit the data, or there are no clips.
    """
    codec.check_fits(layout, corpus.fps, corpus.trans)
    about = {"part": codec.part.name, "weights_id": codec.weights_id}
    if dry_run:
        about["time"] = _expected_time(corpus, codec, split, limit, ranks)
        if ranks.is_first:
            log_facts(log, about)
        return about
    store = open_motion_store(corpus, ranks)
    name, clips = _choose(store, split, limit)
    codec.to(ranks.device)
    mine = track(clips[ranks.rank :: ranks.world], "measuring", "clips")
    own = [measure(codec, clip.frames()[: clip.num_frames]) for clip in mine]
    parts = gather(ranks, _sum(own))
    sums, codes = _sum([part for part in parts if part is not None]) or ({}, [])
    table = {method: {key: value / row["frames"] for key, value in row.items()} for method, row in sums.items()}
    for row in table.values():
        del row["frames"]
    books = [describe_use(count_codes(torch.from_numpy(book), codec.codebook_size)) for book in codes]
    result = {**about, "split": name, "clips": len(clips), "frames": int(sums[CODEC]["frames"])}
    summary = {**result, **table[CODEC], **{f"perplexity_{n}": b.perplexity for n, b in enumerate(books, 1)}}
    summary |= {f"use_{n}": book.use for n, book in enumerate(books, 1)}
    if ranks.is_first:
        _write(run_dir, result, table, books)
        summary["video"] = draw(codec, layout, clips[0], corpus.trans, video_seconds, run_dir / VIDEOS)
        summary["report"] = str(write_page(run_dir, result, table, books))
    barrier(ranks)
    return summary


def _expected_time(corpus: Any, codec: MotionCodec, split: str | None, limit: int | None, ranks: Ranks) -> str:
    """Measure a few clips; return what all of them would take."""
    store = find_motion_store(corpus)
    if store is None:
        return estimate.not_measured("the motion store is not built yet; a run begins with that")
    _, clips = _choose(store, split, limit)
    codec.to(ranks.device)

    def rehearse(some: Sequence[StoredClip]) -> float:
        for clip in some:
            measure(codec, clip.frames()[: clip.num_frames])
        return sum(clip.num_frames for clip in some)

    pace, count = estimate.measure(rehearse, clips, ranks.device)
    seconds = pace * sum(clip.num_frames for clip in clips) / ranks.world
    return estimate.about(seconds, f"{count} clips measured; before the report")


def _write(
    run_dir: Path, about: Mapping[str, Any], table: Mapping[str, Mapping[str, float]], books: Sequence[CodebookUse]
) -> None:
    rows = {method: dict(row) for method, row in table.items()}
    described = [dataclasses.asdict(book) for book in books]
    atomic_write_json(run_dir / "quality.json", {**about, "errors": rows, "codebooks": described})
    width = max(map(len, rows))
    lines = [
        f"  {method:{width}}  " + "  ".join(f"{k} {v:.4f}" for k, v in row.items()) for method, row in rows.items()
    ]
    log.info("%s of split %s:\n%s", about["part"], about["split"], "\n".join(lines))


def _choose(store: MotionStore, split: str | None, limit: int | None) -> tuple[str, list[StoredClip]]:
    present = {clip.split for clip in store.clips}
    wanted = split if split is not None else next((name for name in _SPLITS if name in present), None)
    clips = list(store.clips) if wanted is None else store.split(wanted)
    return wanted or "all", evenly(clips, limit)


def measure(codec: MotionCodec, frames: np.ndarray) -> tuple[dict[str, dict[str, float]], list[np.ndarray]]:
    """Return sums over the frames of a clip of what each method errs, and the codes of each codebook.

    Args:
        codec: to be measured.
        frames: (T, 433) raw.

    Returns:
        method -> {"frames": T, "mse": ..., ...} and Q arrays (N,). Errors are of normalised numbers, their mean over
        the part's numbers; "degrees" is the mean angle between rotations.
    """
    values, codes = codec.values(frames), codec.tokenize(frames)
    made = {CODEC: codec.detokenize(codes, len(values))}
    for count in range(1, codec.num_codebooks):
        made[f"first {count} of {codec.num_codebooks} codebooks"] = codec.detokenize(codes[:, :count], len(values))
    made[MEAN_POSE] = np.broadcast_to(codec.mean, values.shape)
    made[HOLD] = values[np.arange(len(values)) // _HELD * _HELD]
    return {method: _errors(codec, each, values) for method, each in made.items()}, [
        book.astype(np.int64) for book in codes.T
    ]


def draw(codec: MotionCodec, layout: Layout, clip: StoredClip, trans: Any, seconds: float, folder: Path) -> list[str]:
    """Write a video of a clip beside the same with the part as the codec gives it back; returns its files.

    A video that can't be drawn costs a warning, not the measurement.
    """
    from voxlab.motion.stick_video import render_video

    count = min(clip.num_frames, round(seconds * codec.fps))
    if count < 1:
        return []
    frames = np.array(clip.frames()[:count])
    part = {codec.part.name: codec.detokenize(codec.tokenize(frames), count)}
    given: dict[str, Any] = {"fps": codec.fps, "trans": trans}
    made = from_frames(assemble(part, layout, base=frames), **given)
    views = [("recorded", from_frames(frames, **given)), (f"{codec.part.name} from codes", made)]
    try:
        sound = {"wav": clip.wav, "wav_start": clip.wav_start}
        return [str(path) for path in render_video(folder / f"{clip.id}.mp4", views, synthetic_skeleton(), **sound)]
    except Exception as error:
        log.warning("no video of %s: %s", clip.id, error)
        return []


def _errors(codec: MotionCodec, made: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    difference = ((made - wanted) / codec.std).astype(np.float64)
    count = len(wanted)
    errors = {"frames": float(count), "mse": float((difference**2).mean()), "l1": float(np.abs(difference).mean())}
    errors["velocity_l1"] = float(np.abs(np.diff(difference, axis=0)).mean()) if count > 1 else 0.0
    if codec.part.joints:
        size = 6 * len(codec.part.joints)
        first, second = (
            sixd_to_matrix(torch.from_numpy(np.ascontiguousarray(x[:, :size], np.float64)).unflatten(1, (-1, 6)))
            for x in (made, wanted)
        )
        errors["degrees"] = float(geodesic(first, second).rad2deg().mean())
    return {name: value if name == "frames" else value * count for name, value in errors.items()}


def _sum(
    measured: Sequence[tuple[dict[str, dict[str, float]], list[np.ndarray]]],
) -> tuple[dict[str, dict[str, float]], list[np.ndarray]] | None:
    """Add up what several clips gave; None where there is none."""
    if not measured:
        return None
    first = measured[0][0]
    total = {m: {key: sum(sums[m][key] for sums, _ in measured) for key in row} for m, row in first.items()}
    return total, [np.concatenate(books) for books in zip(*(codes for _, codes in measured), strict=True)]
