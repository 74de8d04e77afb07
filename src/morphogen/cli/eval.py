"""``morphogen eval masks``: scores of predicted masks against reference masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from morphogen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Masks(Verb):
    """Compare predicted masks with reference masks of the same name: Dice, IoU, HD95 and ASD per image and class."""

    pred: tyro.conf.Positional[Path]
    """Folder with the predicted masks, directly or in masks/."""
    ref: tyro.conf.Positional[Path]
    """Folder with the reference masks, directly or in masks/."""
    mask_values: str | None = None
    """Label of every raw value in the reference masks, e.g. 0=0,255=1; found by itself where it is clear."""

    def run(self) -> dict[str, Any]:
        from morphogen.data.mask_values import parse_mask_values
        from morphogen.metrics.mask_files import match_masks
        from morphogen.metrics.masks import PROTOCOL, score_masks
        from morphogen.metrics.summary import summarise
        from morphogen.progress import track

        stated = None if self.mask_values is None else parse_mask_values(self.mask_values)
        pairs = match_masks(self.pred, self.ref, stated)
        scores = {
            pair.id: score_masks(pair.pred, pair.ref, len(pairs.classes), pair.spacing)
            for pair in track(pairs, "scoring", len(pairs))
        }
        unit = "mm" if pairs.in_mm else "px"
        interval = "ci95: percentile bootstrap over images, taken as independent"
        result = summarise(scores, pairs.classes)
        result |= {"unit": unit, "protocol": f"{PROTOCOL} Distances in {unit}. {interval}."}
        _print_masks(result)
        return result


def _print_masks(result: dict[str, Any]) -> None:
    print(f"{result['n']} images")
    for name, metric in result["metrics"].items():
        interval = "" if metric["ci95"] is None else "  95 % interval {:.4f} to {:.4f}".format(*metric["ci95"])
        print(f"  {name:<6}{metric['mean']:.4f}{interval}")
        if len(metric["per_class"]) > 1:
            print("        " + ", ".join(f"{label} {value:.4f}" for label, value in metric["per_class"].items()))
    for label, empty in result["empty"].items():
        print(f"  {label}: both masks empty in {empty['both']} images, one empty in {empty['one']}")
    print(result["protocol"])
