"""Tables of metrics for the page and for the terminal, and the published figures beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

from voxlab import report
from voxlab.report import Section
from voxlab.tasks.a2g.protocols import PROTOCOLS

Records = Mapping[str, Mapping[str, Any]]  # method -> record of `evaluate`
_NOTES = (
    "FGDs of different networks don't compare; nor does any with published ones, but that of EMAGE's network. Beat "
    "consistency is to be near that of the ground truth, not high: white noise scores above real motion, and motion "
    "shifted by half a second about as much. A prediction that stands still has the lowest jerk and foot skate."
)
# FGD ×10, BC ×10, diversity, face MSE ×1e8, face LVD (of positions) ×1e5, each as its authors or later tables print it.
PUBLISHED: dict[str, tuple[float | None, ...]] = {
    "DisCo": (9.417, 6.439, 9.912, None, None),
    "CaMN": (6.644, 6.769, 10.86, None, None),
    "DiffStyleGesture": (8.811, 7.241, 11.49, None, None),
    "Habibie et al.": (9.040, 7.716, 8.213, None, None),
    "TalkSHOW": (6.209, 6.947, 13.47, 7.791, 7.771),
    "DiffSHEG": (8.986, 7.142, 11.91, 7.665, 8.673),
    "SynTalker": (6.413, 7.971, 12.72, None, None),
    "EMAGE": (5.512, 7.724, 13.06, 7.680, 7.556),
    "Language of Motion": (5.301, 7.780, 15.17, None, None),
    "SemTalk": (4.278, 7.770, 12.91, 6.153, 6.938),
    "GestureLSM": (4.08, 7.14, 13.24, None, None),
}


def metric_rows(records: Records, protocol: str) -> tuple[list[str], list[list[Any]]]:
    """Return column names and a row for each method; columns that no method has are left out.

    Args:
        records: method -> record, of the same clips.
        protocol: whose columns.
    """
    columns = [
        column
        for column in PROTOCOLS[protocol]
        if any(record["headline"].get(column.title) is not None for record in records.values())
    ]
    rows = [
        [method, *(record["headline"].get(column.title) for column in columns)] for method, record in records.items()
    ]
    return ["method", *(column.title for column in columns)], rows


def metric_table(records: Records, protocol: str) -> list[Section]:
    """Return the sections of a page: the table, parts, joints' sources, and what could not be measured."""
    first = next(iter(records.values()))
    names, rows = metric_rows(records, protocol)
    sections = [report.table("Metrics", names, rows), report.notice(_NOTES, "info"), _parts(records)]
    if first["fgd"]:
        sections.append(_distances(records))
    missing = [[method, name, why] for method, record in records.items() for name, why in _gaps(record)]
    if missing:
        sections.append(report.table("Not measured", ["method", "measure or clip", "reason"], missing))
    return [*sections, report.facts("How it was measured", first["about"])]


def _gaps(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [*record["skipped"].items(), *record["left_out"].items()]


def _parts(records: Records) -> Section:
    first = next(iter(records.values()))["values"]
    parts = [name.removeprefix("mse/") for name in first if name.startswith("mse/")]
    measures = {"mse": "MSE", "velocity_l1": "velocity L1", "std_ratio": "spread"}
    columns = [(f"{part} {title}", f"{name}/{part}") for part in parts for name, title in measures.items()]
    rows = [[method, *(record["values"].get(name) for _, name in columns)] for method, record in records.items()]
    return report.table("Parts, normalised", ["method", *(title for title, _ in columns)], rows)


def _distances(records: Records) -> Section:
    columns = ["method", "FGD", "value", "network", "numbers", "vectors", "of the reference", "train against reference"]
    keys = ("net", "dim", "predicted", "reference", "train_against_reference")
    rows = [
        [method, name, record["values"][name], *(found[key] for key in keys)]
        for method, record in records.items()
        for name, found in record["fgd"].items()
    ]
    return report.table("Fréchet distances", columns, rows)


def published_table() -> Section:
    """Return the figures that papers print for speaker 2 of BEAT2, in their scale."""
    columns = ["method", *(column.title for column in PROTOCOLS["paper2024"])]
    return report.table("Published, speaker 2", columns, [[name, *values] for name, values in PUBLISHED.items()])


def metric_text(records: Records, protocol: str) -> str:
    """Return the table as aligned text for the terminal: a line for each method."""
    names, rows = metric_rows(records, protocol)
    cells = [names, *([str(row[0]), *map(_spell, row[1:])] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(names))]
    return "\n".join(_align(line, widths) for line in cells)


def _spell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _align(line: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
    return "  ".join([f"{first.strip():<{widths[0]}}", *others])
