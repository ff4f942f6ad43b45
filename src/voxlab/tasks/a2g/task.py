"""Train a model of gestures, test one, generate motion from recordings, or measure motion files.

python main.py task=a2g tokenizers=outputs/train_tokenizer/<stamp>
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.parallel import Ranks

log = logging.getLogger(__name__)

STAGES = ("fit", "test", "generate", "evaluate", "tokenize")
_MODELS = "model=a2g_base, a2g_legacy or a2g_tiny, loss=a2g and optim=adamw_cosine"


def a2g(
    *,
    corpus: Any,
    features: Any,
    acoustic: Any,
    model: Any,
    loss: Any,
    optim: Any,
    trainer: partial[Any],
    stage: str,
    tokenizers: Any,
    stores: Mapping[str, Any],
    audio: str | None,
    predicted: str | None,
    reference: str | None,
    out: str | None,
    fit: Mapping[str, Any],
    sampling: Mapping[str, Any],
    generate: Mapping[str, Any],
    metrics: Mapping[str, Any],
    body: Mapping[str, Any],
    render: str,
    any_fps: bool,
    max_bad_fraction: float,
    ckpt: str | None,
    extraction: Mapping[str, str],
    seed: int,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
    loggers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run one stage.

    Args:
        corpus: the data node, BEAT2; stage=fit, test, tokenize.
        features: features of speech.
        acoustic: features of sound beside them; None: none.
        model: describes the network.
        loss: weights of its terms.
        optim: makes the optimiser.
        trainer: `lightning.Trainer` with its settings.
        stage: "fit" (train, then test), "test", "generate" (motion for recordings), "evaluate" (two folders of motion
            files) or "tokenize" (codes of the corpus).
        tokenizers: folder of the runs that trained them, or part -> run; None: where they were when `ckpt` was trained.
        stores: where task=extract wrote the features; `settings.Stores`.
        audio: stage=generate: file or folder; stage=evaluate: folder of the recordings.
        predicted: stage=evaluate: folder of motion files.
        reference: stage=evaluate: folder of those that they are compared with.
        out: stage=generate: folder to write; None: the run folder.
        fit: settings of `settings.Fit`.
        sampling: settings of `sampling.Sampling` and `settings.Overlap`.
        generate: settings of `settings.Generate`.
        metrics: settings of `protocols.Metrics`.
        body: settings of `settings.Body`.
        render: "stick", "mesh" or "none".
        any_fps: take tokenizers that were trained at another frame rate than `corpus` has.
        max_bad_fraction: stage=generate: more recordings of a folder than this that fail, fail the run at its end.
        ckpt: stage=test, generate: run folder or checkpoint; stage=fit: the same, to take start weights from.
        extraction: "features", "acoustic" -> words of the command line that make the stores, for messages.
        seed: of everything random.
        dry_run: print what would be done, and write nothing.
        ranks: this process among its peers.
        run_dir: folder of this run; stage=fit goes on from the checkpoint in it, if there is one.
        loggers: Lightning loggers by name, on rank 0.

    Returns:
        Figures and the files written.

    Raises:
        UserError: wrong settings, something is missing, or things don't fit each other.
        TooManyBadItems: more recordings failed than `max_bad_fraction`.
    """
    if stage not in STAGES:
        raise UserError(f"stage={stage}: task=a2g has {', '.join(STAGES)}.")
    if stage in ("test", "generate") and ckpt is None:
        raise UserError(f"stage={stage} needs a trained model: ckpt=<run folder of task=a2g>.")
    from voxlab.tasks.a2g import settings as read_settings
    from voxlab.tasks.a2g import stages
    from voxlab.tasks.a2g.material import Sources

    how = stages.read_evaluation(sampling, metrics, body, render, seed)
    nodes = {name: node for name, node in (("features", features), ("acoustic", acoustic)) if node is not None}
    place = stages.Place(ranks, run_dir, {} if loggers is None else loggers, dry_run=dry_run)
    if stage == "evaluate":
        return stages.evaluate(corpus, predicted, reference, audio, how, place)
    if stage == "generate":
        wanted = read_settings.read(read_settings.Generate, generate, "generate")
        return stages.generate(str(ckpt), tokenizers, nodes, audio, out, wanted, max_bad_fraction, how, place)
    places = read_settings.read(read_settings.Stores, stores, "stores")
    sources = Sources(corpus, nodes, tokenizers, places, extraction, any_fps)
    if stage == "tokenize":
        return stages.tokenize(sources, place)
    if stage == "test":
        return stages.test(sources, str(ckpt), how, place)
    if model is None or loss is None or optim is None:
        raise UserError(f"task=a2g needs a model, a loss and an optimiser: {_MODELS}.")
    return stages.fit(sources, model, loss, optim, trainer, read_settings.read_fit(fit), ckpt, seed, how, place)
