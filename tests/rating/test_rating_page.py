"""The page holds no word about origin; the key is never written over."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from morphogen.errors import InputError
from morphogen.rating.draw import draw
from morphogen.rating.page import KEY, PAGE, read_key, write_page

Folders = tuple[Path, Path]


def test_nothing_about_origin_is_in_the_page(folders: Folders, page: Path) -> None:
    html = (page / PAGE).read_text()
    data = json.loads(re.findall(r'<script type="application/json" id="study">(.*?)</script>', html)[0])
    assert set(data) == {"version", "study", "width", "height", "pictures", "showings"}
    assert len(data["pictures"]) == 10
    assert len(data["showings"]) == 13
    assert all(set(showing) == {"id", "picture"} for showing in data["showings"])
    bare = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", html)
    key = read_key(page)
    words = {"synthetic", "origin", "key.json", *map(str, folders), *(f.name for f in folders)}
    for showing in key["showings"].values():
        words |= {showing["id"], showing["sha256"], Path(showing["file"]).name}
    assert [word for word in sorted(words) if re.search(rf"\b{re.escape(word)}\b", bare, re.IGNORECASE)] == []
    assert "://" not in bare


def test_the_order_in_the_page_follows_from_the_pixels(page: Path) -> None:
    html = (page / PAGE).read_text()
    data = json.loads(re.findall(r'<script type="application/json" id="study">(.*?)</script>', html)[0])
    names = [showing["id"] for showing in data["showings"]]
    assert names == sorted(names)
    assert set(names) == set(read_key(page)["showings"])


def test_the_page_is_one_file_and_may_not_reach_out(page: Path) -> None:
    html = (page / PAGE).read_text()
    assert "default-src 'none'" in html
    assert not re.findall(r"<(?:link|script|iframe|object)[^>]+(?:src|href)=", html)


def test_the_key_says_where_pictures_come_from(folders: Folders, page: Path) -> None:
    key = read_key(page)
    assert (key["study"], key["size"]) == (draw(*folders, n=5, repeats=3, seed=0).study, [32, 32])
    assert f'"study": "{key["study"]}"' in (page / PAGE).read_text()
    for showing in key["showings"].values():
        folder = folders[0] if showing["origin"] == "synthetic" else folders[1]
        file = folder / "images" / f"{showing['id']}.png"
        assert Path(showing["file"]) == file
        assert showing["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    again = [showing["repeats"] for showing in key["showings"].values() if showing["repeats"]]
    assert len(again) == 3
    assert set(again) <= set(key["showings"])


def test_the_same_command_leaves_page_and_key_as_they_are(folders: Folders, page: Path) -> None:
    before = {name: (page / name).read_bytes() for name in (PAGE, KEY)}
    (page / PAGE).unlink()
    for _ in range(2):
        write_page(draw(*folders, n=5, repeats=3, seed=0), page, {})
        assert {name: (page / name).read_bytes() for name in (PAGE, KEY)} == before


def test_another_page_is_never_written_over(folders: Folders, page: Path) -> None:
    before = {name: (page / name).read_bytes() for name in (PAGE, KEY)}
    other = draw(*folders, n=5, repeats=3, seed=1)
    with pytest.raises(InputError, match=r"belongs to another page.*--out"):
        write_page(other, page, {})
    (page / KEY).unlink()
    with pytest.raises(InputError, match=r"page\.html: is there without its key\.json"):
        write_page(other, page, {})
    assert (page / PAGE).read_bytes() == before[PAGE]
    assert not (page / KEY).exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "other"}', b"\xff\xfe"])
def test_a_key_that_is_none(page: Path, content: str | bytes) -> None:
    (page / KEY).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"key\.json"):
        read_key(page)
    with pytest.raises(InputError, match=r"key\.json"):
        read_key(page.parent)
