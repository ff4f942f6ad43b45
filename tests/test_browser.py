"""The page of a real comparison in a real browser, without network: players decode, images and tables are there."""

import html
import io
import json
import re
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from tests import main_process
from tests.laughter_stores import write_store

pytest.importorskip("aiohttp", reason="asks Chromium through the WebSocket client of aiohttp")
from tests import browser
from tests.browser import Ask, evaluate, resize, screenshot
from tests.tasks.laughter_runs import SMALL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium is installed"),
]
WIDTHS, NARROW = (1300, 800, 400), (800, 400)  # the wide table fits the first
CONVERT = [
    "task=convert",
    "data.source=sample",
    "data.num_files=1",
    "input=audio",
    "codec.weights=random",
    "device=cpu",
]
SCROLLED = """
(() => { const place = document.querySelector('section > .scroll'); place.scrollLeft = 200;
    const cell = place.querySelector('tbody td'), frame = place.getBoundingClientRect();
    return [place.scrollLeft, cell.getBoundingClientRect().left - frame.left, cell.offsetWidth / frame.width]; })()
"""
EDGE = """
(to => { const place = document.querySelector('section > .scroll'); place.scrollLeft = to ? 1e6 : 0;
    const frame = place.getBoundingClientRect(), row = place.querySelector('tbody td').getBoundingClientRect();
    return {x: frame.right - 5, y: row.bottom - 3, width: 2, height: 1, top: scrollY}; })
"""
RANKED = """
[...document.querySelector('section > .scroll table').querySelectorAll('.best')].map(mark =>
    mark.closest('table').rows[0].cells[mark.closest('td').cellIndex].querySelector('small').textContent)
"""
CUT = """
[...document.querySelectorAll('section > .scroll')].map(place => place.scrollWidth - place.clientWidth)
"""
LOADED = """
Promise.all([...document.querySelectorAll('audio')].map(player => player.readyState ? player.duration :
    new Promise(done => { player.onloadedmetadata = () => done(player.duration); player.onerror = () => done(-1); })))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two tasks, one of which failed, as users start them."""
    folder = tmp_path_factory.mktemp("browser")
    store = write_store(folder / "store", splits={"train": 6, "validation": 4, "test": 12}, frames=1500)
    words = [*SMALL, f"store={store}", "trainer.max_epochs=4", "eval.plots=all", "eval.bootstrap=100", "shift=2,5,-1"]
    done = main_process.run(["-m", *words, "hydra.sweep.dir=laughter"], folder)
    assert done.returncode == 1, done.stderr
    for name, codec in (("mel", "rvq_tiny"), ("wave", "rvq_wave_tiny")):
        done = main_process.run([*CONVERT, f"codec={codec}", f"hydra.run.dir=convert/{name}"], folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    words = ["task=compare", "runs=[laughter,'convert/*']", "hydra.run.dir=comparison"]
    done = main_process.run(words, folder)
    assert done.returncode == 0, done.stderr
    return folder / "comparison" / "report.html"


@pytest.fixture(scope="module")
def seen(page: Path) -> dict[str, Any]:
    """What the browser makes of the page."""

    async def brightness(ask: Ask, *, end: bool) -> float:
        """Return how bright the right edge of the wide table is, scrolled to its end or not."""
        place = await evaluate(ask, f"{EDGE.strip()}({'true' if end else 'false'})")
        image = matplotlib.image.imread(io.BytesIO(await screenshot(ask)))
        return float(image[int(place["y"] + place["top"]), int(place["x"]) : int(place["x"]) + 3, :3].mean())

    async def look(ask: Ask) -> dict[str, Any]:
        found: dict[str, Any] = {"durations": await evaluate(ask, LOADED)}
        images = "[...document.images].map(image => [image.naturalWidth, image.complete])"
        found["images"] = await evaluate(ask, images)
        rows = "[...document.querySelectorAll('section > .scroll table')].map(table => table.rows.length)"
        found["tables"] = await evaluate(ask, rows)
        found["headings"] = await evaluate(ask, "[...document.querySelectorAll('h2')].map(e => e.textContent)")
        found["best"] = await evaluate(ask, "[...document.querySelectorAll('.best')].map(e => e.textContent)")
        found["ranked"] = sorted(set(await evaluate(ask, RANKED)))
        found["swatches"] = await evaluate(
            ask, "[...document.querySelectorAll('.legend i')].map(e => getComputedStyle(e).backgroundColor)"
        )
        for width in WIDTHS:
            await resize(ask, width)
            found[f"overflow {width}"] = await evaluate(
                ask, "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            found[f"scroll {width}"] = await evaluate(ask, SCROLLED)
            found[f"cut {width}"] = await evaluate(ask, CUT)
            found[f"edge {width}"] = [await brightness(ask, end=end) for end in (False, True)]
        await resize(ask, 1200)
        found["light"] = await screenshot(ask)
        await resize(ask, 1200, dark=True)
        found["dark"] = await screenshot(ask)
        return found

    found, requests = browser.visit(page, look)
    return {**found, "requests": requests}


def test_players_decode(seen: dict[str, Any]) -> None:
    assert len(seen["durations"]) == 3  # the rows that both conversions show, whose questions are the same
    assert min(seen["durations"]) > 0.5


def test_images_are_drawn(seen: dict[str, Any]) -> None:
    assert len(seen["images"]) >= 10
    assert all(complete and width > 100 for width, complete in seen["images"])


def test_tables_curves_and_details_are_there(seen: dict[str, Any]) -> None:
    expected = ["Runs: laughter", "What differs: laughter", "Curves: laughter", "Runs: convert"]
    assert [heading for heading in expected if heading not in seen["headings"]] == []
    assert seen["headings"][-1] == "Details"
    assert seen["tables"][:2] == [4, 4]  # a header and three runs
    assert seen["ranked"] == ["test/ap_lift", "test/auroc"]  # of runs with other shares of positives
    assert len(seen["best"]) >= 3
    assert len(set(seen["swatches"])) == 2


def test_nothing_comes_from_elsewhere(page: Path, seen: dict[str, Any]) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?://", text)
    assert "<script" not in text
    assert [url for url in seen["requests"] if not url.startswith(("file:", "data:"))] == []


def test_it_fits_a_phone(seen: dict[str, Any]) -> None:
    assert [seen[f"overflow {width}"] for width in WIDTHS] == [0, 0, 0]


def test_a_wide_table_takes_the_window_before_it_scrolls(seen: dict[str, Any]) -> None:
    assert max(seen["cut 1300"]) == 0
    assert max(seen["cut 800"]) > 50


def test_a_shade_says_where_a_table_goes_on(seen: dict[str, Any]) -> None:
    for width in NARROW:
        before, after = seen[f"edge {width}"]
        assert before < after - 0.1
    assert seen["edge 1300"][0] == seen["edge 1300"][1] > 0.9


def test_the_wide_table_scrolls_in_its_place_and_its_first_column_stays(seen: dict[str, Any]) -> None:
    for width in NARROW:
        moved, left, share = seen[f"scroll {width}"]
        assert moved > 50
        assert 0 <= left <= 2
        assert share < 0.6


def test_it_has_a_light_and_a_dark_face(seen: dict[str, Any]) -> None:
    light, dark = (matplotlib.image.imread(io.BytesIO(seen[name]))[..., :3] for name in ("light", "dark"))
    assert light.shape[0] > 1500
    assert np.median(light) > 0.8
    assert np.median(dark) < 0.2
    assert light.std() > 0.05


def test_the_links_lead_to_the_pages_of_the_runs(page: Path) -> None:
    links = re.findall(r'<a href="([^#"]+)"', page.read_text(encoding="utf-8"))
    assert len(links) == 5  # two of laughter, two of convert, the page of the sweep
    assert [link for link in links if not (page.parent / link).is_file()] == []


def test_the_sweep_has_a_page_of_its_own(folder: Path) -> None:
    text = (folder / "laughter" / "report.html").read_text(encoding="utf-8")
    assert "3 runs of laughter" in text
    assert "1 of 3 runs are not done" in text
    error = json.loads((folder / "laughter" / "2" / "status.json").read_text())["error"]
    assert html.escape(error) in text
