"""make bench: every benchmark, one after another, and what it prints into its place in benchmarks/README.md.

What a script prints on stdout is Markdown and stands between `<!-- name -->` and `<!-- /name -->`, below the command,
the day and the time it took; what explains it stands around that and is written by hand. A script that fails says so in
its place; the others run on, and the exit code is 1.

.venv/bin/python benchmarks/refresh.py            # all: about twenty minutes on two cores
.venv/bin/python benchmarks/refresh.py quantizer loader
"""

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from voxlab.storage import atomic_write_bytes

FOLDER = Path(__file__).resolve().parent
BASE = "--model a2g_base --codec motion_rvq_base --batch 8 --rounds 2 --seconds 4 --no-compile"
COMMANDS = {
    "convert": "convert.py --rows 6",
    "convert_memory": "convert_memory.py --long-rows 8",
    "encode": "encode.py --files 24 --rounds 3",
    "loader": "loader.py",
    "audit": "audit.py",
    "extract_rerun": "extract_rerun.py",
    "quantizer": "quantizer.py",
    "codec_speed": "codec_speed.py --repeats 3 --warm-ups 1",
    "train_tokenizer": "train_tokenizer.py --steps 20",
    "laughter_metrics": "laughter_metrics.py",
    "feature_loader": "feature_loader.py",
    "moshi_features": "moshi_features.py",
    "a2g_loading": "a2g_loading.py",
    "a2g_speed": "a2g_speed.py --rounds 3",
    "a2g_speed_base": f"a2g_speed.py {BASE}",
}
ONE_THREAD = {"laughter_metrics", "feature_loader", "a2g_loading", "a2g_speed", "a2g_speed_base"}


def refresh(page: Path, folder: Path, commands: Mapping[str, str]) -> list[str]:
    """Run scripts and put what they print into their places in the page, each as soon as it is done.

    Args:
        page: Markdown with a place for each name, and one for `machine`.
        folder: of the scripts.
        commands: name to script and arguments.

    Returns:
        The names of scripts that failed.

    Raises:
        SystemExit: the page has no place for one of them.
    """
    for name in ("machine", *commands):
        _split(page.read_text(encoding="utf-8"), name)
    _write(page, "machine", describe_machine())
    failed = []
    for number, (name, command) in enumerate(commands.items(), start=1):
        print(f"{number} of {len(commands)}: {command}", flush=True)
        text, passed = _run(name, folder, command)
        _write(page, name, text)
        failed += [] if passed else [name]
    return failed


def describe_machine() -> str:
    """Return one line: processor, cores, memory, versions, and how busy the machine is before it begins."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    model = next((line.partition(":")[2].strip() for line in cpu.splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    load = f"load {os.getloadavg()[0]:.1f} before the first script"
    name = model or platform.processor() or platform.machine()
    return f"Machine: {name}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()}, {versions}; {load}."


def _run(name: str, folder: Path, command: str) -> tuple[str, bool]:
    """Run a script; returns its block and whether it passed."""
    threads = {"OMP_NUM_THREADS": "1"} if name in ONE_THREAD else {}
    words, started = [sys.executable, *command.split()], time.monotonic()
    done = subprocess.run(words, cwd=folder, env=os.environ | threads, capture_output=True, text=True, check=False)
    took = f"{datetime.date.today()}, {time.monotonic() - started:.0f} s"
    prefix = "".join(f"{key}={value} " for key, value in threads.items())
    head = f"`{prefix}.venv/bin/python benchmarks/{command}` ({took}):"
    if done.returncode == 0:
        return f"{head}\n\n{done.stdout.strip()}", True
    print(done.stderr, file=sys.stderr)
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"{head}\n\n**Failed** with exit code {done.returncode}: {last}", False


def _split(text: str, name: str) -> tuple[str, str]:
    """Return what stands before and behind the place of a name."""
    before, opened, rest = text.partition(f"<!-- {name} -->\n")
    _, closed, behind = rest.partition(f"<!-- /{name} -->")
    if not opened or not closed:
        sys.exit(f"There is no place for {name}: write the lines <!-- {name} --> and <!-- /{name} --> into the page.")
    return before, behind


def _write(page: Path, name: str, block: str) -> None:
    before, behind = _split(page.read_text(encoding="utf-8"), name)
    text = f"{before}<!-- {name} -->\n{block}\n<!-- /{name} -->{behind}"
    atomic_write_bytes(page, text.encode())


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(COMMANDS)}; default: all")
    names = parser.parse_args(words).names or list(COMMANDS)
    unknown = sorted(set(names) - set(COMMANDS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(COMMANDS)}")
    failed = refresh(FOLDER / "README.md", FOLDER, {name: COMMANDS[name] for name in names})
    print(f"failed: {', '.join(failed)}" if failed else f"all in {FOLDER.name}/README.md")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
