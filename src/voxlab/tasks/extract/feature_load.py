"""Audio and annotation of one view of one episode, checked, with what is stored beside its features."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voxlab import audio
from voxlab.audio import Seconds
from voxlab.data.episodes import Annotation, Event, View, Word
from voxlab.data.feature_store import as_episodes
from voxlab.data.items import AudioCorpus
from voxlab.data.laughter_labels import LabelSettings, compute_labels
from voxlab.data.names import inflected
from voxlab.features.base import FeatureInfo
from voxlab.tasks.extract.feature_plan import Episode

log = logging.getLogger(__name__)

_SLACK = 1.02  # of the audio's duration: as far as annotation may reach
_QUIETEST = 1e-10  # of full scale, squared: -100 dB
_FRAME_SLACK = 1e-6


@dataclass(frozen=True)
class Beside:
    """What an episode has besides its features; None: its corpus has nothing of the kind.

    Attributes:
        duration: in seconds.
        energy: (T,) float32, see `frame_levels`.
        events: all of them.
        vad: (T,) float32, see `pool_vad`.
    """

    duration: Seconds
    energy: np.ndarray
    events: tuple[Event, ...] | None
    vad: np.ndarray | None


@dataclass(frozen=True)
class Loaded:
    """One view: both sides (1, S) at the features' rate, its frames, its words; `beside` comes with the first view."""

    agent: Tensor | None
    other: Tensor
    num_frames: int
    words: Callable[[], Sequence[Word]] | None
    beside: Beside | None


def load_view(corpus: AudioCorpus, episode: Episode, view: View, info: FeatureInfo) -> Loaded:
    """Read one view of an episode.

    Raises:
        OSError, ValueError, UserError: the audio or the annotation is damaged, or they don't belong together.
    """
    item, episodes = episode.item, as_episodes(corpus)
    if episodes is None:
        own, rate = audio.load(item.read())
        agent, other, words = None, audio.resample(audio.to_mono(own), rate, info.sample_rate), None
    else:
        agent, other = episodes.sides(item, view, info.sample_rate)
        words = lambda: episodes.words_of(item, view)  # noqa: E731
    num_frames = audio.compute_num_frames(other.shape[-1], info.hop_length)
    beside = None
    if view == episode.views[0]:
        heard = other if agent is None else agent + other
        if not heard.any():
            log.warning("%s is digital silence", item.path)
        levels = frame_levels(heard, info.hop_length)
        duration = audio.compute_duration(other.shape[-1], info.sample_rate)
        annotation = None if episodes is None else episodes.annotation(item)
        beside = _beside(annotation, levels, duration, episode, info.frame_rate)
    return Loaded(agent, other, num_frames, words, beside)


def _beside(
    annotation: Annotation | None, levels: np.ndarray, duration: Seconds, episode: Episode, frame_rate: float
) -> Beside:
    if annotation is None:
        return Beside(duration, levels, None, None)
    check_duration(annotation, duration)
    if len(levels) > 1:  # what can't be labelled must not be found out after hours, in the summary
        _check_labels(annotation.events, len(levels), episode, frame_rate)
    vad = None if annotation.vad is None else pool_vad(annotation.vad, len(levels), frame_rate)
    return Beside(duration, levels, annotation.events, vad)


def _check_labels(events: Sequence[Event], num_frames: int, episode: Episode, frame_rate: float) -> None:
    """Refuse events that no setting of labels can use; those of unknown speakers are left to these settings."""
    settings = LabelSettings(shift=1, unknown_speaker="ignore", frame_rate=frame_rate)
    labels = compute_labels(events, num_frames, settings, known_speakers=episode.speakers, name=episode.name)
    unknown = labels.counts["n_unknown_speaker"]
    if unknown:
        log.warning(
            "%s: %s of speakers whom its diarization doesn't know (%s); task=laughter refuses or masks them",
            *(episode.name, inflected("{} laughter [event is|events are]", unknown), ", ".join(episode.speakers or ())),
        )


def check_duration(annotation: Annotation, duration: Seconds) -> None:
    """Compare the ends of events and words with that of the audio.

    Raises:
        ValueError: one is more than 2 % beyond.
    """
    ends = {"event": annotation.events, "word": annotation.words or ()}
    for kind, spans in ends.items():
        last = max((span.end for span in spans), default=0.0)
        if last > duration * _SLACK:
            raise ValueError(
                f"annotation does not match audio: its last {kind} ends at {last:.2f} s, the audio at {duration:.2f} s"
            )


def frame_levels(wav: Tensor, hop_length: int) -> np.ndarray:
    """Compute the RMS level of each frame in dB of full scale, at least -100: (1, S) -> (T,) float32."""
    num_frames = audio.compute_num_frames(wav.shape[-1], hop_length)
    padded = torch.nn.functional.pad(wav[0], (0, num_frames * hop_length - wav.shape[-1]))
    power = padded.view(num_frames, hop_length).square().mean(1)
    return (10 * torch.log10(power.clamp_min(_QUIETEST))).numpy()


def pool_vad(vad: np.ndarray, num_frames: int, frame_rate: float) -> np.ndarray:
    """Average voice activity over frames.

    Args:
        vad: (n, 2) time in seconds, activity 0 to 1.
        num_frames: T; what comes later is left out.
        frame_rate: frames a second.

    Returns:
        (T,) float32; 0 where a frame has no value.
    """
    frames = np.floor(vad[:, 0].astype(np.float64) * frame_rate + _FRAME_SLACK).astype(np.int64)
    inside = (frames >= 0) & (frames < num_frames)
    sums = np.bincount(frames[inside], vad[inside, 1], num_frames)
    counts = np.bincount(frames[inside], minlength=num_frames)
    return (sums / np.maximum(counts, 1)).astype(np.float32)
