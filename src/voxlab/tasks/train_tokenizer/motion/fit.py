"""stage=fit of a motion tokenizer: store, statistics, network, Lightning trainer, resume, summary."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from voxlab.data.motion_store import MotionStore, find_motion_store, open_motion_store
from voxlab.errors import UserError
from voxlab.models.gesture.motion_codec import RECORD, part_record
from voxlab.models.gesture.motion_rvq import MotionArchitecture
from voxlab.models.tokenizer import files
from voxlab.motion.parts import Layout, Part
from voxlab.motion.statistics import Statistics, part_moments
from voxlab.parallel import Ranks, barrier
from voxlab.storage import fingerprint
from voxlab.tasks import estimate
from voxlab.tasks.motion_statistics import train_statistics
from voxlab.tasks.optim import Schedule
from voxlab.tasks.sweeps import sweep_of
from voxlab.tasks.train_tokenizer import fit_report
from voxlab.tasks.train_tokenizer import plan as planning
from voxlab.tasks.train_tokenizer.callbacks import BEST, CHECKPOINTS, LAST, Checkpoints, Recorder
from voxlab.tasks.train_tokenizer.expect import expect
from voxlab.tasks.train_tokenizer.fit import check_launch, make_lightning, start_network
from voxlab.tasks.train_tokenizer.motion.data import MotionData
from voxlab.tasks.train_tokenizer.motion.module import MotionModule
from voxlab.tasks.train_tokenizer.settings import Fit, Loop, fit_settings, loop_settings
from voxlab.tasks.trainer import fit_or_resume

log = logging.getLogger(__name__)

_SMALL = "codec=motion_rvq_tiny, as experiment=a2g_tokenizer_tiny does"


def fit(
    *,
    corpus: Any,
    layout: Layout,
    part: Part,
    architecture: MotionArchitecture,
    loss: Mapping[str, Any],
    optim: Schedule,
    trainer: partial[Any],
    settings: Mapping[str, Any],
    ckpt: str | None,
    seed: int,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
    loggers: Mapping[str, Any],
) -> dict[str, Any]:
    """Train the network of one part of the body; arguments as in `train_tokenizer`, `settings` are its `fit`.

    Raises:
        UserError: settings out of range, too little motion, start weights of another shape.
    """
    own, loop = fit_settings(settings, architecture.family), loop_settings(trainer.keywords, architecture.family)
    check_launch(own, trainer.keywords, ranks)
    check_window(own, architecture)
    own = replace(own, segment_seconds=own.window / corpus.fps)
    weights, network = _weights(loss), start_network(architecture, ckpt, seed)
    facts = _plan(network, architecture, part, own, loop)
    if dry_run:
        facts["clips"] = dict(Counter(clip.split for clip in corpus.clips()))
        _told(facts, ranks)
        given: dict[str, Any] = {"optim": optim, "loop": loop, "seed": seed, "facts": {}, "part": part}
        made = partial(_module, network, architecture, **given)
        start = partial(make_lightning, estimate.without_bar(trainer), loop, ranks, run_dir=run_dir)
        return facts | _told(_expect(corpus, made, start, weights, own, loop, ranks, part, seed), ranks)
    store = open_motion_store(corpus, ranks)
    statistics = train_statistics(store, ranks)
    data = MotionData(store, part, fit=own, seed=seed, max_steps=loop.max_steps)
    network.set_statistics(*map(torch.from_numpy, part_moments(statistics, part, layout)))
    facts |= _amounts(data, store.fps, own, loop)
    _told(facts, ranks)
    if ranks.is_first:
        _warn(architecture, data)
        planning.warn_of_repetition(facts["passes_over_the_data"], loop.max_steps, _SMALL)
    about = {"data": _data_facts(store, statistics), "seed": seed}
    about[RECORD] = part_record(part, layout, store.fps, corpus.trans)
    given = {"optim": optim, "loop": loop, "seed": seed, "facts": about, "part": part}
    module = _module(network, architecture, weights, own, **given)
    recorder = Recorder(ranks, run_dir, dict(loggers))
    checkpoints = Checkpoints(recorder, run_dir, validates=data.val_set is not None)
    lightning = make_lightning(trainer, loop, ranks, [recorder, checkpoints], run_dir)
    if data.val_set is None:
        lightning.limit_val_batches = 0
    last = run_dir / CHECKPOINTS / LAST
    fit_or_resume(lightning, module, data, last, ranks)
    return _finish(module, checkpoints, facts, ranks, run_dir)


def _module(
    network: Any, architecture: MotionArchitecture, weights: Mapping[str, float], fit: Fit, **given: Any
) -> MotionModule:
    return MotionModule(network, architecture, loss=weights, fit=fit, **given)


def _expect(
    corpus: Any,
    make: Callable[..., Any],
    start: Callable[..., Any],
    weights: Mapping[str, float],
    fit: Fit,
    loop: Loop,
    ranks: Ranks,
    part: Part,
    seed: int,
) -> dict[str, Any]:
    """Return disk and time of a run, as far as its motion is at hand."""
    store = find_motion_store(corpus)
    if store is None:
        return {"time": estimate.not_measured("the motion store is not built yet; a run begins with that")}
    data = MotionData(store, part, fit=fit, seed=seed, max_steps=loop.max_steps)
    return expect(make, start, data, weights, fit, loop, ranks)


def check_window(fit: Fit, architecture: MotionArchitecture) -> None:
    """Refuse windows that are no whole number of codes.

    Raises:
        UserError: names the nearest lengths that are.
    """
    stride, window = architecture.stride, fit.window
    if window % stride:
        below = window // stride * stride
        near = " or ".join(str(length) for length in (below, below + stride) if length)
        raise UserError(
            f"fit.window={window} frames: a code covers {stride} frames (codec.architecture.strides), so take {near}."
        )


def _weights(loss: Mapping[str, Any]) -> dict[str, float]:
    if "motion" not in loss:
        raise UserError("loss has no node motion: choose loss=tokenizer.")
    for name, weight in loss["motion"].items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise UserError(f"loss.motion.{name}={weight!r}: give a number.")
    return dict(loss["motion"])


def _plan(network: Any, architecture: MotionArchitecture, part: Part, fit: Fit, loop: Loop) -> dict[str, Any]:
    """Return what the run will do, ready to be printed."""
    return {
        "part": part.name,
        "dim": part.dim,
        "frames_per_code": architecture.stride,
        "num_codebooks": architecture.num_codebooks,
        "codebook_size": architecture.codebook_size,
        "parameters": planning.count_parameters(network),
        "max_steps": loop.max_steps,
        "batch": f"{fit.batch_size} windows of {fit.window} frames",
    }


def _amounts(data: MotionData, fps: int, fit: Fit, loop: Loop) -> dict[str, Any]:
    """Return how much motion there is."""
    frames = sum(clip.num_frames for clip in data.train_set.clips)
    return {
        "train_clips": len(data.train_set.clips),
        "train_minutes": round(frames / fps / 60, 3),
        "train_windows": len(data.train_set),
        "train_clips_too_short": data.train_set.num_short,
        "val_windows": 0 if data.val_set is None else len(data.val_set),
        "passes_over_the_data": planning.rounded(loop.max_steps * fit.batch_size / len(data.train_set)),
    }


def _warn(architecture: MotionArchitecture, data: MotionData) -> None:
    """Tell when there are too few latents to fill a codebook."""
    latents = sum(clip.num_frames for clip in data.train_set.clips) // architecture.stride
    if latents < 5 * architecture.codebook_size:
        log.warning(
            "the training motion has %d codes, fewer than 5 for each of %d entries: codebooks stay partly unused. Try "
            "codec.architecture.quantizer.codebook_size=%d, or codec=motion_rvq_tiny.",
            *(latents, architecture.codebook_size, 2 ** max(1, int(math.log2(max(1, latents // 5))))),
        )


def _data_facts(store: MotionStore, statistics: Statistics) -> dict[str, Any]:
    """Return what identifies the training data."""
    clips = {clip.id: [clip.split, clip.num_frames] for clip in store.clips}
    return {
        "store": store.fingerprint,
        "clips": len(store.clips),
        "id": fingerprint(clips),
        "statistics": statistics.fingerprint,
    }


def _told(values: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Log named values on the first rank; returns them."""
    if ranks.is_first:
        log.info("\n%s", planning.describe(values))
    return values


def _finish(
    module: MotionModule, checkpoints: Checkpoints, facts: dict[str, Any], ranks: Ranks, run_dir: Path
) -> dict[str, Any]:
    """Return the summary, and write the report on the first rank."""
    if not checkpoints.best:
        raise UserError(
            f"training ended in step {module.step}, before the quantizer was made: there is no codec to export. Train "
            f"longer, or lower fit.warmup_steps={module.fit.warmup_steps}."
        )
    best = dict(checkpoints.best)
    summary: dict[str, Any] = {"steps": module.step, "best_step": best.pop("step", None), **facts}
    summary |= {name.replace("/", "_"): value for name, value in best.items()}
    summary |= {"codec": str(run_dir / files.SUBFOLDER), "best": str(run_dir / CHECKPOINTS / BEST)}
    if ranks.is_first:
        summary["report"] = str(fit_report.write(run_dir, summary, module.monitor))
        _told(summary, ranks)
        log.info("measure it: stage=test codec.weights=%s; use it: %s", run_dir, _usage(run_dir, facts["part"]))
    barrier(ranks)
    return summary


def _usage(run_dir: Path, part: str) -> str:
    """Return how task=a2g finds this codec: in the folder of its sweep, or by name."""
    sweep = sweep_of(run_dir)
    return f"task=a2g tokenizers={sweep}" if sweep else f"task=a2g tokenizers='{{{part}: {run_dir}, ...}}'"
