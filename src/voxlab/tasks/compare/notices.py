"""What is to be known before figures are compared, a line each: on the page and in the terminal."""

from collections.abc import Iterator, Sequence

from voxlab.tasks.compare import differences
from voxlab.tasks.compare.groups import Group
from voxlab.tasks.compare.labels import label
from voxlab.tasks.compare.pages import find_problem, read_notices
from voxlab.tasks.compare.shares import can_rank

_PAGE = "report.html"
_DATA = ("data", "store", "stores")  # settings that decide what a run has seen
_OWN = 8  # different warnings of the runs' own pages
_NAMES = 12  # of runs in a line


def about(group: Group, names: Sequence[str]) -> Iterator[str]:
    """Yield what limits the comparison of a group, the runs called by `names`."""
    told = differences.settings([run for run in group.runs if run.figures])
    data = [key for key in told if key.partition(".")[0] in _DATA]
    if data:
        yield f"The runs read different data ({', '.join(data)}): mind that where figures are compared."
    yield from _shares(group)
    yield from _unreadable(group, names)
    yield from _own(group, names)


def _shares(group: Group) -> Iterator[str]:
    for split, (low, high) in group.shares.items():
        of_split = [name for name in group.names if name.startswith(f"{split}/")]
        fair = [name for name in of_split if can_rank(name, group.shares)]
        if len(fair) < len(of_split):
            called = " and ".join(f"{label(group.task, name) or name} ({name})" for name in fair)
            advice = f"compare {called}; no best is marked in the others" if fair else "no best is marked"
            yield (
                f"The runs have different shares of positives ({split}/prior {low:.3g} to {high:.3g}), which alone "
                f"moves most figures of {split}: {advice}."
            )


def _unreadable(group: Group, names: Sequence[str]) -> Iterator[str]:
    """Yield which pages of runs can't be read."""
    found: dict[str, list[str]] = {}
    for run, name in zip(group.runs, names, strict=True):
        if problem := find_problem(run.folder / _PAGE):
            found.setdefault(problem, []).append(name)
    for problem, having in found.items():
        yield f"{_PAGE} can't be read, its warnings, clips and plots are not shown: {problem} ({_list(having)})."


def _own(group: Group, names: Sequence[str]) -> Iterator[str]:
    """Yield the warnings that stand on the pages of the runs, each once with the runs that have it."""
    found: dict[str, list[str]] = {}
    measured = [(run, name) for run, name in zip(group.runs, names, strict=True) if run.figures]
    for run, name in measured:
        for text in dict.fromkeys(read_notices(run.folder / _PAGE)):
            found.setdefault(text, []).append(name)
    for text, having in list(found.items())[:_OWN]:
        is_all = len(having) == len(measured) > 1
        yield f"{text.removesuffix('.')} ({f'all {len(having)} runs of {group.task}' if is_all else _list(having)})."
    if len(found) > _OWN:
        yield f"{len(found) - _OWN} more warnings stand on the pages of the runs."


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return f"{'run' if len(names) == 1 else 'runs'} {', '.join(names[:_NAMES])}{more}"
