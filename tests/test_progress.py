"""Progress of long work: a bar with rate and time left on a terminal, a log line a minute elsewhere."""

import io
import logging
import sys
from pathlib import Path

import pytest
import torch

from voxlab import progress
from voxlab.data.sample import beat2
from voxlab.models.tokenizer.quantizer import ResidualQuantizer
from voxlab.progress import BulkProgress, track


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stderr a terminal; not in a fixture, after which pytest sets its own."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("TERM", "xterm")
    return screen


def test_elsewhere_a_line_a_minute_goes_to_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), BulkProgress(100, "training", "steps", done=10) as bar:
        for _ in range(20):
            now[0] += 6.5
            bar.advance(note="loss 0.5")
    assert [record.message for record in caplog.records] == [
        "training: 20 of 100 steps, 0.15 steps/s, 9 min left, loss 0.5",
        "training: 30 of 100 steps, 0.15 steps/s, 8 min left, loss 0.5",
    ]


def test_steps_are_told_seconds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with BulkProgress(100, "extract") as bar:
        assert not bar.is_due()  # work that takes a moment has no line at all
        due = []
        for _ in range(12):
            now[0] += 2.0
            due.append(bar.is_due())
    assert [number for number, is_due in enumerate(due) if is_due] == [2, 5, 8, 11]


def test_audio_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with BulkProgress(10, "convert") as bar:
        now[0] = 4.0
        bar.advance(2, 20.0)
    assert bar.rate == "0.50 rows/s, 5.0 x real time"


def test_a_terminal_shows_a_bar_and_the_ones_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    with BulkProgress(3, "training", "steps") as bar:
        assert list(track(range(4), "scoring", "views")) == [0, 1, 2, 3]
        bar.advance(note="loss 0.25")
    shown = terminal.getvalue()
    assert "training" in shown
    assert "scoring" in shown
    assert "1/3" in shown.rpartition("training")[2]
    assert "steps/s" in shown
    assert "loss 0.25" in shown
    assert progress._shown == []


def test_log_lines_go_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    handler = logging.StreamHandler(terminal)
    logging.getLogger().addHandler(handler)
    try:
        with BulkProgress(3, "training", "steps"):
            assert handler.stream is not terminal
            logging.getLogger("voxlab").warning("half way")
        assert handler.stream is terminal
    finally:
        logging.getLogger().removeHandler(handler)
    assert "half way" in terminal.getvalue()


def test_only_the_first_rank_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    monkeypatch.setenv("RANK", "1")
    with BulkProgress(3, "training", "steps") as bar:
        bar.advance()
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("drawn", [True, False])
def test_k_means_of_codebooks_and_samples_show_their_progress(
    drawn: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    terminal = terminal_of(monkeypatch) if drawn else None
    quantizer = ResidualQuantizer(4, num_codebooks=3, codebook_size=8)
    quantizer.initialize(torch.randn(200, 4, generator=torch.Generator().manual_seed(0)), 100, seed=0)
    monkeypatch.setattr(beat2, "_TAKES", beat2._TAKES[:1])
    beat2.write_sample(tmp_path / "beat")
    shown = terminal.getvalue() if terminal else capfd.readouterr().err
    assert ("k-means" in shown) == ("sample corpus" in shown) == drawn
    assert ("3/3" in shown) == ("1/1" in shown) == drawn
    beat2.write_sample(tmp_path / "beat")  # it is there
    assert (terminal.getvalue() if terminal else capfd.readouterr().err) == (shown if drawn else "")
