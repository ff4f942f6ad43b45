"""A hook of mkdocs: pages that lie outside of docs/, and conf/ as one page.

Links in the repository's pages lead to files (../recipes/laughter/README.md, ../conf/task/convert.yaml); on the site
they are turned to the page of that file.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
GUESTS = ("CONTRIBUTING.md", "benchmarks/README.md", "recipes/README.md", "recipes/*/README.md", "recipes/*/*.png")
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures from elsewhere, and the page of the configuration."""
    for path in sorted(path for pattern in GUESTS for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(File.generated(config, "configuration.md", content=_configuration()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    name = page.file.src_uri
    folder = posixpath.dirname(name if (ROOT / name).is_file() else f"docs/{name}")
    here = posixpath.dirname(name)

    def turned(match: re.Match[str]) -> str:
        path, anchor = match[1], match[2] or ""
        target, place = _on_site(posixpath.normpath(posixpath.join(folder, path)))
        return f"]({posixpath.relpath(target, here or '.')}{place or anchor})"

    return LINK.sub(turned, markdown)


def _on_site(path: str) -> tuple[str, str]:
    """Return the page of the site for a file or folder of the repository, and the place in that page."""
    option = re.fullmatch(r"conf/(\w+)/(\w+)\.yaml", path)
    if option:
        return "configuration.md", f"#{option[1]}-{option[2]}"
    if path == "conf":
        return "configuration.md", ""
    if (ROOT / path).is_dir():
        path = f"{path}/README.md"
    return ("index.md" if path == "README.md" else path.removeprefix("docs/")), ""


def _configuration() -> str:
    """Return every file of conf/ as a section: the comments in them are the reference of the keys."""
    lines = [
        "# Configuration",
        "",
        "Every option of every group, as it stands in `conf/`: the keys that a command line can set, with their "
        "defaults. `python main.py task=laughter --cfg job --resolve` prints those of a run.",
        "",
        *_section("config.yaml", "root", ROOT / "conf" / "config.yaml"),
    ]
    for folder in sorted(path for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "hydra"):
        for path in sorted(folder.glob("*.yaml")):
            lines += _section(f"{folder.name}={path.stem}", f"{folder.name}-{path.stem}", path)
    return "\n".join(lines)


def _section(title: str, anchor: str, path: Path) -> list[str]:
    return [f"## {title} {{#{anchor}}}", "", "```yaml", path.read_text(encoding="utf-8").rstrip(), "```", ""]
