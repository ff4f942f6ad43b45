"""What each stage of `task=a2g` opens and checks before its work begins."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from voxlab import report
from voxlab.errors import UserError
from voxlab.losses.gesture import A2gLoss
from voxlab.models.gesture.gesture_model import A2gModel
from voxlab.motion.parts import read_layout
from voxlab.parallel import Ranks
from voxlab.tasks.a2g import fit as fitting
from voxlab.tasks.a2g import generate as generating
from voxlab.tasks.a2g import test as testing
from voxlab.tasks.a2g.features import open_features
from voxlab.tasks.a2g.folders import evaluate_folders, find_pairs
from voxlab.tasks.a2g.material import Sources, open_material, open_tokenizers
from voxlab.tasks.a2g.predictor import Predictor, check_material, load_predictor
from voxlab.tasks.a2g.render import Stage
from voxlab.tasks.a2g.settings import Body, Fit, Generate, check_render, read, read_metrics, read_sampling
from voxlab.tasks.a2g.tables import metric_table, metric_text
from voxlab.tasks.settings import log_facts, read_loop

log = logging.getLogger(__name__)

_TRAINED = "ckpt=<run folder of task=a2g>"


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
    if place.dry_run:
        return _plan(sources, place)
    _check_tokenizers(sources.tokenizers)
    chosen = fitting.Chosen(settings, loop, model, loss, optim, sources.tokenizers)
    material = open_material(sources, place.ranks)
    where: dict[str, Any] = {"ranks": place.ranks, "run_dir": place.run_dir, "loggers": place.loggers}
    return fitting.fit(material, chosen, evaluation, trainer, ckpt=ckpt, seed=seed, **where)


def test(sources: Sources, ckpt: str | None, evaluation: testing.Evaluation, place: Place) -> dict[str, Any]:
    """Test a trained model; arguments as in `task.a2g`."""
    predictor = _load(ckpt, sources.tokenizers, "test")
    if sources.tokenizers is None:
        sources = dataclasses.replace(sources, tokenizers=predictor.record["tokenizers"])
    if place.dry_run:
        return _plan(sources, place)
    material = open_material(sources, place.ranks)
    check_material(predictor, material)
    material.tokenize(place.ranks)
    predictor.to(place.ranks.device)
    return testing.run(predictor, material, evaluation, place.ranks, place.run_dir, place.loggers)


def tokenize(sources: Sources, place: Place) -> dict[str, Any]:
    """Make the codes of a corpus; arguments as in `task.a2g`."""
    _check_tokenizers(sources.tokenizers)
    if place.dry_run:
        return _plan(dataclasses.replace(sources, features={}), place)
    material = open_material(dataclasses.replace(sources, features={}), place.ranks)
    made = material.tokenize(place.ranks)
    return {"clips": len(material.store.clips), **{f"coded_{name}": count for name, count in made.items()}}


def generate(
    ckpt: str | None,
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
    predictor = _load(ckpt, tokenizers, "generate")
    folder = place.run_dir / "generated" if out is None else Path(out)
    request = generating.Request(files, folder, settings, max_bad_fraction)
    generating.check_request(predictor, features, request)
    if place.dry_run:
        plan = {"checkpoint": str(predictor.path), "recordings": len(files), "out": str(request.out)}
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


def _load(ckpt: str | None, tokenizers: Any, stage: str) -> Predictor:
    if ckpt is None:
        raise UserError(f"stage={stage} needs a trained model: {_TRAINED}.")
    return load_predictor(ckpt, tokenizers)


def _check_tokenizers(tokenizers: Any) -> None:
    if tokenizers is None:
        raise UserError(
            "task=a2g needs the tokenizers of all parts: tokenizers=<folder of the sweep>. Train them with\n"
            "  python main.py -m task=train_tokenizer data=beat2 codec=motion_rvq part=upper,hands,lower_trans,face"
        )


def _plan(sources: Sources, place: Place) -> dict[str, Any]:
    """Return, and log, what a run would work on; writes nothing."""
    _check_tokenizers(sources.tokenizers)
    layout, codecs = open_tokenizers(sources.corpus, sources.tokenizers, any_fps=sources.any_fps)
    clips = Counter(clip.split for clip in sources.corpus.clips())
    facts: dict[str, Any] = {"layout": layout.name, "fps": sources.corpus.fps}
    facts |= {f"{split}_clips": count for split, count in sorted(clips.items())}
    for name, codec in codecs.items():
        facts[f"tokens_{name}"] = f"{codec.num_codebooks} of {codec.codebook_size}, {codec.stride} frames each"
    for name, node in sources.features.items():
        given: dict[str, Any] = {"key": name, "extraction": sources.extraction.get(name)}
        facts[name] = str(open_features(getattr(sources.stores, name), node, sources.corpus, **given).folder)
    if place.ranks.is_first:
        log_facts(log, facts)
    return facts
