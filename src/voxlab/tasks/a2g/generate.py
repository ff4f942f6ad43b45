"""stage=generate of `a2g`: motion for any recording, without motion or transcript of it.

python main.py task=a2g stage=generate ckpt=<run folder> audio=<file or folder>
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from voxlab import audio as audio_files
from voxlab.data.names import listed
from voxlab.data.textgrid import read_words
from voxlab.errors import TooManyBadItems, UserError
from voxlab.motion.bvh import write_bvh
from voxlab.motion.expressions_csv import write_expressions
from voxlab.motion.files import write_motion
from voxlab.parallel import Ranks, gather
from voxlab.storage import atomic_write_bytes, differences
from voxlab.tasks.a2g.features import check_features, extract, plain
from voxlab.tasks.a2g.given import Given, read_given
from voxlab.tasks.a2g.predictor import Input, Predictor, generate_codes, to_motion
from voxlab.tasks.a2g.settings import Generate
from voxlab.tasks.a2g.test import Evaluation
from voxlab.tasks.a2g.windows import TimedWord, clip_words

log = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aif", ".aiff")
MIN_SECONDS = 0.1
ERRORS = "errors.jsonl"  # in the folder of the output: id, path and reason of each recording that failed


@dataclass(frozen=True)
class Request:
    """What is to be generated.

    Attributes:
        files: name -> recording.
        out: folder to write to.
        settings: speaker, given motion, transcript.
        max_bad_fraction: more recordings of a folder than this that fail, fail the run at its end.
    """

    files: dict[str, Path]
    out: Path
    settings: Generate
    max_bad_fraction: float = 0.0


def find_audio(audio: str | None) -> dict[str, Path]:
    """Return name -> file of a recording or of all in a folder.

    Raises:
        UserError: nothing is there.
    """
    if audio is None:
        raise UserError("stage=generate needs a recording: audio=<file or folder>.")
    place = Path(audio).expanduser()
    if place.is_file():
        return {place.stem: place}
    found = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES) if place.is_dir() else []
    if not found:
        raise UserError(f"audio={audio}: there is no such file, nor a folder with {', '.join(SUFFIXES)} files.")
    named = {path.relative_to(place).with_suffix("").as_posix(): path for path in found}
    if len(named) < len(found):
        raise UserError(f"audio={audio}: some files differ by their ending alone. Give them names of their own.")
    return named


def check_request(predictor: Predictor, features: Mapping[str, Any], request: Request) -> None:
    """Refuse features or a speaker that the model does not know; reads no weights.

    Raises:
        UserError: says what to set.
    """
    wanted: Mapping[str, Any] = predictor.record["features"]
    for name in ("features", "acoustic"):
        if name in wanted:
            words = predictor.record["feature_words"][name]
            check_features(features.get(name), wanted[name], predictor.path, words)
        elif features.get(name) is not None:
            raise UserError(f"{predictor.path} was trained without acoustic features: set features@acoustic=none.")
    speaker = request.settings.speaker
    predictor.speaker_number(None if speaker is None else str(speaker))


def generate(
    predictor: Predictor,
    features: Mapping[str, Any],
    request: Request,
    evaluation: Evaluation,
    ranks: Ranks,
) -> dict[str, Any]:
    """Write motion for each recording: npz, BVH, expressions as CSV, and a video; collective.

    Args:
        predictor: on this rank's device.
        features: "features", "acoustic" -> those that the model was trained on, weights included.
        request: what is to be generated.
        evaluation: how.
        ranks: this process among its peers; the recordings are dealt out.

    Returns:
        counts, and seconds of motion per second of work.

    Raises:
        UserError: the only recording can't be used, or the features have other weights.
        TooManyBadItems: more recordings failed than `request.max_bad_fraction`.
    """
    used = {name: features[name] for name in predictor.moments}
    for name, node in used.items():
        _check_weights(predictor, name, node)
        node.to(ranks.device)
    given = read_given(predictor, request.settings, evaluation.overlap.seed_tokens)
    begun, seconds, failed = time.perf_counter(), {}, {}
    for name in sorted(request.files)[ranks.rank :: ranks.world]:
        try:
            item = _input(predictor, used, name, request, given)
        except Exception as error:  # a bad recording costs no other; what fails later is no matter of one recording
            if len(request.files) == 1:
                raise
            failed[name] = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            log.warning("%s failed: %s", request.files[name], failed[name])
            continue
        motion = _motion(predictor, item, request.settings, evaluation, ranks.device)
        seconds[name] = motion.num_frames / predictor.fps
        _write(motion, request.out / name, request.files[name], evaluation)
        log.info("%s: %d frames, %.2f s", request.out / name, motion.num_frames, seconds[name])
    every, errors = ({k: v for part in gather(ranks, own) for k, v in part.items()} for own in (seconds, failed))
    total = sum(every.values())
    speed = total / max(time.perf_counter() - begun, 1e-9)
    _judge(request, dict(sorted(errors.items())), ranks)
    counts = {"recordings": len(every), "failed": len(errors), "seconds": total}
    return {**counts, "generated_s_per_s": speed, "out": str(request.out)}


def _judge(request: Request, failed: Mapping[str, str], ranks: Ranks) -> None:
    """List what failed in a file; none where nothing did.

    Raises:
        TooManyBadItems: more recordings failed than `request.max_bad_fraction`.
    """
    path, total = request.out / ERRORS, len(request.files)
    lines = [{"id": name, "path": str(request.files[name]), "reason": reason} for name, reason in failed.items()]
    if ranks.is_first and failed:
        atomic_write_bytes(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    elif ranks.is_first:
        path.unlink(missing_ok=True)
    if len(failed) > request.max_bad_fraction * total:
        shown = listed([f"{name}: {reason}" for name, reason in failed.items()], "\n  ")
        raise TooManyBadItems(
            f"{len(failed)} of {total} recordings failed (allowed: {request.max_bad_fraction:.1%}):\n  {shown}\n"
            f"All are listed in {path}; the others are complete. Raise max_bad_fraction to accept that."
        )


def _check_weights(predictor: Predictor, name: str, node: Any) -> None:
    lines = differences(plain(predictor.record["features"][name]), plain(node.fingerprint()))
    if lines:
        listed = "\n  ".join(lines[:10])
        raise UserError(
            f"{predictor.path} was trained with {predictor.record['feature_words'][name]}, on other ones "
            f"(checkpoint -> now):\n  {listed}\nAdd these words."
        )


def num_frames(num_samples: int, sample_rate: int, fps: int) -> int:
    """Return how many whole frames a recording covers."""
    return num_samples * fps // sample_rate


def _read(path: Path) -> tuple[Tensor, int]:
    try:
        wav, sample_rate = audio_files.load(path)
    except (OSError, ValueError) as error:
        raise UserError(f"audio={path} can't be read: {error}.") from error
    if wav.shape[-1] < MIN_SECONDS * sample_rate:
        raise UserError(f"audio={path} lasts {wav.shape[-1] / sample_rate:.3f} s; {MIN_SECONDS} s is the least.")
    if not bool(wav.isfinite().all()):
        raise UserError(f"audio={path} holds samples that are NaN or infinite.")
    if not bool(wav.any()):
        log.warning("%s is silent throughout.", path)
    return audio_files.to_mono(wav), sample_rate


def _input(
    predictor: Predictor,
    features: Mapping[str, Any],
    name: str,
    request: Request,
    given: Given,
) -> Input:
    path, settings = request.files[name], request.settings
    wav, rate = _read(path)
    count = num_frames(wav.shape[-1], rate, predictor.fps)
    try:
        start, end = given.codes(count)
    except UserError as error:
        raise UserError(f"audio={path}: {error}") from None
    rows = {
        key: extract(node, audio_files.resample(wav, rate, node.info.sample_rate), name, count, predictor.fps)
        for key, node in features.items()
    }
    speaker = None if settings.speaker is None else str(settings.speaker)
    words = _words(settings.transcript, name, count / predictor.fps)
    return Input(name, rows, speaker, words, start, end)


def _words(transcript: str | None, name: str, seconds: float) -> tuple[TimedWord, ...]:
    if transcript is None:
        return ()
    place = Path(transcript).expanduser()
    path = place / f"{name}.TextGrid" if place.is_dir() else place
    if not path.is_file():
        raise UserError(f"generate.transcript={transcript}: {path} is not there; null generates without words.")
    return clip_words(((word.text, word.start, word.end) for word in read_words(path)), seconds)


def _motion(predictor: Predictor, item: Input, settings: Generate, evaluation: Evaluation, device: str) -> Any:
    codes = generate_codes(predictor, [item], evaluation.sampling, evaluation.overlap, evaluation.seed, device)[0]
    count = len(item.features["features"])
    return to_motion(predictor, codes, count, betas=predictor.betas(item.speaker), in_place=settings.in_place)


def _write(motion: Any, path: Path, wav: Path, evaluation: Evaluation) -> None:
    """Write all files of one recording; `path` has no suffix."""
    write_motion(path.with_name(f"{path.name}.npz"), motion)
    write_bvh(path.with_name(f"{path.name}.bvh"), motion, evaluation.stage.skeleton)
    write_expressions(path.with_name(f"{path.name}.expressions.csv"), motion)
    evaluation.stage.draw(path.with_name(f"{path.name}.mp4"), [("generated", motion)], wav)
