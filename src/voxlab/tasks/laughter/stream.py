"""stage=stream of `laughter`: listen to a file as if it were live, 80 ms at a time, and say when laughter comes.

python main.py task=laughter stage=stream ckpt=<run folder> audio=<file>
"""

import csv
import io
import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxlab import audio as audio_files
from voxlab.errors import UserError
from voxlab.features.base import Features
from voxlab.metrics.alarms import AlarmState
from voxlab.parallel import Ranks
from voxlab.storage import atomic_write_bytes
from voxlab.tasks import estimate
from voxlab.tasks.laughter.decide import Decision
from voxlab.tasks.laughter.eval_settings import EvalSettings, ThresholdSettings
from voxlab.tasks.laughter.predict import REMEDY, Predictor, check_features, load_predictor, raise_differing
from voxlab.tasks.settings import log_facts

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
    *,
    ckpt: str,
    audio: str,
    features: Features | None,
    evaluation: EvalSettings,
    ranks: Ranks,
    run_dir: Path,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Print the highest probability of every second and every alarm, and write all frames to stream.csv.

    Args:
        ckpt: run folder or checkpoint.
        audio: file of any rate; several channels are averaged.
        features: those that the model was trained on, weights included.
        evaluation: of it, `thr.value` (None: the checkpoint's threshold) and `events.refractory_s`.
        ranks: this process among its peers; only the first works.
        run_dir: gets the table.
        dry_run: return what would be done, with a time for it, and write nothing.

    Returns:
        Counts, the table's path, and seconds of work per second of audio.

    Raises:
        UserError: the file can't be read, the checkpoint has no threshold or was trained on other features, or
            settings of the threshold that only a validation split can fulfil.
    """
    if not ranks.is_first:
        return {}
    predictor = load_predictor(ckpt)
    if features is None:
        name = predictor.record["features"]["features"]["name"]
        raise UserError(f"stage=stream computes features: choose those of the training, features={name}.")
    check_features(predictor, features.settings(), "")
    decision = _decision(predictor, evaluation.thr)
    if dry_run:
        return describe(predictor, decision, evaluation, Path(audio), features, ranks.device)
    raise_differing(predictor, predictor.record["features"]["features"], features.fingerprint())
    wav = _read(Path(audio), features.info.sample_rate)
    features.to(ranks.device)
    begun = time.perf_counter()
    print(_threshold_line(decision, evaluation))
    pieces = wav.split(features.info.hop_length, dim=-1)
    rows = list(_told(listen(predictor, decision, features, pieces, evaluation.refractory)))
    return _finish(rows, wav.shape[-1] / features.info.sample_rate, time.perf_counter() - begun, run_dir / TABLE)


def describe(
    predictor: Predictor, decision: Decision, evaluation: EvalSettings, audio: Path, features: Features, device: str
) -> dict[str, Any]:
    """Return, and log, what a run would do."""
    wav, sample_rate = _load(audio, None)
    plan = {
        "checkpoint": str(predictor.path),
        "features": features.settings()["name"],
        "audio": str(audio),
        "audio_s": round(wav.shape[-1] / sample_rate, 2),
        "threshold": decision.threshold.value,
        "refractory_s": evaluation.events.refractory_s,
        "time": estimate.attempt(partial(_expected_time, predictor, decision, features, audio, evaluation, device)),
    }
    log_facts(log, plan)
    return plan


def _expected_time(
    predictor: Predictor, decision: Decision, features: Features, audio: Path, evaluation: EvalSettings, device: str
) -> str:
    """Listen to the beginning of a file; return what all of it would take."""
    begun = time.perf_counter()
    pieces = _read(audio, features.info.sample_rate).split(features.info.hop_length, dim=-1)
    features.to(device)
    loading = time.perf_counter() - begun

    def rehearse(some: Sequence[Tensor]) -> float:
        return len(list(listen(predictor, decision, features, some, evaluation.refractory)))

    pace, count = estimate.measure(rehearse, pieces, device)
    return estimate.about(loading + pace * len(pieces), f"{count} frames heard, {pace * 1e3:.3g} ms each")


def _decision(predictor: Predictor, thr: ThresholdSettings) -> Decision:
    """Return calibration and threshold of the checkpoint, with `thr.value` in place of the latter if it is given.

    Raises:
        UserError: the checkpoint has none, or other settings ask for a choice that needs a validation split.
    """
    if predictor.decision is None:
        raise UserError(f"{predictor.path} has no threshold yet; give the folder of a run that has ended.")
    trained, default = predictor.record.get("thr", {}), asdict(ThresholdSettings())
    asked = {name: value for name, value in asdict(thr).items() if name != "value"}
    for name, value in asked.items():
        if value not in (default[name], trained.get(name, default[name])):
            raise UserError(
                f"thr.{name}={value} chooses a threshold on validation, which stage=stream does not read. Leave it out "
                "(the checkpoint's threshold counts), give a probability as thr.value, or choose anew with stage=test."
            )
    decision = Decision.from_record(predictor.decision)
    return decision if thr.value is None else decision.at(thr.value)


def _threshold_line(decision: Decision, evaluation: EvalSettings) -> str:
    threshold = decision.threshold
    chosen = "given" if threshold.split == "none" else f"best {threshold.objective} on {threshold.split}"
    pause = f"{evaluation.events.refractory_s:g} s"
    return f"threshold {threshold.value:.4f} ({chosen}); alarms at least {pause} apart"


def _told(frames: Iterable[Heard]) -> Iterator[Heard]:
    """Pass frames on, and print a line for each second (the highest probability in it) and for each alarm."""
    print(f"{'time_s':>9} {'prob':>8}", flush=True)
    second, highest = 0, 0.0
    for heard in frames:
        if math.floor(heard.time) > second:
            print(f"{second:9.2f} {highest:8.4f}", flush=True)
            second, highest = math.floor(heard.time), 0.0
        highest = max(highest, heard.probability)
        if heard.alarm:
            print(f"{heard.time:9.2f} {heard.probability:8.4f}  ALARM", flush=True)
        yield heard
    print(f"{second:9.2f} {highest:8.4f}", flush=True)


def listen(predictor: Predictor, decision: Decision, features: Features, wavs: Any, refractory: int) -> Iterator[Heard]:
    """Score a running signal, frame by frame.

    Args:
        predictor: the model.
        decision: calibration and threshold.
        features: loaded.
        wavs: (1, n) pieces at the rate of the features.
        refractory: frames between two alarms.
    """
    alarms, state = AlarmState(decision.rule(refractory)), None
    for index, frame in enumerate(features.live(wavs)):
        with torch.inference_mode():
            logits, state = predictor.model.step(torch.from_numpy(frame).float(), state)
        logit = float(logits[0])
        if not math.isfinite(logit):
            raise UserError(f"{predictor.path}: the score of frame {index} is {logit}: training has diverged. {REMEDY}")
        probability = float(decision.platt.probability(logit))
        yield Heard(index / features.info.frame_rate, probability, logit, alarms.step(logit))


def _read(path: Path, sample_rate: int) -> Tensor:
    """Return (1, T) at `sample_rate`.

    Raises:
        UserError: there is no such file, or no sound in it.
    """
    return audio_files.to_mono(_load(path, sample_rate)[0])


def _load(path: Path, sample_rate: int | None) -> tuple[Tensor, int]:
    try:
        return audio_files.load(path, sample_rate)
    except (OSError, ValueError) as error:
        raise UserError(f"audio={path} can't be read ({error}). Give an audio file: WAV, FLAC, Ogg or MP3.") from error


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
