"""What each stage of `task=a2g` opens and checks before its work begins."""

import dataclasses
import logging
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from voxlab import report
from voxlab.data.motion_store import StoredClip, find_motion_store
from voxlab.data.motion_windows import window_starts
from voxlab.data.recordings import read_headers
from voxlab.errors import UserError
from voxlab.losses.gesture import A2gLoss
from voxlab.models.gesture.gesture_model import A2gModel
from voxlab.motion.parts import read_layout
from voxlab.parallel import Ranks
from voxlab.tasks import estimate
from voxlab.tasks.a2g import fit as fitting
from voxlab.tasks.a2g import generate as generating
from voxlab.tasks.a2g import test as testing
from voxlab.tasks.a2g.features import open_features
from voxlab.tasks.a2g.folders import evaluate_folders, find_pairs
from voxlab.tasks.a2g.material import Sources, open_material, open_tokenizers
from voxlab.tasks.a2g.predictor import check_material, load_predictor
from voxlab.tasks.a2g.render import Stage
from voxlab.tasks.a2g.settings import Body, Fit, Generate, check_render, read, read_metrics, read_sampling
from voxlab.tasks.a2g.tables import metric_table, metric_text
from voxlab.tasks.settings import Loop, log_facts, read_loop

log = logging.getLogger(__name__)

_AT_ONCE = "all clips are generated, and compared with each other"


@dataclass(frozen=True)
class Place:
    """Who works where: the ranks, the run folder, the loggers of rank 0; dry_run: nothing is written."""

    ranks: Ranks
    run_dir: Path
    loggers: Mapping[str, Any]
    dry_run: bool


def read_evaluation(
    sampling: Mapping[str, Any], metrics: Mapping[str, Any], body: Mapping[str, Any], render: str, seed: int
) -> testing.Evaluation:
    """Return the checked settings of how motion is made, measured and drawn.

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    shape = read(Body, body, "body")
    check_render(render, shape)
    draw, overlap = read_sampling(sampling)
    return testing.Evaluation(draw, overlap, read_metrics(metrics), Stage(shape, render), seed)


def fit(
    sources: Sources,
    model: Any,
    loss: Any,
    optim: Any,
    trainer: partial[Any],
    settings: Fit,
    ckpt: str | None,
    seed: int,
    evaluation: testing.Evaluation,
    place: Place,
) -> dict[str, Any]:
    """Train, then test; arguments as in `task.a2g`."""
    if not isinstance(model, A2gModel) or not isinstance(loss, A2gLoss):
        raise UserError("task=a2g takes model=a2g_base, a2g_legacy or a2g_tiny, and loss=a2g.")
    if "features" not in sources.features:
        raise UserError("task=a2g needs features of speech: features=wavlm. Those of sound alone: features=mfcc.")
    fitting.check_trainer(trainer, place.ranks)
    loop = read_loop(trainer.keywords)
    chosen = fitting.Chosen(settings, loop, model, loss, optim, sources.tokenizers)
    if place.dry_run:
        plan = _plan(sources, place, settings, loop)
        return plan | _told(place, fitting.expect(sources, chosen, trainer, seed, place.ranks, place.run_dir))
    _check_tokenizers(sources)
    material = open_material(sources, place.ranks)
    where: dict[str, Any] = {"ranks": place.ranks, "run_dir": place.run_dir, "loggers": place.loggers}
    return fitting.fit(material, chosen, evaluation, trainer, ckpt=ckpt, seed=seed, **where)


def test(sources: Sources, ckpt: str, evaluation: testing.Evaluation, place: Place) -> dict[str, Any]:
    """Test a trained model; arguments as in `task.a2g`."""
    predictor = load_predictor(ckpt, sources.tokenizers)
    if sources.tokenizers is None:
        sources = dataclasses.replace(sources, tokenizers=predictor.record["tokenizers"])
    if place.dry_run:
        return _plan(sources, place) | _told(place, {"time": estimate.not_measured(_AT_ONCE)})
    material = open_material(sources, place.ranks)
    check_material(predictor, material)
    material.tokenize(place.ranks)
    predictor.to(place.ranks.device)
    return testing.run(predictor, material, evaluation, place.ranks, place.run_dir)


def tokenize(sources: Sources, place: Place) -> dict[str, Any]:
    """Make the codes of a corpus; arguments as in `task.a2g`."""
    _check_tokenizers(sources)
    if place.dry_run:
        plan = _plan(dataclasses.replace(sources, features={}), place)
        return plan | _told(place, {"time": estimate.attempt(partial(_tokenizing_time, sources, place.ranks))})
    material = open_material(dataclasses.replace(sources, features={}), place.ranks)
    made = material.tokenize(place.ranks)
    facts = {"clips": len(material.store.clips), **{f"coded_{name}": count for name, count in made.items()}}
    log_facts(log, facts)
    return facts


def generate(
    ckpt: str,
    tokenizers: Any,
    features: Mapping[str, Any],
    audio: str | None,
    out: str | None,
    settings: Generate,
    max_bad_fraction: float,
    evaluation: testing.Evaluation,
    place: Place,
) -> dict[str, Any]:
    """Generate motion for recordings; arguments as in `task.a2g`."""
    files = generating.find_audio(audio)
    predictor = load_predictor(ckpt, tokenizers)
    folder = place.run_dir / "generated" if out is None else Path(out)
    request = generating.Request(files, folder, settings, max_bad_fraction)
    generating.check_request(predictor, features, request)
    if place.dry_run:
        plan = {"checkpoint": str(predictor.path), "recordings": len(files), "out": str(request.out)}
        plan["time"] = estimate.attempt(
            partial(_generating_time, predictor, features, request, evaluation, place.ranks)
        )
        if place.ranks.is_first:
            log_facts(log, plan)
        return plan
    return generating.generate(predictor.to(place.ranks.device), features, request, evaluation, place.ranks)


def evaluate(
    corpus: Any, predicted: str | None, reference: str | None, audio: str | None, how: testing.Evaluation, place: Place
) -> dict[str, Any]:
    """Measure a folder of motion files against another; arguments as in `task.a2g`."""
    if predicted is None or reference is None:
        raise UserError("stage=evaluate compares two folders of motion files: predicted=<folder> reference=<folder>.")
    folders = (Path(predicted), Path(reference), None if audio is None else Path(audio))
    layout, pairs = read_layout(corpus.layout), find_pairs(*folders)
    if not place.ranks.is_first:
        return {}
    if place.dry_run:
        plan = {"clips": len(pairs), "recordings": sum(pair.wav is not None for pair in pairs)}
        plan |= {"time": estimate.not_measured("all pairs are compared at once")}
        log_facts(log, plan)
        return plan
    results = evaluate_folders(
        folders[0],
        folders[1],
        settings=how.metrics,
        skeleton=how.stage.skeleton,
        layout=layout,
        wavs=folders[2],
        body=how.stage.mesh,
    )
    log.info("\n%s", metric_text(results, how.metrics.protocol))
    sections = metric_table(results, how.metrics.protocol)
    page = report.write_report(place.run_dir / "report.html", "Motion files", f"{predicted} and {reference}", sections)
    return testing.flatten_results(results) | {"results": results, "report": str(page)}


def _told(place: Place, facts: dict[str, Any]) -> dict[str, Any]:
    """Log named values on the first rank; returns them."""
    if place.ranks.is_first:
        log_facts(log, facts)
    return facts


def _tokenizing_time(sources: Sources, ranks: Ranks) -> str:
    """Make the codes of a few clips in memory; return what all would take."""
    store = find_motion_store(sources.corpus)
    if store is None:
        return estimate.not_measured("the motion store is not built yet; a run begins with that")
    _, codecs = open_tokenizers(sources.corpus, sources.tokenizers, any_fps=sources.any_fps)

    def rehearse(some: Sequence[StoredClip]) -> float:
        for clip in some:
            for codec in codecs.values():
                codec.to(ranks.device).tokenize(clip.frames())
        return sum(clip.num_frames for clip in some)

    pace, count = estimate.measure(rehearse, store.clips, ranks.device)
    seconds = pace * sum(clip.num_frames for clip in store.clips) / ranks.world
    return estimate.about(seconds, f"{count} clips measured, all taken for new")


def _generating_time(
    predictor: Any, features: Mapping[str, Any], request: generating.Request, how: testing.Evaluation, ranks: Ranks
) -> str:
    """Generate for a few recordings into a folder that is deleted again; return what all would take."""
    predictor, alone = predictor.to(ranks.device), dataclasses.replace(ranks, rank=0, world=1)

    def rehearse(names: Sequence[str]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            some = {name: request.files[name] for name in names}
            smaller = dataclasses.replace(request, files=some, out=Path(folder))
            return generating.generate(predictor, features, smaller, how, alone)["recordings"]

    pace, count = estimate.measure(rehearse, sorted(request.files), ranks.device)
    return estimate.about(pace * len(request.files) / ranks.world, f"{count} recordings measured, {pace:.3g} s each")


def _check_tokenizers(sources: Sources) -> None:
    if sources.tokenizers is None:
        chosen = shlex.split(sources.extraction.get("features") or "data=beat2")
        data = " ".join(shlex.quote(word) for word in chosen if word.startswith("data"))
        parts = ",".join(part.name for part in read_layout(sources.corpus.layout).parts)
        small = "data.source=sample" in chosen  # where full-size tokenizers would take hours, and learn nothing more
        how = f"experiment=a2g_tokenizer_tiny {data}" if small else f"task=train_tokenizer {data} codec=motion_rvq"
        raise UserError(
            "task=a2g needs the tokenizers of all parts: tokenizers=<folder of the sweep>. Train them with\n"
            f"  python main.py -m {how} part={parts} hydra.sweep.dir=outputs/tokenizers\n"
            "and give tokenizers=outputs/tokenizers"
        )


def _plan(sources: Sources, place: Place, fit: Fit | None = None, loop: Loop | None = None) -> dict[str, Any]:
    """Return, and log, what a run would work on; writes nothing."""
    _check_tokenizers(sources)
    layout, codecs = open_tokenizers(sources.corpus, sources.tokenizers, any_fps=sources.any_fps)
    seconds = _durations(sources.corpus)
    facts: dict[str, Any] = {"layout": layout.name, "fps": sources.corpus.fps}
    facts |= {f"{split}_clips": f"{len(each)}, {sum(each) / 60:.1f} minutes" for split, each in seconds.items()}
    for name, codec in codecs.items():
        books = f"{codec.num_codebooks} codebooks of {codec.codebook_size}"
        facts[f"tokens_{name}"] = f"{books}, {codec.stride} frames each"
    if fit is not None and loop is not None:
        fit.check_windows(max(codec.stride for codec in codecs.values()))
        facts |= _plan_steps(seconds.get("train", []), sources.corpus.fps, fit, loop)
    for name, node in sources.features.items():
        given: dict[str, Any] = {"key": name, "extraction": sources.extraction.get(name)}
        facts[name] = str(open_features(getattr(sources.stores, name), node, sources.corpus, **given).folder)
    if place.ranks.is_first:
        log_facts(log, facts)
    return facts


def _durations(corpus: Any) -> dict[str, list[float]]:
    """Return split -> seconds of its clips, as the headers of their audio have it."""
    items = {item.id: item for item in corpus.items()}
    seconds: dict[str, list[float]] = {}
    for clip in corpus.clips():
        header = read_headers([items[clip.id]])[0]
        if not isinstance(header, str):
            seconds.setdefault(clip.split, []).append(header.frames / header.sample_rate)
    return dict(sorted(seconds.items()))


def _plan_steps(seconds: Sequence[float], fps: int, fit: Fit, loop: Loop) -> dict[str, str]:
    """Return how much there is to train on, as far as the audio tells; motion may end before it."""
    windows = sum(len(window_starts(int(each * fps), fit.window, fit.stride)) for each in seconds)
    per_epoch = windows // fit.batch_size
    most = {"train_windows": windows, "steps_per_epoch": per_epoch, "max_steps": loop.steps(per_epoch)}
    return {name: f"{count} at most" for name, count in most.items()}
