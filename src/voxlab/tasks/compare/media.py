"""Players, videos and plots that several runs have in common, side by side, from the pages of the runs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from voxlab import report
from voxlab.report import Media, Section
from voxlab.tasks.compare.pages import Place, read_page
from voxlab.tasks.compare.runs import Run

_CLIPS = 12  # that are shown, of all that runs have in common
_OPEN_PLOTS = 4  # with more of them each is folded away under its name
_LARGEST = 8_000_000  # bytes; a larger clip is left to the page of its run

_Found = dict[str, Media]  # title of a run -> what it shows at some place


def sections(runs: Sequence[Run], most: int) -> Iterator[Section]:
    """Yield what at least two of the first `most` runs with clips or plots show at the same place of their pages."""
    read = ((run.title, read_page(run.folder / "report.html")) for run in runs)
    having = list(islice(((title, page) for title, page in read if page.clips or page.plots), most + 1))
    pages = dict(having[:most])
    clips = _common({title: page.clips for title, page in pages.items()})
    shown = {name: found for name, found in clips.items() if _size(found) <= _LARGEST}
    groups = [report.gallery(name, list(_merged(found, len(pages)))) for name, found in list(shown.items())[:_CLIPS]]
    if groups:
        yield report.folds("Listen and watch", groups, opened=True)
    if len(groups) < len(clips):
        yield report.notice(f"{len(groups)} of {len(clips)} clips are shown; the pages of the runs have all.", "info")
    plots = _common({title: page.plots for title, page in pages.items()})
    groups = [report.gallery(name, list(_merged(found, len(pages)))) for name, found in plots.items()]
    if groups:
        yield report.folds("Plots side by side", groups, opened=len(groups) <= _OPEN_PLOTS)
    if len(having) > most:
        yield report.notice(f"Clips and plots: of the first {most} runs that have any (media={most}).", "info")


def _common(pages: Mapping[str, Mapping[Place, Media]]) -> dict[str, _Found]:
    """Return heading -> title of a run -> what is there, for places that two runs or more have."""
    places = dict.fromkeys(place for page in pages.values() for place in page)
    found = {
        _heading(*place): {title: page[place] for title, page in pages.items() if place in page} for place in places
    }
    return {heading: held for heading, held in found.items() if len(held) > 1}


def _heading(title: str, label: str, count: int) -> str:
    return ": ".join(part for part in (title, label) if part) + (f" ({count + 1})" if count else "")


def _size(found: _Found) -> int:
    return max(len(media.data) for media in found.values())


def _merged(found: _Found, runs: int) -> Iterator[Media]:
    """Yield each different thing once, called by the runs that have it."""
    titles: dict[bytes, list[str]] = {}
    for title, media in found.items():
        titles.setdefault(media.data, []).append(title)
    for data, names in titles.items():
        label = "the same in all runs" if len(names) == runs else "; ".join(names)
        yield Media(label, found[names[0]].kind, data)
