"""The page of stage=test of a motion tokenizer: errors beside baselines, error by codebooks, use of the codebooks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlab.metrics.codes import CodebookUse
from voxlab.plots import plot_curves
from voxlab.report import facts, figure, table, write_report

_COLUMNS = {
    "mse": "MSE (normalised)",
    "l1": "L1 (normalised)",
    "velocity_l1": "velocity L1 (normalised)",
    "degrees": "degrees",
}


def write_page(
    run_dir: Path,
    about: Mapping[str, Any],
    errors: Mapping[str, Mapping[str, float]],
    books: Sequence[CodebookUse],
) -> Path:
    """Write `report.html`; returns its path.

    Args:
        run_dir: where.
        about: part, weights, split, clips.
        errors: method -> measure -> value; "codec" is the first.
        books: use of the codebooks.
    """
    names = [name for name in _COLUMNS if name in errors["codec"]]
    rows = [[method, *(row[name] for name in names)] for method, row in errors.items()]
    by_count = [row["mse"] for method, row in errors.items() if method.startswith("first")] + [errors["codec"]["mse"]]
    curve = {"kept codebooks": (list(range(1, len(by_count) + 1)), by_count)}
    uses = [[n, book.used, book.codebook_size, book.perplexity, book.ceiling] for n, book in enumerate(books, 1)]
    sections = [
        facts("Codec", {name.replace("_", " "): value for name, value in about.items()}),
        table("Errors of reconstruction", ["method", *(_COLUMNS[name] for name in names)], rows),
        figure("Error by codebooks", plot_curves(curve, "first codebooks kept", "MSE (normalised)")),
        table("Codebooks", ["codebook", "used", "of", "perplexity", "share expected of so few codes"], uses),
    ]
    return write_report(run_dir / "report.html", "Motion tokenizer", str(run_dir), sections)
