"""Files of an evaluation: threshold.json, calibration.json, curves.npz, predictions per episode, and a CSV."""

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxlab import storage
from voxlab.errors import UserError
from voxlab.metrics.events import EpisodeScores
from voxlab.tasks.laughter.decide import Decision

PREDICTIONS = "predictions"


def write_decision(decision: Decision, run_dir: Path) -> None:
    """Write threshold.json and calibration.json, whose reason is null where something was fitted."""
    record = decision.record()
    storage.atomic_write_json(run_dir / "threshold.json", record["threshold"])
    calibration = record["calibration"]
    storage.atomic_write_json(run_dir / "calibration.json", {**calibration, "reason": calibration["reason"] or None})


def write_predictions(episodes: Sequence[EpisodeScores], decision: Decision, run_dir: Path) -> None:
    """Write predictions/<key>.npz of each episode.

    Holds t, time_s, prob (calibrated), logit, y, mask, onsets, spans, view<n>_logit where there are several views,
    about (name, show, split) and frame_rate.
    """
    for episode in episodes:
        frames = np.arange(len(episode.logit))
        arrays: dict[str, Any] = {
            "t": frames.astype(np.int32),
            "time_s": frames / episode.frame_rate,
            "prob": decision.platt.probability(episode.logit).astype(np.float32),
            "logit": episode.logit,
            "y": episode.y.astype(np.float32),
            "mask": episode.mask,
            "onsets": episode.onsets,
            "spans": episode.spans,
            "about": np.array([episode.name, episode.show, episode.split]),
            "frame_rate": np.float64(episode.frame_rate),
        }
        arrays |= {f"view{view}_logit": logit for view, logit in (episode.view_logits or {}).items()}
        write_arrays(run_dir / PREDICTIONS / f"{episode.key}.npz", arrays)


def read_predictions(run_dir: Path, split: str) -> list[EpisodeScores]:
    """Read the episodes of a split that `write_predictions` wrote, in the order of their keys.

    Raises:
        UserError: there are none, or a file is damaged.
    """
    episodes = []
    for path in sorted((run_dir / PREDICTIONS).glob("*.npz")):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                episode = _episode(path.stem, {name: arrays[name] for name in arrays.files})
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} can't be read ({error}). Evaluate that run again (stage=test).") from None
        episodes += [episode] if episode.split == split else []
    if not episodes:
        raise UserError(
            f"{run_dir / PREDICTIONS} holds no predictions of split {split}. Evaluate that run (stage=test)."
        )
    return episodes


def _episode(key: str, arrays: Mapping[str, np.ndarray]) -> EpisodeScores:
    name, show, split = (str(text) for text in arrays["about"])
    rows: dict[str, Any] = {field: arrays[field] for field in ("logit", "y", "mask", "onsets", "spans")}
    return EpisodeScores(key=key, name=name, show=show, split=split, frame_rate=float(arrays["frame_rate"]), **rows)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a compressed .npz, atomically."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # the stubs take the names for options
    storage.atomic_write_bytes(path, file.getvalue())


def write_csv(episodes: Sequence[EpisodeScores], decision: Decision, path: Path) -> None:
    """Write all frames as one CSV: episode, frame_idx, time_ms, prob, label, mask, split."""
    with storage.atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["episode", "frame_idx", "time_ms", "prob", "label", "mask", "split"])
        for episode in episodes:
            frames = np.arange(len(episode.logit))
            milliseconds = np.floor(1000 * frames / episode.frame_rate + 0.5).astype(np.int64)
            prob = decision.platt.probability(episode.logit)
            name, split = episode.name, episode.split
            rows = zip(frames, milliseconds, prob, episode.y, episode.mask, strict=True)
            writer.writerows([name, t, ms, f"{p:.7g}", f"{y:g}", int(m), split] for t, ms, p, y, m in rows)
