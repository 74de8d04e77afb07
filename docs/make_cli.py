"""Write docs/cli.md from the command's own help: ``python docs/make_cli.py``; a test compares the two."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

PAGE = Path(__file__).with_name("cli.md")
WIDTH = "100"


def page() -> str:
    """The whole page."""
    from morphogen.cli import VERBS

    parts = ["# The command line\n\nWritten by `python docs/make_cli.py` from the help itself.\n", _block(["--help"])]
    for name in VERBS:
        parts += [f"\n## morphogen {name}\n\n", _block([*name.split(), "--help"])]
    return "".join(parts)


def _block(words: list[str]) -> str:
    from morphogen.cli import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(words)
    if code:
        raise SystemExit(f"morphogen {' '.join(words)} ended with exit code {code}")
    lines = [line.rstrip() for line in out.getvalue().strip().splitlines()]
    return "\n".join(["```text", *lines, "```", ""])


if __name__ == "__main__":
    os.environ["COLUMNS"] = WIDTH
    PAGE.write_text(page(), encoding="utf-8")
