"""The jobs of a sweep side by side: one table, the same clips through every codec, curves over 1..K codebooks.

Written anew after each job of `main.py -m task=train_tokenizer stage=test codec=encodec,mimi,snac`.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlab import audio, plots, report, storage
from voxlab.errors import UserError
from voxlab.report import Section
from voxlab.tasks.train_tokenizer.files import clip_paths, write_csv
from voxlab.tasks.train_tokenizer.measure import LABELS

log = logging.getLogger(__name__)

_AGAIN = "To measure it again, delete {folder} and type the same command with hydra.sweep.dir={sweep}."
_NEEDED: dict[str, Any] = {  # of a quality.json, for the page
    **{"corpus": str, "recordings": list, "rates": dict, "entropy_bitrate": float | int, "measures": dict},
    **{"codebooks": list, "prefixes": dict, "speed": dict, "shared_clips": list},
}
_RATES = ("codec", "weights", "bitrate", "tokens_per_second")
_SHOWN = ("ms_mel", "mel_superb", "mel_l1_8k", "stft", "si_sdr", "pesq_wb", "stoi", "estoi", "dwer", "wer")
_SHOWN += ("speaker_similarity",)


def compare(sweep_dir: Path) -> Path | None:
    """Write comparison.csv and comparison.html of the jobs that are done; returns the page, or None without jobs.

    A job whose quality.json is damaged is named in the log and on the page; the others are compared.
    """
    jobs, damaged = _read_jobs(sweep_dir)
    for reason in damaged:
        log.warning("comparison: left out %s", reason)
    if not jobs:
        return None
    rows = [_row(label, job) for label, job in jobs.items()]
    storage.atomic_write_bytes(sweep_dir / "comparison.csv", write_csv(rows))
    sections = [*_left_out(damaged), *_notices(jobs), _table(jobs), *_curves(jobs), *_clips(jobs)]
    title = f"{len(jobs)} codecs" if len(jobs) > 1 else "1 codec"
    return report.write_report(sweep_dir / "comparison.html", title, f"comparison of {sweep_dir.name}", sections)


def _read_jobs(sweep_dir: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return label -> quality.json, in the order of the jobs, and what is wrong with those that are left out."""
    paths = sorted(sweep_dir.glob("*/quality.json"), key=lambda path: (len(path.parent.name), path.parent.name))
    jobs, damaged = {}, []
    for path in paths:
        try:
            job = _read_job(path)
        except UserError as error:
            damaged.append(f"{error}. {_AGAIN.format(folder=path.parent, sweep=sweep_dir)}")
            continue
        rates, number = job["rates"], path.parent.name
        label = f"{number}: {rates['codec']}, {rates['bitrate'] / 1000:.3g} kbit/s"
        jobs[label] = {**job, "folder": path.parent}
    return jobs, damaged


def _read_job(path: Path) -> dict[str, Any]:
    """Return a quality.json.

    Raises:
        UserError: it can't be read, or something that the page shows is missing or of another kind.
    """
    job = storage.read_object(path)
    for name, kind in _NEEDED.items():
        if not isinstance(job.get(name), kind):
            raise UserError(f"{path}: {name} is {job.get(name, 'missing')!r:.40}")
    wrong = [f"rates.{name}" for name in _RATES if name not in job["rates"]]
    wrong += [f"measures.{name}" for name in _SHOWN if not _is_mean(job["measures"].get(name))]
    if wrong:
        raise UserError(f"{path}: missing or damaged: {', '.join(wrong)}")
    return job


def _is_mean(value: Any) -> bool:
    return isinstance(value, Mapping) and {"mean", "low", "high", "n"} <= value.keys()


def _left_out(damaged: Sequence[str]) -> list[Section]:
    return [report.notice(f"Left out: {reason}") for reason in damaged]


def _row(label: str, job: Mapping[str, Any]) -> dict[str, Any]:
    means = {name: mean["mean"] for name, mean in job["measures"].items()}
    ends = {f"{name}_{end}": mean[end] for name, mean in job["measures"].items() for end in ("low", "high", "n")}
    speed = {key: job["speed"].get(key) for key in ("encode_rtf", "decode_rtf", "rtf")}
    return {"job": label, **job["rates"], "entropy_bitrate": job["entropy_bitrate"], **means, **speed, **ends}


def _notices(jobs: Mapping[str, Mapping[str, Any]]) -> Iterator[Section]:
    if len({(job["corpus"], tuple(job["recordings"])) for job in jobs.values()}) > 1:
        yield report.notice("The jobs measured other recordings: their figures can't be compared.")
    random = [label for label, job in jobs.items() if str(job["rates"]["weights"]).startswith("random:")]
    if random:
        yield report.notice(f"Random weights, whose figures say nothing: {', '.join(random)}.")


def _table(jobs: Mapping[str, Mapping[str, Any]]) -> Section:
    names = [name for name in _SHOWN if any(job["measures"][name]["mean"] is not None for job in jobs.values())]
    columns = ["codec", "kbit/s", "entropy-coded", "tokens/s", *(LABELS[name].label for name in names)]
    columns += ["codebook use %", "real-time factor"]
    rows = [
        [label, job["rates"]["bitrate"] / 1000, job["entropy_bitrate"] / 1000, job["rates"]["tokens_per_second"]]
        + [job["measures"][name]["mean"] for name in names]
        + [100 * _average([book["use"] for book in job["codebooks"]]), job["speed"].get("rtf")]
        for label, job in jobs.items()
    ]
    return report.table("Codecs", columns, rows)


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _curves(jobs: Mapping[str, Mapping[str, Any]]) -> Iterator[Section]:
    for name, axis in (("mel_l1", "mel L1 (nats)"), ("stoi", "STOI")):
        curves = {}
        for label, job in jobs.items():
            points = [point for point in job["prefixes"].values() if name in point]
            if points:
                curves[label] = ([point["kbit"] for point in points], [point[name] for point in points])
        if curves:
            chart = plots.plot_curves(curves, "kbit/s of the first 1..K codebooks", axis)
            yield report.figure(f"{axis} against the rate", chart)


def _clips(jobs: Mapping[str, Mapping[str, Any]]) -> Iterator[Section]:
    """Show the clips that every job has: the original, then each codec's output."""
    shared = [name for name in next(iter(jobs.values()))["shared_clips"] if _is_everywhere(name, jobs)]
    for name in shared:
        cards = [_card("original", clip_paths(_audio_folder(next(iter(jobs.values()))), name)[0])]
        cards += [_card(label, clip_paths(_audio_folder(job), name)[1]) for label, job in jobs.items()]
        yield report.players(name, cards, max_duration=10.0)


def _is_everywhere(name: str, jobs: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(path.is_file() for job in jobs.values() for path in clip_paths(_audio_folder(job), name))


def _audio_folder(job: Mapping[str, Any]) -> Path:
    return job["folder"] / "audio"


def _card(label: str, path: Path) -> report.Clip:
    wav, rate = audio.load(path)
    return report.Clip(label, wav, rate)
