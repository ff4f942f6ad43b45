"""rerun= of every task (a2g: test_a2g_launch): on one CPU the same figures, and the same bytes of what is written."""

import json
from pathlib import Path

import pytest
import torch

from tests.laughter_stores import write_store
from tests.main_process import run
from tests.tasks import laughter_runs, tokenizer_runs
from tests.tasks.test_convert import tokens, write_corpus
from tests.tiny_models import write_tiny_mimi, write_tiny_snac

pytestmark = pytest.mark.slow


def repeated(folder: Path, *words: str, now: tuple[str, ...] = ()) -> None:
    """Run as `first`, then again from its folder as `second`; the figures must be the same."""
    first = run([*words, "device=cpu", "hydra.run.dir=first"], folder)
    assert first.returncode == 0, first.stderr
    second = run(["rerun=first", "hydra.run.dir=second", *now], folder)
    assert second.returncode == 0, second.stderr
    found = json.loads((folder / "second" / "rerun.json").read_text())
    assert found["same_figures"] is True, found
    assert "the same figures as first" in second.stderr


def contents(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found
    return found


def test_convert(tmp_path: Path) -> None:
    write_tiny_snac(tmp_path / "snac")
    write_tiny_mimi(tmp_path / "mimi")
    write_corpus(tmp_path / "corpus", [tokens(3 + row, row) for row in range(3)])
    words = ["task=convert", "data.root=corpus", "source.weights=snac", "codec.weights=mimi", "codec.num_codebooks=8"]
    repeated(tmp_path, *words, "out=a", now=("out=b",))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_extract(tmp_path: Path) -> None:
    words = ["task=extract", "data=audiofolder", "data.source=sample", "data.root=tones", "features=logmel"]
    repeated(tmp_path, *words, "features.num_bins=16", "out=a", now=("out=b",))
    files = [contents(tmp_path / name) for name in ("a", "b")]
    assert files[0].keys() == files[1].keys()
    frames = [name for name in files[0] if not name.endswith(".json")]  # JSON tells the time of the extraction
    assert frames
    assert [name for name in frames if files[0][name] != files[1][name]] == []


def test_train_tokenizer(tmp_path: Path) -> None:
    steps = ["trainer.max_steps=8", "trainer.val_check_interval=4", "fit.warmup_steps=3", "fit.num_workers=0"]
    repeated(tmp_path, *tokenizer_runs.SMALL, *steps, "vocoder.iterations=2")
    assert contents(tmp_path / "first" / "codec") == contents(tmp_path / "second" / "codec")


def test_laughter(tmp_path: Path) -> None:
    write_store(tmp_path / "s", splits={"train": 6, "validation": 2, "test": 2}, frames=1500, events=5)
    repeated(tmp_path, *laughter_runs.SMALL, "store=s", "model=mlp", "model.hidden=8", "fit.batch_size=64")
    first, second = (laughter_runs.state(tmp_path / name) for name in ("first", "second"))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
