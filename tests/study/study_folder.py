"""Writes the folder of a finished study with known effects, for tests of results and report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from morphogen.data.phantoms import phantom, phantom_dataset
from morphogen.study.splits import Repetition, Splits

EFFECTS = {"real": -0.06, "real-geo": 0.0, "syn": -0.03, "syn-geo": 0.03, "duplicated": 0.0, "more-real": 0.05}


@dataclass(frozen=True)
class Fake:
    """A study: arm -> shift of its Dice against real-geo; subjects are dealt to folds in turn."""

    effects: Mapping[str, float] = field(default_factory=lambda: dict(EFFECTS))
    folds: int = 3
    seeds: int = 1
    """Crossed seeds within each fold."""
    subjects: int = 12
    images: int = 4
    n_annotated: int = 20
    test_set: str = "test"
    config_hash: str = "0123456789ab"
    noise: float = 0.02

    def write_cells(self, out: Path) -> None:
        """``cells/*.json`` alone."""
        rng = np.random.default_rng(0)
        of_subject = rng.normal(0, 0.05, self.subjects)
        (out / "cells").mkdir(parents=True, exist_ok=True)
        for arm, effect in self.effects.items():
            for fold in range(self.folds):
                for seed in range(fold, fold + self.seeds):
                    scores = self._scores(fold, effect, of_subject, rng)
                    self._write_cell(out, arm, fold, seed, scores)

    def _scores(self, fold: int, effect: float, of_subject: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        scores = {}
        for s in range(fold, self.subjects, self.folds):
            for i in range(self.images):
                dice = float(np.clip(0.7 + effect + of_subject[s] + rng.normal(0, self.noise), 0, 1))
                row = {"subject": f"s{s}", "dice": dice, "iou": dice / (2 - dice), "hd95": 50 * (1 - dice)}
                scores[f"s{s}_{i}"] = row
        return scores

    def _write_cell(self, out: Path, arm: str, fold: int, seed: int, scores: dict[str, Any]) -> None:
        label = f"fold{fold}" if self.seeds == 1 else f"fold{fold}-seed{seed}"
        cell = {
            "arm": arm,
            "judge": "unet",
            "fold": fold,
            "seed": seed,
            "n_annotated": self.n_annotated,
            "n_synthetic": 16 if arm.startswith("syn") else 0,
            "test_set": self.test_set,
            "config_hash": self.config_hash,
            "wall_s": 12.5,
            "scores": scores,
        }
        name = f"{arm}.unet.{label}.n{self.n_annotated}.{self.test_set}"
        (out / "cells" / f"{name}.json").write_text(json.dumps(cell))

    def write_plan(self, out: Path, data: Path) -> None:
        """study.yaml and splits.json."""
        study = {
            "data": str(data),
            "annotated": self.n_annotated,
            "arms": list(self.effects),
            "generator": "copy-paste",
            "judges": ["unet"],
            "test": [],
            "resolution": 32,
        }
        (out / "study.yaml").write_text(yaml.safe_dump(study))
        runs = [Repetition(f, f, f"fold{f}", ("a",), ("b",), (), ("c",), ("d",)) for f in range(self.folds)]
        splits = Splits("kfold", "subject", self.n_annotated, "0", {}, ("A note on the splits.",), tuple(runs))
        (out / "splits.json").write_text(json.dumps(asdict(splits)))


def write_pictures(out: Path, data: Path, folds: int = 2) -> None:
    """A real data set of phantoms, and synthetic pairs whose sources are in it."""
    real = phantom_dataset(data, "mucosa", 4, 40, 0)
    for fold in range(folds):
        folder = out / "synthetic" / f"fold{fold}"
        rows = []
        for k, source in enumerate(real.ids):
            image, mask = phantom("mucosa", 100 * fold + k, 32)
            for part, pixels in (("images", image), ("masks", (mask * 255).astype(np.uint8))):
                (folder / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / part / f"{source}_00.png")
            rows.append(json.dumps({"id": f"{source}_00", "source_mask": source}))
        (folder / "manifest.jsonl").write_text("\n".join(rows) + "\n")


def audit_of(fold: int) -> dict[str, Any]:
    """As a study writes it, but fold 1's as studies did when they looked for copies alone."""
    copies = {"n": 16, "n_real": 20, "flagged": 2, "rate": 0.125, "rate_of_real": 0.02, "threshold": {}, "pairs": []}
    if fold == 1:
        return copies
    control = {"of": "held-out images", "left_out": 0, "n": 50, "flagged": 1, "rate": 0.02, "ci95": [0.004, 0.105]}
    spread = {"pixel": {"synthetic": [0.1, 0.2, 0.3], "control": [0.2, 0.3, 0.4], "nearer": 0.731}}
    none: dict[str, Any] = {"verdict": "none", "n_found": 0, "found": []}
    found = {"verdict": "found", "n_found": 3, "found": [{"test": "t<1>", "train": "a2"}]}
    limits = [{"score": "sharpness", "gate": "blur", "low": 8.25, "high": None, "percentiles": [1, None], "n": 20}]
    segmenter = {"name": "unet", "architecture": {"encoder": "scratch"}, "seed": 2000}
    return {
        "memorisation": {**copies, "ci95": [0.035, 0.36], "control": control, "distances": spread},
        "leakage": {
            "verdict": "found",
            "unknown": ["foundation"],
            "n_test": 9,
            **dict.fromkeys(("provenance", "subjects", "synthetic"), none),
            "foundation": {**none, "verdict": "unknown", "note": "the foundation does not say"},
            "near_duplicates": found,
        },
        "duplicates": {"n": 16, "redundant": 4, "rate": 0.25, "rate_of_real": 0.05, "groups": [["a", "b"]]},
        "gates": {
            "gates": ["blur", "adherence"],
            "n": 16,
            "accepted": 11,
            "rejected": 5,
            "reasons": {"blur": 5, "adherence": 0},
            "limits": limits,
            "segmenter": {**segmenter, "architecture_of_the_judge_of_adherence": False},
        },
    }


def write_images(out: Path, fold: int) -> None:
    """``images/foldF.json`` as the study writes it."""
    kid = {"mean": 0.06 + fold / 100, "std": 0.01}
    rows = {name: {"fid": 100.0 + fold, "kid": kid} for name in ("synthetic", "real")}
    found = {
        "fold": fold,
        "seed": fold,
        "distances": {"features": "inception", "n": 16, "n_reference": 90, "reference": "other images", "rows": rows},
        "adherence": {"judge": "unet", "seed": 1000, "dice": 0.6, "n": 16, "dice_on_real": 0.8, "n_real": 4},
        "audit": audit_of(fold),
    }
    (out / "images").mkdir(exist_ok=True)
    (out / "images" / f"fold{fold}.json").write_text(json.dumps(found))
    Image.new("RGB", (20, 10)).save(out / "images" / f"fold{fold}-closest.png")
