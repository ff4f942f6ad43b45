"""Pages of several runs on one: python recipes/tour/page.py OUT.html "Title=report.html" ..."""

import re
import sys
from pathlib import Path

from voxlab.report import Section, write_report


def read_section(title: str, page: Path, number: int) -> Section:
    """Take what a report shows, with names of its own for the places in it."""
    found = re.search(r"<main>(.*)</main>", page.read_text(encoding="utf-8"), re.DOTALL)
    if found is None:
        raise SystemExit(f"{page} is no report of a run")
    return Section(title, found[1].replace('id="section-', f'id="run-{number}-section-'))


def main() -> None:
    out, *pages = sys.argv[1:]
    pairs = [page.rpartition("=") for page in pages]
    sections = [read_section(title, Path(path), number) for number, (title, _, path) in enumerate(pairs)]
    write_report(Path(out), "A tour of voxlab", "synthetic corpora, small or random networks", sections)


if __name__ == "__main__":
    main()
