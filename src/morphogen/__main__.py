"""``python -m morphogen``: the module that torchrun starts, several processes at a time."""

from __future__ import annotations

from morphogen.cli import main
from morphogen.launched import place


def run() -> int:
    """As the command ``morphogen``; processes that have done their work leave their group in peace."""
    code = main()
    if code == 0 and place().world > 1:
        from accelerate import PartialState

        PartialState().destroy_process_group()
    return code


if __name__ == "__main__":
    raise SystemExit(run())
