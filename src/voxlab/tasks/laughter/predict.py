"""Logits of whole episodes, dealt to the ranks by view and gathered on all; and trained models from checkpoints."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxlab.errors import UserError
from voxlab.features.base import FeatureInfo
from voxlab.metrics.events import EpisodeScores, mean_over_views
from voxlab.models.laughter import LaughterModel, rebuild
from voxlab.parallel import Ranks, gather
from voxlab.progress import track
from voxlab.storage import differences
from voxlab.tasks.checkpoints import find_checkpoint, read_checkpoint
from voxlab.tasks.laughter.data import View

TASK = "laughter"
REMEDY = "Lower optim.lr, or keep fit.norm=standard, and train anew."
_FRAMES = 2048  # at once; always the same, so that no figure depends on how work is dealt out


@dataclass(frozen=True)
class Predictor:
    """A trained model with what it was trained for.

    Attributes:
        path: of the checkpoint.
        model: in evaluation mode, on the CPU.
        record: "labels", "features" (settings and fingerprint of the store), "loss", "seed", "step", and the decision.
        decision: calibration and threshold as `decide.Decision.from_record` takes them; None where training ended
            before there was one.
    """

    path: Path
    model: LaughterModel
    record: dict[str, Any]
    decision: dict[str, Any] | None


def load_predictor(ckpt: Path | str) -> Predictor:
    """Load a trained model.

    Args:
        ckpt: run folder (its best checkpoint), or checkpoint file.

    Raises:
        UserError: no such file, or a checkpoint of another program or task.
    """
    path = find_checkpoint(Path(ckpt), TASK)
    checkpoint = read_checkpoint(path, TASK)
    record = dict(checkpoint["voxlab"])
    model = rebuild(record.pop("model"))
    state = checkpoint["state_dict"]
    model.load_state_dict({key.removeprefix("model."): state[key] for key in state if key.startswith("model.")})
    return Predictor(path, model.eval().requires_grad_(False), record, record.get("decision"))


def check_fits(predictor: Predictor, labels: Mapping[str, Any], features: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that was trained on other features or for other labels.

    Args:
        predictor: the model.
        labels: `LabelSettings.record` of this run.
        features: `features_record` of this run.

    Raises:
        UserError: lists every difference.
    """
    was, now = ({"labels": dict(a), "features": dict(b)} for a, b in (_facts(predictor.record), (labels, features)))
    lines = differences(was, now)
    if lines:
        listed = "\n  ".join(lines[:10])
        raise UserError(
            f"{predictor.path} was trained for other labels or features (checkpoint -> now):\n  {listed}\n"
            "Set these keys (labels.shift is the key shift) and the store as the checkpoint has them, or train anew."
        )


def check_features(predictor: Predictor, settings: Mapping[str, Any], then: str) -> None:
    """Refuse other features than those that a checkpoint was trained on, by what is known without their weights.

    Args:
        predictor: the model.
        settings: `Features.settings` of this run.
        then: what else to set, for the message; "" for nothing.

    Raises:
        UserError: names the features to choose, or lists the settings that differ.
    """
    record = predictor.record["features"]["features"]
    if record["name"] != settings["name"]:
        raise UserError(
            f"ckpt={predictor.path} was trained on features={record['name']}: set features={record['name']}{then} "
            f"(now features={settings['name']})."
        )
    described = {field.name for field in fields(FeatureInfo)}
    raise_differing(predictor, {k: v for k, v in record.items() if k == "name" or k not in described}, settings)


def raise_differing(predictor: Predictor, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse settings of features that are not those of the checkpoint.

    Raises:
        UserError: lists what differs.
    """
    lines = differences(json.loads(json.dumps(was)), json.loads(json.dumps(now)))
    if lines:
        listed = "\n  ".join(lines[:10])
        raise UserError(
            f"{predictor.path} was trained on other features (checkpoint -> now):\n  {listed}\n"
            "Set these keys of features, and its weights, as task=extract had them."
        )


def _facts(record: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return record["labels"], record["features"]


def predict(
    model: LaughterModel,
    views: Sequence[View],
    ranks: Ranks,
    device: torch.device | str,
    owner: Path | str = "the model",
) -> list[EpisodeScores]:
    """Score all frames of some views; collective, the same list on every rank.

    Args:
        model: any mode; it is left in that.
        views: of one split; an episode's views are averaged where their labels are the same.
        ranks: this process among its peers; whole views are dealt out, the longest first.
        device: to run on.
        owner: whose scores they are, for messages.

    Raises:
        UserError: a score is not finite.
    """
    order = sorted(range(len(views)), key=lambda number: -len(views[number].labels.y))
    was_training = model.training
    model.eval()
    numbers = track(order[ranks.rank :: ranks.world], "scoring", "views")
    own = {number: _logits(model, views[number].features, device) for number in numbers}
    model.train(was_training)
    logits = _complete(gather(ranks, own), views)
    for number, view in enumerate(views):
        _check_finite(logits[number], view, owner)
    return [_scores(group, views, logits) for group in _groups(views)]


def _check_finite(logits: np.ndarray, view: View, owner: Path | str) -> None:
    bad = int(np.count_nonzero(~np.isfinite(logits)))
    if bad:
        raise UserError(
            f"{owner}: {bad} of the {len(logits)} scores of {view.episode.split} episode {view.episode.name} are not "
            f"finite: training has diverged. {REMEDY}"
        )


def _complete(parts: Sequence[Mapping[int, np.ndarray]], views: Sequence[View]) -> dict[int, np.ndarray]:
    """Join what the ranks computed; every frame of every view must be there once."""
    joined = {number: logits for part in parts for number, logits in part.items()}
    lengths = {number: len(logits) for number, logits in joined.items()}
    if sum(map(len, parts)) != len(views) or lengths != {n: len(view.labels.y) for n, view in enumerate(views)}:
        raise RuntimeError("the ranks did not score every frame exactly once")
    return joined


@torch.inference_mode()
def _logits(model: LaughterModel, features: Any, device: torch.device | str) -> np.ndarray:
    """Return (T,) float32."""
    state, parts = None, []
    weight = next(model.parameters())
    for start in range(0, features.shape[0], _FRAMES):
        frames = torch.from_numpy(np.asarray(features[start : start + _FRAMES])).to(device, weight.dtype)
        logits, state = model.stream(frames[None], state)
        parts.append(logits[0].float().cpu())
    return torch.cat(parts).numpy()


def _groups(views: Sequence[View]) -> list[list[int]]:
    """Return numbers of the views to be averaged: those of an episode, unless each has labels of its own."""
    groups: dict[str, list[int]] = {}
    for number, view in enumerate(views):
        groups.setdefault(_key(view), []).append(number)
    return list(groups.values())


def _key(view: View) -> str:
    return f"{view.episode.key}-a{view.index}" if view.alone else view.episode.key


def _scores(group: Sequence[int], views: Sequence[View], logits: Mapping[int, np.ndarray]) -> EpisodeScores:
    """Return the scores of one episode, or of one of its views."""
    view = views[group[0]]
    several = {views[number].index: logits[number] for number in group}
    episode, labels = view.episode, view.scored
    return EpisodeScores(
        key=_key(view),
        name=episode.name,
        show=episode.show,
        split=episode.split,
        logit=mean_over_views(several) if len(group) > 1 else logits[group[0]],
        y=labels.y,
        mask=labels.mask,
        onsets=labels.onsets,
        spans=labels.spans,
        energy=episode.energy(),
        vad=episode.vad(),
        view_logits=several if len(group) > 1 else None,
        frame_rate=episode.frame_rate,
    )


def without_scores(views: Sequence[View]) -> list[EpisodeScores]:
    """Return what baselines learn from: labels, energy and voice activity of each group of views, with logits of 0."""
    zeros = {number: np.zeros(len(view.scored.y), np.float32) for number, view in enumerate(views)}
    return [_scores(group, views, zeros) for group in _groups(views)]
