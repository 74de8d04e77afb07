"""The rating page in a real headless browser, keyboard and all; skipped where no Chromium is installed."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromium import Browser, find_chromium
from morphogen.cli import main
from morphogen.rating.draw import draw
from morphogen.rating.page import PAGE, read_key, write_page

Folders = tuple[Path, Path]
SCORES = [4, 1, 5, 2, 3, 5, 1, 2, 4, 3, 5, 2, 1]
CONFIDENCES = [3, 1, 2, 3, 2, 1, 1, 3, 2, 3, 1, 2, 2]
TOTAL = len(SCORES)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium or Chrome is installed")
    with Browser(program, tmp_path / "profile") as found:
        found.downloads(tmp_path)
        yield found


def begin(browser: Browser, page: Path, name: str) -> None:
    browser.open((page / PAGE).as_uri())
    browser.type(name)
    browser.press("Enter")


def rate(browser: Browser, first: int, last: int) -> list[str]:
    """Type the answers to the images from `first` to before `last`; the pictures that were in view, as data URIs."""
    seen = []
    for i in range(first, last):
        assert browser.run("document.getElementById('count').textContent") == f"{i + 1} of {TOTAL}"
        seen.append(browser.run("document.getElementById('image').src"))
        browser.press(str(SCORES[i]))
        browser.press("qwe"[CONFIDENCES[i] - 1])
    return seen


def saved(browser: Browser, folder: Path, button: str) -> Path:
    """The file that a click on `button` downloads."""
    before = set(folder.glob("answers-*.json"))
    browser.click(button)
    browser.until(lambda: set(folder.glob("answers-*.json")) - before, "a saved file")
    (file,) = set(folder.glob("answers-*.json")) - before
    return file


def is_synthetic(uri: str, folders: Folders) -> bool:
    """Whether a picture of the page has the pixels of a file in the synthetic folder, which are of its size."""
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    files = [np.asarray(Image.open(path).convert("RGB")) for path in (folders[0] / "images").iterdir()]
    return any(np.array_equal(shown, file) for file in files)


def test_from_the_first_key_to_the_scores(browser: Browser, folders: Folders, page: Path, tmp_path: Path) -> None:
    """Name, half of the answers, a reload, the other half, the file, and scores that are those typed."""
    begin(browser, page, "Dr. Ada")
    seen = rate(browser, 0, 6)
    browser.press(str(SCORES[6]))  # a score without a confidence, kept too
    browser.reload()
    assert browser.run("document.getElementById('rater').value") == "Dr. Ada"
    assert "6 of 13 are rated" in browser.run("document.getElementById('found').textContent")
    browser.press("Enter")
    assert browser.run("document.querySelector('[data-score][aria-pressed=true]').dataset.score") == str(SCORES[6])
    seen += rate(browser, 6, TOTAL)
    assert browser.run("!document.getElementById('done').hidden")
    file = saved(browser, tmp_path, "#save-all")
    assert file.name.startswith("answers-dr-ada-")
    answers = json.loads(file.read_text())
    assert json.loads(browser.run("document.getElementById('text').value"))["answers"] == answers["answers"]
    assert (answers["rater"], answers["rated"], answers["study"]) == ("Dr. Ada", TOTAL, read_key(page)["study"])
    assert [row["score"] for row in answers["answers"]] == SCORES
    assert [row["confidence"] for row in answers["answers"]] == CONFIDENCES
    assert all(0 <= row["seconds"] < 60 for row in answers["answers"])

    result_file = tmp_path / "result.json"
    assert main(["rate", "--import", str(file), "--out", str(page), "--json", str(result_file)]) == 0
    result = json.loads(result_file.read_text())
    again = {name for name, showing in read_key(page)["showings"].items() if showing["repeats"]}
    first = [i for i, row in enumerate(answers["answers"]) if row["id"] not in again]
    for kind, wanted in (("synthetic", True), ("real", False)):
        typed = [i for i in first if is_synthetic(seen[i], folders) == wanted]
        assert len(typed) == 5
        assert result["mos"][kind]["mean"] == pytest.approx(np.mean([SCORES[i] for i in typed]))
        weights = [CONFIDENCES[i] for i in typed]
        mean = np.average([SCORES[i] for i in typed], weights=weights)
        assert result["weighted"][kind]["mean"] == pytest.approx(mean)


def test_moving_undoing_and_changing(browser: Browser, page: Path, tmp_path: Path) -> None:
    def count() -> str:
        return str(browser.run("document.getElementById('count').textContent"))

    def chosen() -> list[str]:
        return list(browser.run("[...document.querySelectorAll('[aria-pressed=true]')].map(b => b.textContent)"))

    begin(browser, page, "ben")
    browser.press("Enter")
    assert "score first" in browser.run("document.getElementById('hint').textContent")
    browser.press("q")
    browser.press("ArrowRight")
    assert (count(), chosen()) == ("1 of 13", ["QUnsure"])
    browser.press("3")  # both are given now, in either order
    assert (count(), chosen()) == ("2 of 13", [])
    browser.type("5e")
    browser.press("Backspace")
    assert (count(), chosen()) == ("2 of 13", ["5Excellent"])
    browser.press("Backspace")
    assert (count(), chosen()) == ("2 of 13", [])
    browser.press("ArrowLeft")
    assert (count(), chosen()) == ("1 of 13", ["3Fair", "QUnsure"])
    browser.press("ArrowLeft")
    browser.press("2")  # a change stays in view
    assert (count(), chosen()) == ("1 of 13", ["2Poor", "QUnsure"])
    browser.press("Enter")
    assert count() == "2 of 13"
    browser.press("ArrowRight")
    assert count() == "2 of 13"
    browser.click("[data-score='4']")
    browser.click("[data-confidence='2']")
    assert count() == "3 of 13"
    browser.press("й", "KeyQ")  # a Cyrillic keyboard: the place of the key counts
    assert chosen() == ["QUnsure"]
    rows = json.loads(saved(browser, tmp_path, "#save").read_text())["answers"]
    assert [(row["position"], row["score"], row["confidence"]) for row in rows] == [(1, 2, 1), (2, 4, 2)]


def test_answers_go_on_in_another_browser(browser: Browser, folders: Folders, page: Path, tmp_path: Path) -> None:
    begin(browser, page, "eva")
    rate(browser, 0, 4)
    file = saved(browser, tmp_path, "#save")
    write_page(draw(*folders, n=5, repeats=3, seed=9), tmp_path / "other", {})
    program = find_chromium()
    assert program is not None
    (tmp_path / "later").mkdir()
    with Browser(program, tmp_path / "fresh") as fresh:
        fresh.downloads(tmp_path / "later")
        fresh.open((tmp_path / "other" / PAGE).as_uri())
        fresh.choose("#load", file)
        fresh.wait("document.getElementById('fault').textContent === 'These answers belong to another page.'")
        fresh.open((page / PAGE).as_uri())
        assert fresh.run("document.getElementById('rater').value") == ""
        fresh.choose("#load", file)
        fresh.wait("!document.getElementById('rate').hidden")
        rate(fresh, 4, TOTAL)
        rows = json.loads(saved(fresh, tmp_path / "later", "#save-all").read_text())
    assert rows["rater"] == "eva"
    assert [row["score"] for row in rows["answers"]] == SCORES


def test_every_rater_has_an_order_of_his_own(browser: Browser, page: Path) -> None:
    orders = []
    for name in ("ada", " Ada ", "ben"):
        browser.open((page / PAGE).as_uri())
        browser.run("localStorage.clear()")
        begin(browser, page, name)
        orders.append(rate(browser, 0, TOTAL))
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    for order in orders:  # 13 showings of 10 pictures, repeats well apart
        places = [[i for i, shown in enumerate(order) if shown == uri] for uri in set(order)]
        assert min(two[1] - two[0] for two in places if len(two) == 2) >= 3


def test_another_rater_types_over_the_name_of_the_last(browser: Browser, page: Path) -> None:
    begin(browser, page, "ada")
    rate(browser, 0, 1)
    browser.open((page / PAGE).as_uri())
    assert browser.run("document.getElementById('rater').value") == "ada"
    browser.type("ben")
    assert browser.run("document.getElementById('rater').value") == "ben"


def test_two_windows_of_one_rater_share_their_answers(browser: Browser, page: Path, tmp_path: Path) -> None:
    begin(browser, page, "ada")
    rate(browser, 0, 2)
    browser.run("""{
        const name = Object.keys(localStorage).find(name => name.endsWith(":ada"));
        const other = JSON.parse(localStorage.getItem(name));
        const {pictures, showings} = JSON.parse(document.getElementById("study").textContent);
        const seen = document.getElementById("image").src;
        const open = showings.filter(showing => !other.answers[showing.id] && pictures[showing.picture] !== seen);
        const [first, last] = [Object.keys(other.answers)[0], open[0].id];
        other.answers[first] = {...other.answers[first], score: 1, at: "2000-01-01T00:00:00.000Z"};
        other.answers[last] = {score: 5, confidence: 3, at: new Date().toISOString()};
        localStorage.setItem(name, JSON.stringify(other));
    }""")
    rate(browser, 2, 3)
    rows = json.loads(saved(browser, tmp_path, "#save").read_text())["answers"]
    assert [row["score"] for row in rows[:2]] == SCORES[:2]  # the older answer of the other window does not count
    assert sorted(row["score"] for row in rows) == sorted([*SCORES[:3], 5])


def test_a_browser_that_keeps_nothing_says_so(browser: Browser, page: Path) -> None:
    browser.open((page / PAGE).as_uri())
    browser.run("Storage.prototype.setItem = () => { throw new Error('full'); }")
    browser.type("ada")
    browser.press("Enter")
    assert "save your answers" in browser.run("document.getElementById('hint').textContent")
    rate(browser, 0, 2)


@pytest.mark.parametrize(("width", "height", "touch"), [(1280, 800, False), (360, 640, True), (740, 360, True)])
def test_everything_is_in_view_and_has_a_name(
    width: int, height: int, touch: bool, browser: Browser, page: Path
) -> None:
    browser.size(width, height, touch)
    browser.open((page / PAGE).as_uri())
    assert browser.controls()["Your name or code"] == "textbox"
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    begin(browser, page, "ada")
    outside = """[...document.querySelectorAll('#rate button, #rate img')].filter(e => {
        const b = e.getBoundingClientRect(), right = innerWidth + .5, bottom = innerHeight + .5;
        return Math.min(b.left, b.top) < 0 || b.right > right || b.bottom > bottom || Math.min(b.width, b.height) < 24;
    }).map(e => e.outerHTML.slice(0, 80))"""
    assert browser.run(outside) == []
    assert browser.run(
        "[document.documentElement.scrollWidth - innerWidth, document.documentElement.scrollHeight - innerHeight]"
    ) == [0, 0]
    names = browser.controls()
    assert "" not in names
    assert {
        "Realism": "group",
        "How sure": "group",
        "Image 1 of 13": "image",
        "Images rated": "progressbar",
    }.items() <= names.items()
    assert {
        f"{value} {name}" for value, name in enumerate(("Bad", "Poor", "Fair", "Good", "Excellent"), 1)
    } <= names.keys()


def test_nothing_leaves_the_page(browser: Browser, page: Path) -> None:
    begin(browser, page, "ada")
    rate(browser, 0, TOTAL)
    reached = browser.run(
        "performance.getEntriesByType('resource').map(entry => entry.name).filter(n => !n.startsWith('data:'))"
    )
    assert reached == []
    assert browser.run("fetch('file:///').then(() => 'reached', () => 'refused')") == "refused"
