"""stage=test of `a2g`: motion for every test clip, measured beside baselines, with videos and a page."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxlab.errors import UserError
from voxlab.media import log_video
from voxlab.models.gesture.sampling import Sampling
from voxlab.motion.clip import Motion
from voxlab.motion.files import write_motion
from voxlab.parallel import Ranks, gather
from voxlab.progress import track
from voxlab.tasks.a2g import report
from voxlab.tasks.a2g.baselines import baselines
from voxlab.tasks.a2g.evaluate import Pair, evaluate, evaluate_methods
from voxlab.tasks.a2g.fgd import feature_nets, raw_net, train_reference
from voxlab.tasks.a2g.material import Material
from voxlab.tasks.a2g.predictor import Input, Predictor, generate_codes, to_motion
from voxlab.tasks.a2g.protocols import Metrics
from voxlab.tasks.a2g.render import Stage
from voxlab.tasks.a2g.settings import Overlap
from voxlab.tasks.a2g.tables import metric_text
from voxlab.tasks.a2g.windows import ClipData, clip_words

log = logging.getLogger(__name__)

MODEL, OTHER_AUDIO = "this model", "this model, audio of another clip"
_GROUP = 8  # clips that are generated at once; always the same, whatever the number of ranks
_VIDEOS = 3
_GLANCE = 4  # clips that are generated during training
_GIVEN = " (first {} moments given)"


@dataclass(frozen=True)
class Evaluation:
    """How motion is made and measured.

    Attributes:
        sampling: of the codes.
        overlap: of the windows.
        metrics: what is measured.
        stage: whose body.
        seed: of the noise.
    """

    sampling: Sampling
    overlap: Overlap
    metrics: Metrics
    stage: Stage
    seed: int


def check_given(evaluation: Evaluation, material: Material, splits: Sequence[str] = ("test",)) -> None:
    """Refuse to be given all of a clip.

    Raises:
        UserError: names the shortest clip, and how many moments it allows.
    """
    given, stride = evaluation.overlap.given, max(codec.stride for codec in material.codecs.values())
    clips = [clip for clip in material.store.clips if clip.split in splits]
    short = [clip for clip in clips if clip.num_frames <= given * stride]
    if given and short:
        least = min(short, key=lambda clip: clip.num_frames)
        raise UserError(
            f"sampling.given={given} moments are {given * stride} frames; {least.id} has {least.num_frames}. Nothing "
            f"is left to generate of {len(short)} of {len(clips)} clips: give {(least.num_frames - 1) // stride}."
        )


def run(
    predictor: Predictor,
    material: Material,
    evaluation: Evaluation,
    ranks: Ranks,
    run_dir: Path,
) -> dict[str, Any]:
    """Generate motion for the test split and measure it; collective.

    Args:
        predictor: on this rank's device.
        material: of the corpus, with its codes.
        evaluation: how.
        ranks: this process among its peers.
        run_dir: gets predicted/, videos/ and report.html.

    Returns:
        on rank 0, figures: "test/<name>" of the model, "baseline/<method>/<name>" of the others.
    """
    if not material.has_split("test"):
        log.warning("%s has no test split: nothing is measured.", material.store.folder)
        return {}
    check_given(evaluation, material)
    clips = material.clips("test", predictor.speakers)
    begun = time.perf_counter()
    made = generate(predictor, clips, evaluation, ranks)
    seconds = time.perf_counter() - begun
    others = generate(predictor, clips, evaluation, ranks, other_audio=True) if len(clips) > 1 else {}
    if not ranks.is_first:
        return {}
    spoken = sum(data.clip.num_frames for data in clips) / material.fps
    references = {data.clip.id: data.clip.motion() for data in clips}
    methods = _methods(predictor, clips, references, made, others, evaluation.overlap.given)
    results = _measure(predictor, material, evaluation, methods, ranks.device)
    results = {name: _told(name, record, evaluation) for name, record in results.items()}
    log.info("\n%s", metric_text(results, evaluation.metrics.protocol))
    files = _write(predictor, clips, references, made, evaluation, run_dir)
    summary = flatten_results(results) | {"test/clips": len(clips), "test/generated_s_per_s": spoken / seconds}
    seen: dict[str, Any] = {"shown": next(iter(methods.values()))[:_VIDEOS], "skeleton": evaluation.stage.skeleton}
    page = report.write(results, evaluation.metrics, files, predictor, material.flags, run_dir, **seen)
    return {**summary, "results": results, "report": str(page)}


def generate(
    predictor: Predictor, clips: Sequence[ClipData], evaluation: Evaluation, ranks: Ranks, *, other_audio: bool = False
) -> dict[str, Motion]:
    """Return clip id -> motion on all ranks; the clips are dealt to the ranks in groups.

    Args:
        predictor: on this rank's device.
        clips: of one split.
        evaluation: how.
        ranks: this process among its peers.
        other_audio: each clip gets audio and words of the next one: what of the motion follows from them, is lost.
    """
    order = sorted(range(len(clips)), key=lambda number: (clips[number].clip.num_frames, clips[number].clip.id))
    groups = [order[start : start + _GROUP] for start in range(0, len(order), _GROUP)]
    own: dict[str, Motion] = {}
    for group in track(groups[ranks.rank :: ranks.world], "generating", "groups of clips"):
        heard = [clips[(number + 1) % len(clips)] if other_audio else clips[number] for number in group]
        own |= _generate(predictor, [clips[number] for number in group], heard, evaluation, ranks.device)
    return {name: motion for part in gather(ranks, own) for name, motion in part.items()}


def _generate(
    predictor: Predictor, clips: Sequence[ClipData], heard: Sequence[ClipData], evaluation: Evaluation, device: str
) -> dict[str, Motion]:
    inputs = [
        make_input(predictor, data, other, evaluation.overlap.given) for data, other in zip(clips, heard, strict=True)
    ]
    codes = generate_codes(predictor, inputs, evaluation.sampling, evaluation.overlap, evaluation.seed, device)
    motions = {}
    for data, parts in zip(clips, codes, strict=True):
        reference = data.clip.motion()
        start = (float(reference.trans[0, 0]), float(reference.trans[0, 2]))
        given: dict[str, Any] = {"betas": reference.betas, "start_xz": start}
        motions[data.clip.id] = to_motion(predictor, parts, data.clip.num_frames, **given)
    return motions


def make_input(predictor: Predictor, data: ClipData, heard: ClipData, given: int) -> Input:
    """Return what the motion of a clip is made from: audio and words of `heard`, and `given` moments of its own."""
    count = data.clip.num_frames
    rows = {name: np.resize(values, (count, values.shape[1])) for name, values in heard.aligned.items()}
    coarsest = max(codec.stride for codec in predictor.codecs.values())
    start = {
        name: torch.from_numpy(codes[: given * coarsest // predictor.codecs[name].stride].astype(np.int64))
        for name, codes in data.codes.items()
    }
    speaker = predictor.speakers[data.speaker] if data.speaker >= 0 else None
    words = clip_words(heard.words, count / predictor.fps)
    return Input(data.clip.id, rows, speaker, words, start if given else None)


def _methods(
    predictor: Predictor,
    clips: Sequence[ClipData],
    references: Mapping[str, Motion],
    made: Mapping[str, Motion],
    others: Mapping[str, Motion],
    given: int,
) -> dict[str, list[Pair]]:
    """Return the pairs of each method, the model first."""
    names, remark = [data.clip.id for data in clips], _GIVEN.format(given) if given else ""
    motions = {MODEL + remark: [made[name] for name in names]}
    if others:
        motions[OTHER_AUDIO + remark] = [others[name] for name in names]
    motions |= baselines([references[name] for name in names], predictor.statistics)
    return {
        method: [
            Pair(data.clip.id, motion, references[data.clip.id], data.clip.wav, data.clip.wav_start)
            for data, motion in zip(clips, found, strict=True)
        ]
        for method, found in motions.items()
    }


def _measure(
    predictor: Predictor,
    material: Material,
    evaluation: Evaluation,
    methods: Mapping[str, Sequence[Pair]],
    device: str,
) -> dict[str, dict[str, Any]]:
    stage, metrics = evaluation.stage, evaluation.metrics
    nets = feature_nets(material.store, predictor.statistics, metrics, device)
    return evaluate_methods(
        methods,
        settings=metrics,
        skeleton=stage.skeleton,
        layout=predictor.layout,
        statistics=predictor.statistics,
        nets=nets,
        train=train_reference(material.store, stage.skeleton, nets, metrics),
        body=stage.mesh,
        trans=predictor.record["trans"],
    )


def _told(method: str, record: Mapping[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    """Return the record of a method; that of generated motion tells how it was drawn, too."""
    if not method.startswith(MODEL):
        return dict(record)
    overlap = asdict(evaluation.overlap)
    drawn = {"given_moments": overlap.pop("given"), "sampling": asdict(evaluation.sampling) | overlap}
    return {**record, "about": {**record["about"], **drawn, "seed": evaluation.seed}}


def flatten_results(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values of all methods under flat names, which don't tell of what was given."""
    flat: dict[str, Any] = {}
    for name, record in results.items():
        method = name.partition(_GIVEN.partition("{")[0])[0]
        prefix = "test" if method == MODEL else f"baseline/{method.replace(' ', '_').replace(',', '')}"
        flat |= {f"{prefix}/{measure}": value for measure, value in record["values"].items()}
    return flat


def _write(
    predictor: Predictor,
    clips: Sequence[ClipData],
    references: Mapping[str, Motion],
    made: Mapping[str, Motion],
    evaluation: Evaluation,
    run_dir: Path,
) -> dict[str, list[Path]]:
    """Write the motion of every clip, and videos of a few beside the recorded motion; returns those by clip."""
    for name, motion in made.items():
        write_motion(run_dir / "predicted" / f"{name}.npz", motion)
    files = {}
    for data in clips[:_VIDEOS]:
        name = data.clip.id
        pair = [("recorded", references[name]), ("generated", made[name])]
        path = run_dir / "videos" / f"{name}.mp4"
        files[name] = evaluation.stage.draw(path, pair, data.clip.wav, data.clip.wav_start)
    return {name: found for name, found in files.items() if found}


def glance(
    predictor: Predictor,
    material: Material,
    evaluation: Evaluation,
    ranks: Ranks,
    run_dir: Path,
    loggers: Mapping[str, Any],
    step: int,
) -> dict[str, float]:
    """Generate motion for a few validation clips during training; collective, the same figures on every rank."""
    clips = material.clips("validation", predictor.speakers)[:_GLANCE]
    made = generate(predictor, clips, evaluation, ranks)
    row: dict[str, float] = {}
    if ranks.is_first:
        references = {data.clip.id: data.clip.motion() for data in clips}
        pairs = [
            Pair(data.clip.id, made[data.clip.id], references[data.clip.id], data.clip.wav, data.clip.wav_start)
            for data in clips
        ]
        measured = evaluate(
            pairs,
            settings=replace(evaluation.metrics, force=True),
            skeleton=evaluation.stage.skeleton,
            layout=predictor.layout,
            statistics=predictor.statistics,
            nets=[raw_net(predictor.statistics)],
            trans=predictor.record["trans"],
        )
        row = {f"val/generated/{name}": value for name, value in measured["values"].items() if value is not None}
        first = clips[0].clip
        shown = [("recorded", references[first.id]), ("generated", made[first.id])]
        path = run_dir / "samples" / f"step-{step:07d}" / f"{first.id}.mp4"
        log_video(loggers, f"val/{first.id}", evaluation.stage.draw(path, shown, first.wav, first.wav_start), step)
    return gather(ranks, row)[0]
