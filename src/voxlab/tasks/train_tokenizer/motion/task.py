"""Motion tokenizers in `task=train_tokenizer`: one for each part of the body.

python main.py -m task=train_tokenizer data=beat2 codec=motion_rvq part=upper,hands,lower_trans,face
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.models.gesture.motion_codec import MotionCodec, find_tokenizers, is_codec, load_motion_codec
from voxlab.models.gesture.motion_rvq import MotionRvq
from voxlab.motion.parts import Layout, Part, read_layout
from voxlab.parallel import Ranks
from voxlab.tasks.optim import Schedule

log = logging.getLogger(__name__)

STAGES = ("fit", "test", "export")


def train_motion_tokenizer(
    *,
    corpus: Any,
    codec: MotionRvq,
    part: str | None,
    stage: str,
    loss: Mapping[str, Any] | None,
    optim: Schedule | None,
    trainer: partial[Any],
    fit: Mapping[str, Any],
    test: Mapping[str, Any],
    out: str | None,
    ckpt: str | None,
    seed: int,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
    loggers: Mapping[str, Any],
) -> dict[str, Any]:
    """Run one stage; arguments as in `train_tokenizer`.

    Raises:
        UserError: wrong settings, a corpus without motion, no such part.
    """
    if stage not in STAGES:
        raise UserError(f"stage={stage}: codec=motion_rvq has {', '.join(STAGES)}; task=a2g makes motion of sound.")
    layout = _layout(corpus)
    place: dict[str, Any] = {"dry_run": dry_run, "ranks": ranks, "run_dir": run_dir}
    if stage == "fit":
        from voxlab.tasks.train_tokenizer.motion.fit import fit as train

        if loss is None or optim is None:
            raise UserError("task=train_tokenizer needs a loss and an optimiser: loss=tokenizer optim=adamw_cosine.")
        chosen_part = _to_train(codec, part, layout)
        given: dict[str, Any] = {"loss": loss, "optim": optim, "trainer": trainer, "settings": fit, "ckpt": ckpt}
        given |= {"seed": seed, "loggers": loggers}
        given |= {"part": chosen_part, "architecture": codec.of_part(chosen_part)}
        return train(corpus=corpus, layout=layout, **given, **place)
    trained = _trained(codec, part, layout, stage)
    if stage == "export":
        from voxlab.tasks.train_tokenizer.motion.export import export

        return export(codec=trained, weights=str(codec.weights), out=out, **place)
    from voxlab.tasks.train_tokenizer.motion.test import test as measure

    chosen = {"split": test["split"], "limit": test["limit"]}
    chosen["video_seconds"] = test["max_seconds"] if test["clips"] else 0.0
    return measure(corpus=corpus, layout=layout, codec=trained, **chosen, **place)


def _layout(corpus: Any) -> Layout:
    layout = getattr(corpus, "layout", None)
    if layout is None:
        raise UserError(f"codec=motion_rvq needs data with motion: data=beat2, not {type(corpus).__name__}.")
    return read_layout(layout)


def _to_train(codec: MotionRvq, part: str | None, layout: Layout) -> Part:
    names = [each.name for each in layout.parts]
    if codec.weights is not None:
        raise UserError(
            f"stage=fit trains a new codec, but codec.weights={codec.weights} names a trained one. To go on from its "
            "weights set ckpt=<its codec folder, or a checkpoint>; to measure it, stage=test."
        )
    if part is None:
        raise UserError(
            f"a motion tokenizer codes one part of the body: part={names[0]}, or all of layout {layout.name} in a "
            f"sweep: -m part={','.join(names)}."
        )
    return layout.part(part)


def _trained(codec: MotionRvq, part: str | None, layout: Layout, stage: str) -> MotionCodec:
    if codec.weights is None:
        raise UserError(f"stage={stage} needs a trained codec: codec.weights=<run folder, codec folder or net_*.pth>.")
    folder = Path(codec.weights)
    if part is not None and folder.is_dir() and not is_codec(folder):  # of a sweep
        only = replace(layout, parts=(layout.part(part),))
        return find_tokenizers(folder, only, statistics=codec.statistics)[part]
    trained = load_motion_codec(folder, statistics=codec.statistics, layout=layout)
    if part not in (None, trained.part.name):
        raise UserError(f"part={part}, but codec.weights={codec.weights} was trained on part={trained.part.name}.")
    return trained
