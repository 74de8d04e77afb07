"""Does the test part leak into what was trained on? Five ways to look, each with a verdict of its own.

* ``provenance``: source masks of the synthetic pairs (manifest.jsonl), and training ids of the generator, against the
  test ids.
* ``subjects``: subjects that are in the test part and in another.
* ``foundation``: ids and perceptual hashes in the card of the foundation against the test images.
* ``near_duplicates``: images of the test part and of another that are near-duplicates.
* ``synthetic``: synthetic images that are near-duplicates of test images, mirrored and slightly shifted ones too.

A verdict is ``found``, ``none``, or ``unknown`` where what it needs was not given: silence is not innocence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.audit.leakage import find_overlaps
from morphogen.audit.nearest import ImageSet, hash_distances, neighbours
from morphogen.data.duplicates import CORRELATION, HASH_DISTANCE, near_duplicate_pairs, signatures_of, thumbnail
from morphogen.data.records import Dataset
from morphogen.progress import track

MOST = 50
"""Findings that are listed, at most; all are counted."""


@dataclass(frozen=True)
class Part:
    """One part of the real data.

    Attributes:
        name: ``train``, ``validation``, ``test``.
        ids: One an image.
        subjects: One an image, or None where some are unknown.
        thumbnails: (N, 32, 32) float32 grey.
    """

    name: str
    ids: Sequence[str]
    subjects: Sequence[str] | None
    thumbnails: np.ndarray

    @classmethod
    def of(cls, name: str, dataset: Dataset, subjects: Mapping[str, str] | None = None) -> Part:
        """Read the images of a part.

        Args:
            name: Of the part.
            dataset: Its records.
            subjects: Id -> subject; what the records say by default.

        Raises:
            InputError: An image cannot be read.
        """
        known = [record.subject if subjects is None else subjects[record.id] for record in dataset]
        stated = [subject for subject in known if subject is not None]
        images = [thumbnail(record) for record in track(dataset.records, f"reading {name} images")]
        stack = np.array(images, dtype=np.float32).reshape(-1, 32, 32)
        return cls(name, dataset.ids, stated if len(stated) == len(known) else None, stack)


@dataclass(frozen=True)
class Origin:
    """Where the synthetic images come from, as far as it is known.

    Attributes:
        rows: Their manifest rows; None without a manifest.
        generator_ids: What the generator was trained on; None where its run was not given or does not tell.
        card: Card of the foundation under the generator; None where not given, empty where it says nothing.
        founded: False where the generator rests on no foundation, so that none can leak.
    """

    rows: Sequence[Mapping[str, Any]] | None = None
    generator_ids: Collection[str] | None = None
    card: Mapping[str, Any] | None = None
    founded: bool = True


def leakage(
    synthetic: ImageSet, origin: Origin, train: Part, others: Sequence[Part], test: tuple[Part, Dataset]
) -> dict[str, Any]:
    """All five sections, and one verdict: ``found`` where one of them found something, else ``unknown`` where one does
    not know, else ``none``.

    Args:
        synthetic: The synthetic images.
        origin: Where they come from.
        train: The real training part.
        others: Further parts that must not share anything with the test part.
        test: The test part, as such and as records.
    """
    part, records = test
    sections = {
        "provenance": _provenance(origin, train, part),
        "subjects": _subjects([train, *others], part),
        "foundation": _foundation(origin, records),
        "near_duplicates": _near_duplicates([train, *others], part),
        "synthetic": _synthetic(synthetic, part),
    }
    verdicts = {name: section["verdict"] for name, section in sections.items()}
    verdict = next((v for v in ("found", "unknown") if v in verdicts.values()), "none")
    return {
        "verdict": verdict,
        "unknown": [name for name, v in verdicts.items() if v == "unknown"],
        "n_test": len(part.ids),
        **sections,
    }


def recorded_ids(run: Path) -> list[str] | None:
    """Ids that a generator's run folder says it was trained on (``records`` in config.yaml); None where it does not."""
    import yaml

    try:
        found = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    records = found.get("records") if isinstance(found, dict) else None
    return [str(i) for i in records] if isinstance(records, list) else None


def without_test(why: str) -> dict[str, Any]:
    """The result where no test images are known."""
    return {"verdict": "unknown", "unknown": ["test"], "n_test": 0, "note": why}


def _provenance(origin: Origin, train: Part, test: Part) -> dict[str, Any]:
    if origin.rows is None:
        return _unknown("the synthetic images have no manifest.jsonl")
    sources = {str(row["id"]): row.get("source_mask") for row in origin.rows}
    held = _of_the_test_part({s for s in sources.values() if s is not None}, train, test)
    found = [{"id": i, "source_mask": source} for i, source in sources.items() if source in held]
    learnt = _of_the_test_part(origin.generator_ids or (), train, test)
    found += [{"generator_id": i} for i in sorted(learnt)]
    if not found and None in sources.values():
        return _unknown("some rows of manifest.jsonl name no source mask")
    if not found and origin.generator_ids is None:
        return _verdict([]) | {"note": "source masks alone: what the generator was trained on is not known"}
    return _verdict(found)


def _of_the_test_part(ids: Iterable[str], train: Part, test: Part) -> set[str]:
    """Those that name a test image; a name of both parts counts only where both images are the same one."""
    tested, trained = ({i: k for k, i in enumerate(part.ids)} for part in (test, train))
    held = {i for i in ids if i in tested}
    return {i for i in held if i not in trained or _alike(train.thumbnails[trained[i]], test.thumbnails[tested[i]])}


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(near_duplicate_pairs(signatures_of(np.stack([a, b]))))


def _subjects(parts: Sequence[Part], test: Part) -> dict[str, Any]:
    found = []
    for part in parts:
        if part.subjects is None or test.subjects is None:
            return _unknown(f"the subjects of the {part.name} or the test images are not stated (records.csv)")
        found += [{"subject": s, "part": part.name} for s in sorted(set(part.subjects) & set(test.subjects))]
    return _verdict(found)


def _foundation(origin: Origin, test: Dataset) -> dict[str, Any]:
    if not origin.founded:
        return _verdict([]) | {"note": "there is no foundation"}
    if origin.card is None:
        return _unknown("the generator's foundation was not given")
    if not origin.card.get("sets"):
        return _unknown("the foundation does not say what it was trained on")
    return _verdict([{"id": o.id, "set": o.set, "by": o.by} for o in find_overlaps(test, origin.card)])


def _near_duplicates(parts: Sequence[Part], test: Part) -> dict[str, Any]:
    found, n = [], len(test.ids)
    for part in parts:
        pairs = near_duplicate_pairs(signatures_of(np.concatenate([test.thumbnails, part.thumbnails])))
        found += [{"test": test.ids[i], part.name: part.ids[j - n]} for i, j in pairs if i < n <= j]
    return _verdict(found)


def _synthetic(synthetic: ImageSet, test: Part) -> dict[str, Any]:
    if not len(synthetic):
        return _verdict([])
    images, real = ImageSet(synthetic.ids, synthetic.thumbnails), ImageSet(test.ids, test.thumbnails)
    nearest = neighbours(images, real)["pixel"]
    twins = (nearest.distance <= 1 - CORRELATION) & (hash_distances(nearest, images, real) <= HASH_DISTANCE)
    return _verdict([{"id": images.ids[i], "test": test.ids[nearest.index[i]]} for i in np.flatnonzero(twins).tolist()])


def _verdict(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"verdict": "found" if found else "none", "n_found": len(found), "found": list(found[:MOST])}


def _unknown(why: str) -> dict[str, Any]:
    return {"verdict": "unknown", "n_found": 0, "found": [], "note": why}
