"""Recordings to frames of features, with their events: a store that `task=laughter` trains on.

python main.py task=extract data=podcastfillers features=moshi
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlab.data.feature_store import INDEX
from voxlab.data.items import AudioCorpus
from voxlab.data.store_writer import begin_store, store_folder, write_index
from voxlab.errors import UserError
from voxlab.features.base import Features
from voxlab.parallel import Ranks, barrier, gather
from voxlab.progress import BulkProgress
from voxlab.storage import atomic_write_bytes
from voxlab.tasks.extract import feature_summary as summary
from voxlab.tasks.extract.feature_plan import (
    Episode,
    check_space,
    estimate_bytes,
    flags_of,
    pending,
    plan_episodes,
    settings_of,
    share,
)
from voxlab.tasks.extract.feature_work import Done, Extraction, failure

_VERIFY = ("size", "hash")


def extract_features(
    corpus: AudioCorpus,
    features: Features,
    out: str,
    *,
    verify: str,
    max_bad: float,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
) -> dict[str, Any]:
    """Extract every recording of a corpus that the store doesn't hold yet.

    The store is `<out>/<fingerprint>`, so other settings never meet in one folder. The same call again goes on where an
    earlier one stopped; several calls may work on one store. The bytes depend neither on that nor on the ranks.

    Args:
        corpus: recordings, with events or without.
        features: what to extract.
        out: folder of the stores.
        verify: what is there counts as done when its files have their "size", or their "hash" (reads all of them).
        max_bad: fail at the end when more recordings (a fraction) than this have no features.
        dry_run: print the plan and write nothing.
        ranks: this process among its peers.
        run_dir: folder of this run, for the report page.

    Returns:
        Counts, hours, sizes and class priors.

    Raises:
        UserError: wrong settings, no recordings, missing weights, or too little room on the disk.
        TooManyBadItems: more recordings failed than `max_bad` allows.
    """
    if verify not in _VERIFY:
        raise UserError(f"verify={verify}: choose {' or '.join(_VERIFY)}.")
    if ranks.is_first and not dry_run:
        corpus.prepare()
    barrier(ranks)
    items = corpus.items()
    settings = settings_of(features, corpus)
    store = store_folder(Path(out), settings)
    episodes = plan_episodes(corpus, items, store)
    verify_hash = verify == "hash"
    todo = _pending(episodes, ranks, verify_hash)
    if dry_run:
        return summary.describe_plan(corpus, features, store, episodes, todo, ranks)
    check_space(store, estimate_bytes(todo, features.info))
    if ranks.is_first:
        _begin(Path(out), settings, corpus, features, episodes, todo)
    barrier(ranks)
    done = _run(corpus, features, store, settings, todo, ranks, verify_hash)
    return summary.finish(store, settings, episodes, gather(ranks, done), max_bad, ranks, run_dir)


def _pending(episodes: Sequence[Episode], ranks: Ranks, verify_hash: bool) -> list[Episode]:
    """Return what is to be done, the longest first; every rank looks at its share of the files."""
    own = pending(episodes[ranks.rank :: ranks.world], verify_hash=verify_hash)
    ids = {item_id for part in gather(ranks, [episode.item.id for episode in own]) for item_id in part}
    todo = [episode for episode in episodes if episode.item.id in ids]
    return sorted(todo, key=lambda episode: (-episode.duration, episode.item.id))


def _begin(
    out: Path,
    settings: Mapping[str, Any],
    corpus: AudioCorpus,
    features: Features,
    episodes: Sequence[Episode],
    todo: Sequence[Episode],
) -> None:
    """Write what the store is, and that it isn't finished."""
    store = begin_store(out, settings, flags_of(settings), _asked(features))
    licences = summary.licences(corpus, features)
    if not (store / summary.LICENCES).is_file():
        atomic_write_bytes(store / summary.LICENCES, licences.encode())
    if todo or not (store / INDEX).is_file():
        missing = {episode.item.id: episode.error or "not extracted yet" for episode in todo}
        write_index(store, {episode.item.id: episode.item.split for episode in episodes}, missing, accepted=False)


def _asked(features: Features) -> dict[str, str]:
    """Return by what name weights were asked for."""
    weights = getattr(features, "weights", None)
    return {} if weights is None else {"weights": str(weights)}


def _run(
    corpus: AudioCorpus,
    features: Features,
    store: Path,
    settings: Mapping[str, Any],
    todo: Sequence[Episode],
    ranks: Ranks,
    verify_hash: bool,
) -> Done:
    """Do this rank's share; recordings that can't be opened are failures of the first rank."""
    bad = [failure(episode.item, "open", episode.error) for episode in todo if episode.error]
    own = share([episode for episode in todo if not episode.error], ranks.rank, ranks.world)
    done = Done()
    if own:
        with BulkProgress(len(own), "extract") as progress:
            loaded = features.to(ranks.device)
            work = Extraction(corpus, loaded, store, settings, ranks.device, progress, verify_hash=verify_hash)
            done = work.run(own)
    if ranks.is_first:
        done.failures += bad
    return done
