"""How long `task=extract features=...` would take: the first frames of the very recordings, written nowhere."""

import time
from collections.abc import Iterator, Sequence

from voxlab.audio import Seconds
from voxlab.data.items import AudioCorpus
from voxlab.features.base import Features, Recording
from voxlab.parallel import Ranks
from voxlab.tasks import estimate
from voxlab.tasks.extract.feature_load import load_view
from voxlab.tasks.extract.feature_plan import Episode

_ENOUGH = 5.0  # seconds after the first chunk


def expect_time(corpus: AudioCorpus, features: Features, todo: Sequence[Episode], ranks: Ranks) -> str:
    """Load the weights and extract for a few seconds; return what all episodes would take.

    Args:
        corpus: of the episodes.
        features: not loaded.
        todo: what is to be extracted, without those that can't be opened.
        ranks: this process among its peers.

    Raises:
        UserError, ValueError, OSError: the weights or the first recordings can't be used.
    """
    if not todo:
        return estimate.about(0, "nothing to do")
    begun = time.perf_counter()
    loaded = features.to(ranks.device)
    loading = time.perf_counter() - begun
    pace, frames = _measure(corpus, loaded, todo, ranks.device)
    rate = features.info.frame_rate
    seconds = sum(episode.duration * len(episode.views) for episode in todo)
    basis = f"{frames} frames measured, {1 / (pace * rate):.3g} x real time"
    return estimate.about(loading + pace * seconds * rate / ranks.world, basis)


def _measure(corpus: AudioCorpus, features: Features, todo: Sequence[Episode], device: str) -> tuple[Seconds, int]:
    """Return the seconds of a frame, and how many that rests on; what comes first is a warm-up if more comes."""
    marks, frames = [(time.perf_counter(), 0)], 0
    for chunk in features.stream(_recordings(corpus, features, todo)):
        frames += len(chunk.values) if chunk.name == "features" else 0
        estimate.wait_for(device)
        marks.append((time.perf_counter(), frames))
        if marks[-1][0] - marks[1][0] > _ENOUGH:
            break
    first, last = marks[1 if len(marks) > 2 and marks[1][1] < frames else 0], marks[-1]
    if last[1] == first[1]:
        raise ValueError("the first recordings have no frames")
    return (last[0] - first[0]) / (last[1] - first[1]), last[1] - first[1]


def _recordings(corpus: AudioCorpus, features: Features, todo: Sequence[Episode]) -> Iterator[Recording]:
    for episode in todo:
        for view in episode.views:
            loaded = load_view(corpus, episode, view, features.info)
            sides = [(loaded.agent, loaded.other)]
            yield Recording(f"{episode.item.id}#{view.index}", loaded.num_frames, sides.pop, loaded.words)
