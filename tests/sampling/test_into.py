"""The plan of lesions in normal images: nested in n, wholly lit, areas in turn, known by content and not by place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.data.field_of_view import field_of_view
from morphogen.data.images import load_rgb
from morphogen.data.mask_words import AREA_BINS, area_bin
from morphogen.data.masks import load_mask
from morphogen.data.phantoms import phantom, phantom_dataset
from morphogen.data.placement import place_mask
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError
from morphogen.sampling.into import plan_as_is, plan_into
from morphogen.sampling.jobs import Job
from morphogen.training.rng import seed_of


@pytest.fixture
def masks(tmp_path: Path) -> Dataset:
    return phantom_dataset(tmp_path / "masks", "mucosa", 6, 48)


@pytest.fixture
def normals(tmp_path: Path) -> Dataset:
    """Four images of another size."""
    (tmp_path / "normals").mkdir()
    records = []
    for i in range(4):
        path = tmp_path / "normals" / f"n{i}.png"
        Image.fromarray(phantom("mucosa", 100 + i, 64)[0]).resize((80, 64)).save(path)
        records.append(Record(f"n{i}", path, origin={"source": "removed", "image": f"mucosa-{i:06d}"}))
    return Dataset("normals", tmp_path / "normals", tuple(records))


def same(one: Job, two: Job) -> bool:
    assert one.mask is not None
    assert two.mask is not None
    assert one.image is not None
    assert two.image is not None
    facts = [(job.id, job.seed, job.prompt, job.params) for job in (one, two)]
    return facts[0] == facts[1] and np.array_equal(one.mask, two.mask) and np.array_equal(one.image, two.image)


@pytest.mark.parametrize("areas", ["own", "even"])
def test_the_first_jobs_are_the_same_for_every_n(masks: Dataset, normals: Dataset, areas: str) -> None:
    long = list(plan_into(masks, normals, 15, "all", 3, ["a", "b"], areas))
    for n in (1, 5, 6, 7, 14):
        short = plan_into(masks, normals, n, "all", 3, ["a", "b"], areas)
        assert len(short) == n
        assert all(same(one, two) for one, two in zip(short, long, strict=False))


def test_ids_seeds_and_order(masks: Dataset, normals: Dataset) -> None:
    plan = plan_into(masks, normals, 14, "flip", 0)
    stems = [id_[:-3] for id_ in plan.ids]
    assert sorted(stems[:6]) == sorted(masks.ids)
    assert stems[:6] != list(masks.ids)
    assert stems[6:12] == stems[:6] == [*stems[12:], *stems[2:6]]
    assert [id_[-2:] for id_ in plan.ids] == ["00"] * 6 + ["01"] * 6 + ["02"] * 2
    assert all(job.seed == seed_of(0, job.id) for job in plan)
    assert all(job.source is not None and job.id.startswith(job.source.id) for job in plan)
    assert plan_into(masks, normals, 6, "flip", 1).ids != plan.ids[:6]


def test_jobs_hold_what_they_say(masks: Dataset, normals: Dataset) -> None:
    by_id = {record.id: record for record in normals}
    used = set()
    for job in plan_into(masks, normals, 24, "all", 0):
        assert job.image is not None
        assert job.mask is not None
        assert job.source is not None
        normal = job.params["normal"]
        used.add(normal["id"])
        assert normal["source"] == "removed"
        assert np.array_equal(job.image, load_rgb(by_id[normal["id"]]))
        assert job.mask.shape == job.image.shape[:2] == (64, 80)
        assert job.mask.dtype == np.int64
        assert job.mask.any()
        assert not (job.mask[~field_of_view(job.image)]).any()
        assert job.params["area"] == np.mean(job.mask > 0)
        assert job.params["area_bin"] == area_bin(job.mask)
        assert job.params["name"] == "all"
        assert "area_asked" not in job.params
        # Not into the image that was made of its own.
        assert by_id[normal["id"]].origin != {"source": "removed", "image": job.source.id}
    assert used == set(by_id)


def test_it_is_placed_as_place_mask_says(masks: Dataset, normals: Dataset) -> None:
    job = plan_into(masks, normals, 1, "random", 0)[0]
    assert job.image is not None
    assert job.source is not None
    assert job.source.mask is not None
    mask = (np.asarray(Image.open(job.source.mask)) > 0).astype(np.int64)
    own = field_of_view(load_rgb(job.source))
    placed, params = place_mask(mask, field_of_view(job.image), "random", job.seed, own)
    assert np.array_equal(placed, job.mask)
    assert params.items() <= job.params.items()


def test_even_areas_come_in_turn_and_each_mask_gets_them_all(masks: Dataset, normals: Dataset) -> None:
    jobs = list(plan_into(masks, normals, 18, "identity", 0, areas="even"))
    asked = [job.params["area_asked"] for job in jobs]
    assert asked[:6] == list(AREA_BINS) * 2
    for name in masks.ids:
        assert {job.params["area_asked"] for job in jobs if job.id.startswith(name)} == set(AREA_BINS)
    assert np.mean([job.params["area_bin"] == job.params["area_asked"] for job in jobs]) > 0.75


def test_the_only_normal_image_is_taken_whatever_it_was_made_of(masks: Dataset, normals: Dataset) -> None:
    alone = replace(normals, records=normals.records[:1])
    assert {job.params["normal"]["id"] for job in plan_into(masks, alone, 6, "flip", 0)} == {"n0"}


def test_masks_alone_have_no_field_of_view(masks: Dataset, normals: Dataset) -> None:
    loose = replace(masks, records=tuple(replace(r, image=r.mask) for r in masks if r.mask is not None))
    assert all(job.mask is not None and job.mask.any() for job in plan_into(loose, normals, 6, "flip", 0))


def test_prompts_are_taken_in_turn(masks: Dataset, normals: Dataset) -> None:
    assert [job.prompt for job in plan_into(masks, normals, 3, "flip", 0, ["a", "b"])] == ["a", "b", "a"]
    assert plan_into(masks, normals, 1, "flip", 0)[0].prompt is None


def test_masks_are_placed_when_they_are_wanted(
    masks: Dataset, normals: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_into(masks, normals, 100_000, "flip", 0)
    monkeypatch.setattr("morphogen.sampling.into.load_rgb", lambda record: pytest.fail("read too early"))
    assert len(plan) == 100_000


def test_digest_knows_content_and_not_place(masks: Dataset, normals: Dataset, tmp_path: Path) -> None:
    plan = plan_into(masks, normals, 4, "flip", 0)
    moved = read_dataset(shutil.copytree(masks.root, tmp_path / "moved"))
    root = shutil.copytree(normals.root, tmp_path / "elsewhere")
    there = replace(normals, root=root, records=tuple(replace(r, image=root / r.image.name) for r in normals))
    assert plan_into(moved, there, 4, "flip", 0).digest == plan.digest
    others = [
        plan_into(masks, normals, 5, "flip", 0),
        plan_into(masks, normals, 4, "all", 0),
        plan_into(masks, normals, 4, "flip", 1),
        plan_into(masks, normals, 4, "flip", 0, "a polyp"),
        plan_into(masks, normals, 4, "flip", 0, areas="even"),
    ]
    shutil.copyfile(there[0].image, there[1].image)
    others.append(plan_into(masks, there, 4, "flip", 0))
    assert moved[1].mask is not None
    shutil.copyfile(str(moved[0].mask), moved[1].mask)
    others.append(plan_into(moved, normals, 4, "flip", 0))
    assert len({plan.digest, *(other.digest for other in others)}) == 8


@pytest.fixture
def own(masks: Dataset, tmp_path: Path) -> Dataset:
    """The masks' own images as those to paint into, in another order, and one more."""
    (tmp_path / "own").mkdir()
    records = []
    for record in reversed(masks.records):
        path = shutil.copy(record.image, tmp_path / "own" / f"{record.id}.png")
        records.append(Record(record.id, Path(path)))
    Image.new("RGB", (5, 5)).save(tmp_path / "own" / "more.png")
    return Dataset("own", tmp_path / "own", (Record("more", tmp_path / "own" / "more.png"), *records))


class TestAsIs:
    """Every mask where it is, in the image of its name."""

    def test_jobs(self, masks: Dataset, own: Dataset) -> None:
        plan = plan_as_is(masks, own, 2, 3, ["a", "b", "c", "d", "e", "f"])
        assert plan.ids == tuple(f"{id_}_{copy:02d}" for copy in (0, 1) for id_ in masks.ids)
        for index, job in enumerate(plan):
            record = masks[index % 6]
            assert job.source == record
            assert job.mask is not None
            assert job.image is not None
            assert np.array_equal(job.mask, load_mask(record, masks.mask_values))
            assert np.array_equal(job.image, load_rgb(record))
            assert job.seed == seed_of(3, job.id)
            assert job.prompt == "abcdef"[index % 6]  # of as many texts as masks each goes with its mask
            area = float(np.mean(job.mask > 0))
            assert job.params == {
                "name": "identity", "version": 1, "flip": [False, False], "place": "as-is", "area": area,
                "normal": {"id": record.id, "source": "folder"}, "area_bin": area_bin(job.mask),
            }  # fmt: skip

    def test_a_mask_of_another_id_goes_by_its_stem(self, masks: Dataset, own: Dataset) -> None:
        renamed = replace(masks, records=tuple(replace(r, id=f"patient-{r.id}") for r in masks))
        assert [job.params["normal"]["id"] for job in plan_as_is(renamed, own, 1, 0)] == list(masks.ids)

    def test_digest(self, masks: Dataset, own: Dataset) -> None:
        plan = plan_as_is(masks, own, 1, 0)
        assert plan_as_is(masks, replace(own, records=own.records[::-1]), 1, 0).digest == plan.digest
        others = [
            plan_into(masks, own.select(masks.ids), 6, "identity", 0),
            plan_as_is(masks, own, 2, 0),
            plan_as_is(masks, own, 1, 1),
            plan_as_is(masks, own, 1, 0, "a polyp"),
            plan_as_is(masks.select(masks.ids[:5]), own, 1, 0),
        ]
        Image.fromarray(load_rgb(own[2]) // 2 + 60).save(own[2].image)
        others.append(plan_as_is(masks, own, 1, 0))
        assert len({plan.digest, *(other.digest for other in others)}) == 7

    def refused(self, masks: Dataset, own: Dataset, words: str, copies: int = 1) -> None:
        """At once, and not when the job is wanted."""
        with pytest.raises(InputError, match=words) as error:
            plan_as_is(masks, own, copies, 0)
        assert "\n" not in str(error.value)

    def test_no_image_of_its_name(self, masks: Dataset, own: Dataset) -> None:
        words = r"mucosa-000003.*: .*own holds no image mucosa-000003 to paint it into"
        self.refused(masks, own.where(lambda record: record.id != "mucosa-000003"), words)

    def test_another_size(self, masks: Dataset, own: Dataset) -> None:
        Image.new("RGB", (48, 40), (90, 60, 50)).save(own[2].image)
        self.refused(masks, own, r"mucosa-000004.* differ in size, 48 x 48 and 48 x 40 pixels; resize")

    def test_an_empty_mask(self, masks: Dataset, own: Dataset) -> None:
        Image.fromarray(np.zeros((48, 48), np.uint8)).save(str(masks[2].mask))
        self.refused(masks, own, r"mucosa-000002\.png: is empty")

    def test_where_the_image_shows_nothing(self, masks: Dataset, own: Dataset) -> None:
        """A rim may lie outside, as hand-drawn outlines do, but not the lesion."""
        lit = np.zeros((48, 48, 3), np.uint8)
        lit[:, 16:] = np.random.default_rng(0).integers(90, 200, (48, 32, 3))
        Image.fromarray(lit).save(own[3].image)
        for left, fits in ((14, True), (4, False)):
            mask = np.zeros((48, 48), np.uint8)
            mask[10:30, left : left + 20] = 255
            Image.fromarray(mask).save(str(masks[3].mask))
            if fits:
                plan_as_is(masks, own, 1, 0)
            else:
                self.refused(masks, own, r"mucosa-000003\.png: .* % of its lesion lie outside .*; correct the mask")

    def test_nothing_asked_for(self, masks: Dataset, own: Dataset) -> None:
        self.refused(masks, own, "0 pairs are asked for", copies=0)


def test_an_empty_mask_is_named(masks: Dataset, normals: Dataset) -> None:
    assert masks[2].mask is not None
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(masks[2].mask)
    with pytest.raises(InputError, match=r"mucosa-000002\.png: is empty, so there is nothing to paint"):
        plan_into(masks, normals, 4, "flip", 0)


def test_a_black_normal_image_is_named(masks: Dataset, normals: Dataset) -> None:
    for record in normals:
        Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(record.image)
    with pytest.raises(InputError, match=r"n\d\.png: the field of view has no room for a lesion") as error:
        plan_into(masks, normals, 4, "flip", 0)[0]
    assert "\n" not in str(error.value)


def test_bad_input_is_one_line(masks: Dataset, normals: Dataset) -> None:
    bare = replace(masks, records=tuple(replace(record, mask=None) for record in masks))
    none = replace(normals, records=())
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: plan_into(bare, normals, 1, "flip", 0), "holds no masks"),
        (lambda: plan_into(masks, none, 1, "flip", 0), "holds no images; give a folder with images to paint into"),
        (lambda: plan_into(masks, normals, 0, "flip", 0), "0 pairs are asked for"),
        (lambda: plan_into(masks, normals, 1, "explode", 0), "'explode' is none of identity"),
        (lambda: plan_into(masks, normals, 1, "flip", 0, areas="odd"), "'odd' is none of own, even"),
    ]
    for call, words in cases:
        with pytest.raises(InputError, match=words) as error:
            call()
        assert "\n" not in str(error.value)
