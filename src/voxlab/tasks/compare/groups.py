"""Runs of one task, which share a table, with the figures that it shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from voxlab.tasks.compare import differences, figures, shares
from voxlab.tasks.compare.differences import Rows
from voxlab.tasks.compare.runs import Run
from voxlab.tasks.compare.shares import Shares


@dataclass(frozen=True)
class Group:
    """Runs of one task.

    Args:
        task: its name.
        runs: in the order of the table.
        names: figures of the table.
    """

    task: str
    runs: Sequence[Run]
    names: Sequence[str]

    @cached_property
    def settings(self) -> Rows:
        """What differs between their configurations; what differs between runs with figures comes first."""
        rows = differences.settings(self.runs)
        telling = differences.settings([run for run in self.runs if run.figures])
        return dict(sorted(rows.items(), key=lambda row: row[0] not in telling))

    @cached_property
    def shares(self) -> Shares:
        """Splits in which the runs have other shares of positives."""
        return shares.differing([run.figures for run in self.runs])

    @cached_property
    def best(self) -> dict[str, float | None]:
        """The best value of each figure, None where there is none, or none that runs could be ranked by."""
        ranked = [name for name in self.names if shares.can_rank(name, self.shares)]
        found = {name: figures.best(name, (run.figures.get(name) for run in self.runs)) for name in ranked}
        return {name: found.get(name) for name in self.names}


def by_task(runs: Sequence[Run], wanted: Sequence[str] | None) -> list[Group]:
    """Group runs by task, in the order in which tasks come up.

    Args:
        runs: of any tasks.
        wanted: names or patterns of figures; None: those that matter most in each task.

    Raises:
        UserError: no run has a figure of such a name.
    """
    named = figures.choose([run.figures for run in runs], wanted) if wanted is not None else None
    groups = []
    for task in dict.fromkeys(run.task for run in runs):
        own = [run for run in runs if run.task == task]
        known = [run.figures for run in own]
        names = figures.choose(known, None) if named is None else named
        present = [name for name in names if any(name in found for found in known)]
        groups.append(Group(task, own, present))
    return groups
