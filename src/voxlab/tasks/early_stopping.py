"""When a training ends: after its steps, or when its latest validations brought nothing better."""

import logging
from typing import Any

log = logging.getLogger(__name__)


def is_over(module: Any, best: int, *, tells: bool) -> bool:
    """Tell whether a training is at its end, and why where that is before its last step.

    Args:
        module: a LightningModule with `step`, `max_steps`, `per_epoch`, `scores` of its validations so far, and `fit`
            with `patience` and `monitor`.
        best: which of the scores is the best.
        tells: this rank is the one that logs.
    """
    if module.step >= module.max_steps:
        return True
    patience, waited = module.fit.patience, len(module.scores) - 1 - best
    if patience is None or not module.scores or waited < patience:
        return False
    if tells:
        log.info(
            "ends after epoch %.3g of %.3g: no better %s in the last %d (fit.patience=%d; null: run to the end)",
            *(module.step / module.per_epoch, module.max_steps / module.per_epoch),
            *(module.fit.monitor, waited, patience),
        )
    return True
