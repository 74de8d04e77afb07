"""What every verb of the command line has in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphogen.errors import MorphogenError


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb: its fields are the options, its docstring the help, `run` the work."""

    json: Path | None = None
    """Write the result to this file as JSON."""
    config: Path | None = None
    """YAML file with values for these options; what the command line says goes before it."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> dict[str, Any]:
        """Do the work and print what a person wants to read.

        Returns:
            The machine-readable result; ``--json`` writes it.

        Raises:
            MorphogenError: One line for the user; its exit code becomes the command's.
        """
        raise NotImplementedError

    def failure(self, result: dict[str, Any]) -> MorphogenError | None:
        """The error that `result` amounts to, reported after the JSON is written; None where all is well."""
        return None
