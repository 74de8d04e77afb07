"""What results.json says beside means, where images have a class: confusions of classifiers, Dice by diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from morphogen.study.classified import Rows, classes_in, confusion
from morphogen.study.compare import Group
from morphogen.study.kinds import CLASSIFICATION, SEGMENTATION
from morphogen.study.recipe import OWN_TEST


def confusions(groups: Sequence[Group]) -> dict[str, Any]:
    """``confusion``: one entry an arm, classifier, test set and size, over all repetitions; empty without classifiers.

    Every entry has ``classes`` and ``counts`` [[images]], by class in truth, then as predicted.
    """
    found = []
    for group in (group for group in groups if group.kind is CLASSIFICATION):
        for arm in group.arms:
            runs = [cell.scores for cell in group.runs(arm).values()]
            classes = classes_in(runs)
            counts = confusion(runs, classes).tolist()
            found.append({**_place(group, arm), "classes": list(classes), "counts": counts})
    return {"confusion": found} if found else {}


def by_class(groups: Sequence[Group]) -> dict[str, Any]:
    """``by_class``: what segmenters score on the images of each class, on the study's own test part.

    One entry an arm, segmenter, size and class, with ``n_images`` and the metrics as in ``arms``; empty where the
    images have no class.
    """
    found = []
    for group in (group for group in groups if group.kind is SEGMENTATION and group.test_set == OWN_TEST):
        for arm in group.arms:
            runs = [cell.scores for _, cell in sorted(group.runs(arm).items())]
            for name in sorted({row["class"] for rows in runs for row in rows.values() if row.get("class")}):
                estimates = group.kind.estimates([some for rows in runs if (some := _of_class(rows, name))])
                metrics = {metric: {"mean": e.mean, "ci95": e.ci95} for metric, e in estimates.items()}
                found.append({**_place(group, arm), "class": name, "n_images": estimates["dice"].n_images, **metrics})
    return {"by_class": found} if found else {}


def _of_class(rows: Rows, name: str) -> Rows:
    return {image: row for image, row in rows.items() if row.get("class") == name}


def _place(group: Group, arm: str) -> dict[str, Any]:
    return {"arm": arm, "judge": group.judge, "test_set": group.test_set, "n_train": group.n_annotated}
