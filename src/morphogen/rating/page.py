"""The rating page, one HTML file, and the key that says where each of its pictures comes from."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphogen.errors import InputError
from morphogen.files import refuse_file, write_json, write_text
from morphogen.rating.draw import Drawing, Picture

PAGE, KEY = "page.html", "key.json"
VERSION = 1
"""Of the page's data, the key and the answers."""


@dataclass(frozen=True)
class Grade:
    """One point of a scale: its value, the key that gives it, its name and what it means."""

    value: int
    key: str
    name: str
    meaning: str = ""


SCORES = (
    Grade(1, "1", "Bad", "clearly not real"),
    Grade(2, "2", "Poor", "much looks wrong"),
    Grade(3, "3", "Fair", "some things look wrong"),
    Grade(4, "4", "Good", "small doubts"),
    Grade(5, "5", "Excellent", "looks real in every respect"),
)
"""Absolute category rating of five points (ITU-T P.910), here of realism."""
CONFIDENCES = (Grade(1, "q", "Unsure"), Grade(2, "w", "Fairly sure"), Grade(3, "e", "Sure"))


def write_page(drawing: Drawing, out: Path, protocol: dict[str, Any]) -> Path:
    """Write ``key.json`` and ``page.html``; a folder that holds them already is left as it is.

    Args:
        drawing: What is shown.
        out: Folder of this page alone.
        protocol: How it was drawn, for the key.

    Returns:
        The page.

    Raises:
        InputError: `out` is a file or holds another page.
    """
    refuse_file(out)
    page, key = out / PAGE, out / KEY
    if key.exists():
        held = read_key(out)["study"]
        if held != drawing.study:
            raise InputError(f"{key}: belongs to another page ({held}); name another folder for --out")
    elif page.exists():
        raise InputError(f"{page}: is there without its {KEY}; name another folder for --out")
    out.mkdir(parents=True, exist_ok=True)
    if not key.exists():  # the key comes first: there is never a page that cannot be scored
        write_json(key, key_of(drawing, protocol))
    if not page.exists():
        write_text(page, render(drawing))
    return page


def key_of(drawing: Drawing, protocol: dict[str, Any]) -> dict[str, Any]:
    """The secret: showing -> origin and source; `repeats` names the picture that a second showing repeats."""
    by_id = {p.id: p for p in drawing.pictures}
    shown: list[tuple[Picture, str, str | None]] = [(p, p.id, None) for p in drawing.pictures]
    shown += [(by_id[first], again, first) for again, first in drawing.repeats.items()]
    return {
        "format": "morphogen-rating-key",
        "version": VERSION,
        "study": drawing.study,
        "size": list(drawing.size),
        **protocol,
        "notes": list(drawing.notes),
        "showings": {
            name: {
                "origin": picture.origin,
                "id": picture.record,
                "file": str(picture.file.resolve()),
                "sha256": hashlib.sha256(picture.file.read_bytes()).hexdigest(),
                "repeats": first,
            }
            for picture, name, first in shown
        },
    }


def read_key(out: Path) -> dict[str, Any]:
    """The key of a page.

    Raises:
        InputError: Missing or not a key.
    """
    path = out / KEY
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: does not exist; give the --out that the page was made with") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}); restore it") from error
    if not isinstance(key, dict) or key.get("format") != "morphogen-rating-key" or key.get("version") != VERSION:
        raise InputError(f"{path}: is not the key of a rating page; name another folder for --out")
    return key


def render(drawing: Drawing) -> str:
    """The page as HTML: no other file, no network, nothing about where a picture comes from."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    index = {picture.id: number for number, picture in enumerate(drawing.pictures)}
    showings = {**{p.id: index[p.id] for p in drawing.pictures}, **{a: index[f] for a, f in drawing.repeats.items()}}
    data = {
        "version": VERSION,
        "study": drawing.study,
        "width": drawing.size[1],
        "height": drawing.size[0],
        "pictures": [f"data:image/png;base64,{base64.b64encode(p.png).decode()}" for p in drawing.pictures],
        "showings": [{"id": name, "picture": showings[name]} for name in sorted(showings)],
    }
    environment = Environment(
        loader=PackageLoader("morphogen.rating", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(data=data, scores=SCORES, confidences=CONFIDENCES)
