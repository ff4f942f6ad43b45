"""main.py several times in the place of one, for a launcher: forked from this process, which has the imports done.

python tests/launched_main.py JOBS, where JOBS is a JSON file with [{"folder": ..., "words": [...]}, ...].

Each fork gets what the launcher has told this process, and one more restart: the agent's store, where the ranks meet,
keeps apart what belongs to different attempts.
"""

import importlib
import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def run_forked(folder: str, words: list[str], attempt: int) -> int:
    """Run main.py in a fork; returns its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(attempt)
    os.chdir(folder)
    sys.argv = [str(ROOT / "main.py"), *words]
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Run all jobs one after the other, to the first that fails."""
    sys.path.insert(0, str(ROOT))
    from tests.main_process import HEAVY

    for name in HEAVY:
        importlib.import_module(name)
    jobs: list[dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text())
    for attempt, job in enumerate(jobs):
        code = run_forked(job["folder"], job["words"], attempt)
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
