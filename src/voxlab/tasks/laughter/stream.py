"""stage=stream of `laughter`: listen to a file as if it were live, 80 ms at a time, and say when laughter comes.

python main.py task=laughter stage=stream ckpt=<run folder> audio=<file>
"""

import csv
import io
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxlab import audio as audio_files
from voxlab.errors import UserError
from voxlab.features.base import Features
from voxlab.metrics.alarms import AlarmState
from voxlab.parallel import Ranks
from voxlab.storage import atomic_write_bytes, differences
from voxlab.tasks.laughter.decide import Decision
from voxlab.tasks.laughter.predict import Predictor, load_predictor

log = logging.getLogger(__name__)

TABLE = "stream.csv"
COLUMNS = ("time_s", "prob", "logit", "alarm")


@dataclass(frozen=True)
class Heard:
    """What is known at one moment.

    Attributes:
        time: seconds since the start of the signal.
        probability: calibrated, that laughter comes.
        logit: before calibration.
        alarm: whether an alarm is raised now.
    """

    time: float
    probability: float
    logit: float
    alarm: bool


def stream(
    *, ckpt: str, audio: str, features: Features | None, ranks: Ranks, run_dir: Path, refractory: int
) -> dict[str, Any]:
    """Print time, probability and alarm for every frame of a file, and write them to stream.csv.

    Args:
        ckpt: run folder or checkpoint.
        audio: file of any rate; several channels are averaged.
        features: those that the model was trained on, weights included.
        ranks: this process among its peers; only the first works.
        run_dir: gets the table.
        refractory: frames between two alarms.

    Returns:
        Counts, the table's path, and seconds of work per second of audio.

    Raises:
        UserError: the file can't be read, or the checkpoint has no threshold or was trained on other features.
    """
    if not ranks.is_first:
        return {}
    predictor = load_predictor(ckpt)
    features = _check_features(predictor, features)
    wav = _read(Path(audio), features.info.sample_rate)
    features.to(ranks.device)
    rows: list[Heard] = []
    begun = time.perf_counter()
    print(f"{'time_s':>9} {'prob':>8}")
    for heard in listen(predictor, features, wav.split(features.info.hop_length, dim=-1), refractory):
        rows.append(heard)
        print(f"{heard.time:9.2f} {heard.probability:8.4f}{'  ALARM' if heard.alarm else ''}", flush=True)
    return _finish(rows, wav.shape[-1] / features.info.sample_rate, time.perf_counter() - begun, run_dir / TABLE)


def listen(predictor: Predictor, features: Features, wavs: Any, refractory: int) -> Iterator[Heard]:
    """Score a running signal, frame by frame.

    Args:
        predictor: the model.
        features: loaded.
        wavs: (1, n) pieces at the rate of the features.
        refractory: frames between two alarms.

    Raises:
        UserError: the checkpoint has no threshold.
    """
    if predictor.decision is None:
        raise UserError(f"{predictor.path} has no threshold yet; give the folder of a run that has ended.")
    decision = Decision.from_record(predictor.decision)
    alarms, state = AlarmState(decision.rule(refractory)), None
    for index, frame in enumerate(features.live(wavs)):
        with torch.inference_mode():
            logits, state = predictor.model.step(torch.from_numpy(frame).float(), state)
        logit = float(logits[0])
        probability = float(decision.platt.probability(logit))
        yield Heard(index / features.info.frame_rate, probability, logit, alarms.step(logit))


def _check_features(predictor: Predictor, features: Features | None) -> Features:
    """Refuse features that the model wasn't trained on.

    Raises:
        UserError: lists what differs.
    """
    if features is None:
        raise UserError("stage=stream computes features: choose those of the training, for example features=logmel.")
    lines = differences(predictor.record["features"]["features"], features.fingerprint())
    if lines:
        raise UserError(
            f"{predictor.path} was trained on other features (checkpoint -> now):\n  "
            + "\n  ".join(lines[:10])
            + "\nSet features=... and features.weights as task=extract had them."
        )
    return features


def _read(path: Path, sample_rate: int) -> Tensor:
    """Return (1, T) at `sample_rate`.

    Raises:
        UserError: there is no such file, or no sound in it.
    """
    try:
        wav, _ = audio_files.load(path, sample_rate)
    except (OSError, ValueError) as error:
        raise UserError(f"audio={path} can't be read ({error}). Give an audio file: WAV, FLAC, Ogg or MP3.") from error
    return audio_files.to_mono(wav)


def _finish(rows: list[Heard], duration: float, seconds: float, table: Path) -> dict[str, Any]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((f"{row.time:.2f}", f"{row.probability:.6f}", f"{row.logit:.6f}", int(row.alarm)) for row in rows)
    atomic_write_bytes(table, text.getvalue().encode())
    raised = sum(row.alarm for row in rows)
    log.info("%d alarms in %.1f s of audio, which took %.1f s; table: %s", raised, duration, seconds, table)
    return {
        "frames": len(rows),
        "alarms": raised,
        "audio_s": duration,
        "real_time_factor": seconds / duration,
        "table": str(table),
    }
