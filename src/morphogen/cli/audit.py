"""``morphogen audit``: are synthetic images copies of real ones?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from morphogen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Audit(Verb):
    """Compare every synthetic image with the real training image that it resembles most, and flag likely copies."""

    syn: tyro.conf.Positional[Path]
    """Folder with the synthetic images."""
    real: tyro.conf.Positional[Path]
    """Folder with the real images that the generator was trained on."""
    out: Path | None = None
    """Picture of the closest pairs (PNG); by default SYN-audit.png beside the folder of the synthetic images."""
    features: Literal["auto", "inception", "none"] = "auto"
    """Inception features beside pixels: where they are installed, always, or never."""

    def run(self) -> dict[str, Any]:
        from morphogen.audit.figure import draw_pairs
        from morphogen.audit.nearest import audit, image_set
        from morphogen.errors import InputError
        from morphogen.metrics.pictures import find_pictures, picture, pictures
        from morphogen.metrics.weights import available
        from morphogen.progress import track

        folder = self.syn.resolve()
        figure = self.out or folder.with_name(f"{folder.name}-audit.png")
        if not figure.absolute().parent.is_dir():
            raise InputError(f"{figure}: its folder does not exist; make it first or name another file")
        inception = self.features == "inception" or (self.features == "auto" and available("inception"))
        synthetic, real = find_pictures(self.syn), find_pictures(self.real)
        size = picture(synthetic[0]).shape[:2]
        sets = [
            image_set(
                [record.id for record in records],
                track(pictures(records, size), name, len(records)),
                _subjects(records),
                inception,
            )
            for name, records in (("synthetic", synthetic), ("real", real))
        ]
        result = audit(*sets)
        by_id = [{record.id: record for record in records} for records in (synthetic, real)]
        draw_pairs(
            result["pairs"], lambda name: picture(by_id[0][name]), lambda name: picture(by_id[1][name], size), figure
        )
        _print(result, figure)
        return result | {"figure": str(figure)}


def _subjects(records: list[Any]) -> list[str] | None:
    """Subject of every record, or None where some are unknown."""
    known = [record.subject for record in records]
    return None if None in known else known


def _print(result: dict[str, Any], figure: Path) -> None:
    print(
        f"{result['flagged']} of {result['n']} synthetic images are too near to one of {result['n_real']} real images"
    )
    print(f"  ({100 * result['rate']:.1f} %; real images of different subjects: {100 * result['rate_of_real']:.1f} %)")
    for pair in [pair for pair in result["pairs"] if pair["flagged"]][:10]:
        distances = ", ".join(f"{name} {value:.4f}" for name, value in pair["distances"].items())
        print(f"  {pair['id']} resembles {pair['nearest']} ({distances})")
    print(f"closest pairs: {figure}")
