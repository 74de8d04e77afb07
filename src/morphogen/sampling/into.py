"""The plan of pairs that are painted into images: which lesion, in which image, where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from morphogen.data.field_of_view import field_of_view
from morphogen.data.images import is_volume, load_rgb, stem
from morphogen.data.mask_transforms import MASK_TRANSFORMS, transform_mask
from morphogen.data.mask_transforms import VERSION as MASK_VERSION
from morphogen.data.mask_words import AREA_BINS, area_bin
from morphogen.data.masks import load_mask
from morphogen.data.placement import VERSION as PLACEMENT_VERSION
from morphogen.data.placement import place_mask
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError
from morphogen.progress import track
from morphogen.sampling.jobs import Job
from morphogen.sampling.plan import Plan, content_of, cyclic
from morphogen.training.rng import numpy_rng, seed_of

AREAS = ("own", "even")
"""own: lesions as large as the masks are; even: small, medium and large ones in turn."""
PLACES = ("drawn", "as-is")
"""drawn: the seed draws a normal image for every lesion, and where it lies there (`plan_into`); as-is: every mask stays
where it is, in the image of its name (`plan_as_is`)."""
MOST_UNSEEN = 0.25
"""Share of a lesion that may lie outside of the field of view of its own image: outlines that were drawn by hand
overlap the border, by up to 0.08 in CVC-ClinicDB and 0.19 in Kvasir-SEG."""


def plan_into(
    masks: Dataset,
    normals: Dataset,
    n: int,
    transform: str,
    seed: int,
    prompt: str | Sequence[str] | None = None,
    areas: str = "own",
) -> Plan:
    """Plan `n` pairs, each a lesion of `masks` laid into an image of `normals`.

    The masks are taken in an order that the seed shuffles, over and over, so the first k jobs are the same for every n.
    The job of id ``{mask id}_{copy:02d}`` has the seed ``seed_of(seed, id)``, which draws the normal image (not the one
    that was made of the mask's own image, where there is another), the transform and the place. ``params`` holds what
    was done to the mask (`morphogen.data.placement`), ``normal`` {id, source}, ``area`` (share of the frame) and
    ``area_bin``; with areas "even" also ``area_asked``.

    Args:
        masks: Records without a mask, and slices of a volume without a lesion, are passed over.
        normals: Images without a lesion, of any size.
        n: Pairs, at least 1.
        transform: Name of a mask transform.
        seed: Seed of the run.
        prompt: One text for all jobs, or several which the jobs take in turn.
        areas: One of `AREAS`; a lesion is scaled by at most 3 to fall into the bin that is its turn.

    Raises:
        InputError: There is no mask or no normal image, a mask is empty, or an option is out of range.
    """
    _check(masks, normals, n, transform, areas)
    records = _with_lesions(masks)
    turns = cyclic(len(records), n, seed)
    ids = [f"{records[position].id}_{copy:02d}" for position, copy in turns]
    prompts = [prompt] if prompt is None or isinstance(prompt, str) else list(prompt)

    def make(index: int) -> Job:
        position, copy = turns[index]
        record, job_seed = records[position], seed_of(seed, ids[index])
        normal = _normal_for(record, normals, job_seed)
        image = load_rgb(normal)
        # One more for every copy, so that a mask does not get the same bin each time.
        area = None if areas == "own" else list(AREA_BINS)[(index + copy) % len(AREA_BINS)]
        mask = load_mask(record, masks.mask_values)
        try:
            placed, params = place_mask(mask, _field_of(normal), transform, job_seed, _own_field(record, mask), area)
        except InputError as error:
            raise InputError(f"{normal.image}: {error}") from error
        params |= {"normal": {"id": normal.id, "source": source_of(normal)}, "area_bin": area_bin(placed)}
        params |= {"area": float(np.mean(placed > 0))} | ({} if area is None else {"area_asked": area})
        return Job(ids[index], job_seed, placed, record, prompts[index % len(prompts)], image=image, params=params)

    facts = [
        [ids, masks.classes, sorted(masks.mask_values.items()), transform, seed, prompts, areas],
        [MASK_VERSION, PLACEMENT_VERSION],
        [content_of(records), content_of(records, "image"), content_of(normals.records, "image")],
        [[normal.id, source_of(normal)] for normal in normals],
    ]
    return Plan(ids, make, masks.classes, hashlib.sha256(json.dumps(facts).encode()).hexdigest())


def plan_as_is(
    masks: Dataset, images: Dataset, copies: int, seed: int, prompt: str | Sequence[str] | None = None
) -> Plan:
    """Plan `copies` pairs for every mask, each with the lesion where the mask has it, in the image of the same name.

    The pairs follow the masks, then the copies: of as many texts as masks each goes with one mask. Ids and seeds are
    those of `plan_into`. ``params`` holds ``place`` "as-is", ``normal`` {id, source}, ``area`` and ``area_bin``.

    Args:
        masks: As in `plan_into`.
        images: Of the masks' sizes, by file stem; others are passed over.
        copies: Pairs per mask, at least 1.
        seed: Seed of the run.
        prompt: One text for all jobs, or several which the jobs take in turn.

    Raises:
        InputError: There is no mask, one is empty, has no image of its name or one of another size, or its lesion lies
            where that image shows nothing; or `copies` is below 1. All are looked at before there is a plan.
    """
    _check(masks, images, copies, "identity", "own")
    records = _with_lesions(masks)
    named = {image.id: image for image in images}
    own = [_image_of(record, named, images.root) for record in records]
    for record, image in track(list(zip(records, own, strict=True)), "looking at masks and images"):
        _refuse_misplaced(record, load_mask(record, masks.mask_values), image)
    ids = [f"{record.id}_{copy:02d}" for copy in range(copies) for record in records]
    prompts = [prompt] if prompt is None or isinstance(prompt, str) else list(prompt)

    def make(index: int) -> Job:
        record, image, job_seed = records[index % len(records)], own[index % len(records)], seed_of(seed, ids[index])
        mask, params = transform_mask(load_mask(record, masks.mask_values), "identity", job_seed)
        params |= {"place": "as-is", "normal": {"id": image.id, "source": source_of(image)}}
        params |= {"area": float(np.mean(mask > 0)), "area_bin": area_bin(mask)}
        prompt = prompts[index % len(prompts)]
        return Job(ids[index], job_seed, mask, record, prompt, image=load_rgb(image), params=params)

    facts = [
        ["as-is", ids, masks.classes, sorted(masks.mask_values.items()), seed, prompts],
        [content_of(records), content_of(own, "image"), [[image.id, source_of(image)] for image in own]],
    ]
    return Plan(ids, make, masks.classes, hashlib.sha256(json.dumps(facts).encode()).hexdigest())


def _image_of(record: Record, named: Mapping[str, Record], root: Path) -> Record:
    """The image of a mask's name: its id, or the stem of its file.

    Raises:
        InputError: There is none.
    """
    mask = record.mask or record.image
    found = named.get(record.id) or named.get(stem(mask))
    if found is None:
        raise InputError(f"{mask}: {root} holds no image {record.id} to paint it into; add one, or remove the mask")
    return found


def _refuse_misplaced(record: Record, mask: np.ndarray, image: Record) -> None:
    """Refuse a mask that does not lie on its image."""
    field = _field_of(image)
    if field.shape != mask.shape:
        sizes = " and ".join(f"{shape[1]} x {shape[0]}" for shape in (mask.shape, field.shape))
        raise InputError(f"{record.mask}: mask and {image.image} differ in size, {sizes} pixels; resize one of them")
    unseen = float((mask[~field] > 0).sum() / (mask > 0).sum())
    if unseen > MOST_UNSEEN:
        fault = f"{100 * unseen:.0f} % of its lesion lie outside of the field of view of {image.image}"
        raise InputError(f"{record.mask}: {fault}; correct the mask, or let it be moved (--place drawn)")


def source_of(normal: Record) -> str:
    """Where a normal image comes from: ``folder``; of the training images ``removed``, ``regions``, ``lesion-free``."""
    return str((normal.origin or {}).get("source", "folder"))


def _check(masks: Dataset, normals: Dataset, n: int, transform: str, areas: str) -> None:
    if not len(masks.annotated):
        raise InputError(f"{masks.root}: holds no masks; give a folder with masks to sample for")
    if not len(normals):
        raise InputError(f"{normals.root}: holds no images; give a folder with images to paint into")
    if n < 1:
        raise InputError(f"{masks.root}: {n} pairs are asked for; ask for 1 or more")
    if transform not in MASK_TRANSFORMS:
        raise InputError(f"--mask-transform: {transform!r} is none of {', '.join(MASK_TRANSFORMS)}; choose one of them")
    if areas not in AREAS:
        raise InputError(f"--areas: {areas!r} is none of {', '.join(AREAS)}; choose one of them")


def _with_lesions(masks: Dataset) -> list[Record]:
    """The records whose mask holds a lesion.

    Raises:
        InputError: A mask file is empty, or no slice of the volumes holds anything.
    """
    found = []
    for record in masks.annotated:
        if bool((load_mask(record, masks.mask_values) > 0).any()):
            found.append(record)
        elif record.mask is not None and not is_volume(record.mask):
            raise InputError(f"{record.mask}: is empty, so there is nothing to paint; leave this mask out")
    if not found:
        raise InputError(f"{masks.root}: no slice of it holds a lesion; give masks to paint")
    return found


def _normal_for(record: Record, normals: Dataset, seed: int) -> Record:
    """A normal image, drawn by the seed; one that the mask's own image was made into only where there is no other."""
    others = [normal for normal in normals if (normal.origin or {}).get("image") != record.id] or list(normals)
    return others[int(numpy_rng(seed, "normal").integers(len(others)))]


def _own_field(record: Record, mask: np.ndarray) -> np.ndarray | None:
    """Field of view of the image that a mask was drawn on, where there is such an image."""
    if record.image == record.mask:
        return None
    field = _field_of(record)
    return field if field.shape == mask.shape else None


def _field_of(record: Record) -> np.ndarray:
    """(H, W) bool, the field of view of a record's image, found once: images and masks come up again and again."""
    shape, bits = _packed_field(record.image, record.mask, record.plane, record.image.stat().st_mtime_ns)
    return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(bool)


@lru_cache(maxsize=1024)
def _packed_field(
    image: Path, mask: Path | None, plane: tuple[int, int] | None, _mtime: int
) -> tuple[tuple[int, ...], np.ndarray]:
    field = field_of_view(load_rgb(Record(image.name, image, mask, plane=plane)))
    return field.shape, np.packbits(field)
