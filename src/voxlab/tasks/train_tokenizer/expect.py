"""How long training a tokenizer would take, and how much disk: a few of its steps, in memory."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from voxlab.parallel import Ranks
from voxlab.tasks import estimate
from voxlab.tasks.train_tokenizer.settings import Fit, Loop

Weights = Mapping[str, Any]


def expect(
    make: Callable[[Weights, Fit], Any],
    start: Callable[[list[Any]], Any],
    data: Any,
    weights: Weights,
    fit: Fit,
    loop: Loop,
    ranks: Ranks,
) -> dict[str, Any]:
    """Train for a few steps in memory, with and without adversary; return disk and time of a run. Collective.

    Args:
        make: returns the module to train, given weights of the losses and settings.
        start: returns Lightning's trainer, given callbacks.
        data: a LightningDataModule.
        weights: of the losses.
        fit: settings.
        loop: settings.
        ranks: this process among its peers.
    """
    from voxlab.tasks.watch import Stopwatch

    seconds, size, said = 0.0, 0, []
    for kind, chosen, steps in _phases(weights, loop):
        watch, module = Stopwatch(ranks), make(chosen, replace(fit, warmup_steps=0))
        lightning = start([watch])
        lightning.limit_val_batches = 0
        lightning.fit(module, datamodule=data)
        seconds += steps * watch.step + (0 if said else watch.before)
        said.append(f"{watch.count} steps{kind} measured, {estimate.spell_rate(watch.step, 'step')}")
        size = estimate.state_bytes(module, lightning.optimizers)
    if data.val_set is not None:
        validation = watch.measure_validation(lightning, module, data)
        seconds += validation * (loop.max_steps // loop.val_check_interval)
        said.append(f"{len(watch.validated)} batches validated, {validation:.2g} s a validation")
    files = 2 + (loop.max_steps // fit.keep_every if fit.keep_every else 0)
    disk = f"about {estimate.spell_size(files * size)} for checkpoints"
    return {"disk": disk, "time": estimate.about(seconds, "; ".join(said))}


def _phases(weights: Weights, loop: Loop) -> Iterator[tuple[str, Weights, int]]:
    """Yield the steps without adversary and those with it: what they are called, weights, how many there are."""
    begin = min(weights.get("adv_start_step", loop.max_steps), loop.max_steps)
    if begin:
        yield "", {**weights, "adv_start_step": loop.max_steps} if "adv_start_step" in weights else weights, begin
    if begin < loop.max_steps:
        yield " with adversary", {**weights, "adv_start_step": 0}, loop.max_steps - begin
