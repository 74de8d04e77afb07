"""What verbs have in common that can hand their work to other processes."""

from __future__ import annotations

from dataclasses import dataclass

from morphogen.cli.verb import Verb
from morphogen.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Spread(Verb):
    """A verb whose work the workers of a Ray cluster can do."""

    ray: str | None = None
    """Let the workers of a Ray cluster do the work: local (one that is started on this machine for it), auto (the one
    that this machine is part of) or HOST:PORT. All machines must see the same folders."""
    workers: int | None = None
    """Workers on Ray; by default one for each GPU, or where there are none for each core."""

    def check_spread(self) -> None:
        """Refuse a cluster that does not answer, and workers without one.

        Raises:
            InputError: It does not, or they are asked for.
        """
        from morphogen.cluster import refuse_address

        if self.ray is not None:
            refuse_address(self.ray, self.workers)
        elif self.workers is not None:
            raise InputError("--workers: are those of Ray; give --ray too, or leave the option out")
