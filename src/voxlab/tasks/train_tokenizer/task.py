"""Train a tokenizer of speech or of motion, measure one, listen to one, or write one out for other programs.

python main.py task=train_tokenizer data=librispeech codec=rvq
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from voxlab.data.items import AudioCorpus
from voxlab.errors import UserError
from voxlab.models.gesture.motion_rvq import MotionRvq
from voxlab.parallel import Ranks
from voxlab.tasks.optim import Schedule

STAGES = ("fit", "test", "reconstruct", "export")


def train_tokenizer(
    *,
    corpus: AudioCorpus,
    codec: Any,
    part: str | None,
    stage: str,
    loss: Mapping[str, Any] | None,
    optim: Schedule | None,
    trainer: partial[Any],
    fit: Mapping[str, Any],
    test: Mapping[str, Any],
    audio: str | None,
    out: str | None,
    max_bad_fraction: float,
    ckpt: str | None,
    seed: int,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
    loggers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run one stage.

    Args:
        corpus: recordings, with splits.
        codec: stage=fit: one without weights, whose `architecture` is trained; else any codec.
        part: part of the body, for codecs of motion (which have a task of their own, see `motion.task`).
        stage: "fit", "test" (quality report), "reconstruct" (one file) or "export".
        loss: weights of the losses by family of networks.
        optim: makes the optimisers.
        trainer: `lightning.Trainer` with its settings.
        fit: settings of `settings.Fit`.
        test: settings of `quality.test`.
        audio: stage=reconstruct: the file.
        out: stage=reconstruct, export: where to write; None: the run folder.
        max_bad_fraction: stage=test: fail when more recordings than this can't be measured.
        ckpt: codec folder or checkpoint to take start weights from.
        seed: of everything random.
        dry_run: print the plan and write nothing.
        ranks: this process among its peers.
        run_dir: folder of this run; stage=fit goes on from the checkpoint in it, if there is one.
        loggers: Lightning loggers by name, on rank 0.

    Returns:
        Figures and the files written.

    Raises:
        UserError: wrong settings, no recordings, a codec that can't do this.
    """
    if stage not in STAGES:
        raise UserError(f"stage={stage}: task=train_tokenizer has {', '.join(STAGES)}.")
    if ckpt is not None and stage != "fit":
        raise UserError(f"ckpt={ckpt} gives start weights to stage=fit; stage={stage} takes codec.weights={ckpt}.")
    place: dict[str, Any] = {"seed": seed, "dry_run": dry_run, "ranks": ranks, "run_dir": run_dir}
    if isinstance(codec, MotionRvq):
        from voxlab.tasks.train_tokenizer.motion.task import train_motion_tokenizer

        chosen: dict[str, Any] = {"part": part, "stage": stage, "loss": loss, "optim": optim, "trainer": trainer}
        chosen |= {"fit": fit, "test": test, "out": out, "ckpt": ckpt, "loggers": {} if loggers is None else loggers}
        return train_motion_tokenizer(corpus=corpus, codec=codec, **chosen, **place)
    if part is not None:
        raise UserError(f"part={part} is a part of the body: it goes with codec=motion_rvq data=beat2.")
    if stage == "fit":
        from voxlab.tasks.train_tokenizer import fit as tokenizer_fit

        if loss is None or optim is None:
            raise UserError("task=train_tokenizer needs a loss and an optimiser: loss=tokenizer optim=adamw_cosine.")
        given: dict[str, Any] = {"loss": loss, "optim": optim, "trainer": trainer, "settings": fit}
        return tokenizer_fit.fit(
            corpus=corpus, codec=codec, ckpt=ckpt, loggers={} if loggers is None else loggers, **given, **place
        )
    given = {"corpus": corpus, "audio": audio, "out": out, "max_bad_fraction": max_bad_fraction, "test": test}
    return _use_trained(codec, stage, place, **given)


def _use_trained(
    codec: Any,
    stage: str,
    place: Mapping[str, Any],
    *,
    corpus: AudioCorpus,
    audio: str | None,
    out: str | None,
    max_bad_fraction: float,
    test: Mapping[str, Any],
) -> dict[str, Any]:
    """Run a stage that takes a codec as it is."""
    if codec is None:
        raise UserError(f"stage={stage} needs a codec: codec=rvq codec.weights=<run folder>, codec=encodec, ...")
    if stage == "export":
        from voxlab.tasks.train_tokenizer import export as tokenizer_export

        return tokenizer_export.export(codec=codec, out=out, **place)
    from voxlab.tasks.train_tokenizer import quality as tokenizer_quality

    if stage == "reconstruct":
        return tokenizer_quality.reconstruct(codec=codec, audio=audio, out=out, **place)
    return tokenizer_quality.test(corpus=corpus, codec=codec, max_bad_fraction=max_bad_fraction, **place, **test)
