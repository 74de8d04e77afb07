"""Measures of masks on figures with known values, and the distance against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.draw import disk

from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError
from morphogen.metrics.mask_realism import MEASURES, OF_HELD, check_classes, compare, compare_masks, measure


def disc(radius: float, centre: tuple[int, int] = (100, 60), shape: tuple[int, int] = (200, 240)) -> np.ndarray:
    mask = np.zeros(shape, np.int64)
    mask[disk(centre, radius, shape=shape)] = 1
    return mask


def test_a_disc() -> None:
    found = measure(disc(40))
    assert found["area"] == pytest.approx(np.pi * 40**2 / (200 * 240), rel=0.01)
    assert found["components"] == 1
    assert found["eccentricity"] == pytest.approx(0, abs=0.02)
    assert found["solidity"] == pytest.approx(1, abs=0.02)
    assert found["compactness"] == pytest.approx(1, abs=0.03)
    assert (found["centre_x"], found["centre_y"]) == (pytest.approx(60.5 / 240), pytest.approx(100.5 / 200))


def test_a_rectangle_and_two_pieces() -> None:
    mask = np.zeros((100, 100))
    mask[10:20, 10:50] = 1
    found = measure(mask)
    assert found["eccentricity"] == pytest.approx(np.sqrt(1 - (10**2) / 40**2), rel=0.01)
    assert found["solidity"] == 1
    assert found["compactness"] == pytest.approx(4 * np.pi * 400 / 100**2, rel=0.15)
    mask[60:70, 10:50] = 1
    both = measure(mask)
    assert both["components"] == 2
    assert both["solidity"] == pytest.approx(800 / (60 * 40))
    assert both["compactness"] < 0.6 * found["compactness"]
    touching = np.zeros((9, 9))
    touching[2:4, 2:4] = touching[4:6, 4:6] = 1  # by a corner
    assert measure(touching)["components"] == 1


@pytest.mark.parametrize("pixels", [[(3, 3)], [(3, 3), (3, 4)], [(0, 0), (7, 7)], [(2, 1), (2, 2), (2, 3), (2, 4)]])
def test_the_smallest_masks_have_finite_measures(pixels: list[tuple[int, int]]) -> None:
    mask = np.zeros((8, 8))
    for pixel in pixels:
        mask[pixel] = 1
    found = measure(mask)
    assert set(found) == set(MEASURES)
    assert np.isfinite(list(found.values())).all()
    assert found["area"] == len(pixels) / 64


def test_an_empty_mask_has_an_area_and_nothing_else() -> None:
    assert measure(np.zeros((5, 5))) == {"area": 0.0, "components": 0.0}


def literal_ks(x: np.ndarray, y: np.ndarray) -> float:
    return max(abs((x <= t).mean() - (y <= t).mean()) for t in (*x, *y))


def test_the_distance_is_that_of_the_cumulative_distributions() -> None:
    rng = np.random.default_rng(0)
    small, large = ([measure(disc(r)) for r in rng.uniform(low, low + 30, n)] for low, n in ((10, 12), (25, 15)))
    small.append(measure(np.zeros((200, 240))))
    found = compare(small, large)
    assert (found["n"], found["n_real"], found["empty"], found["empty_real"]) == (13, 15, 1, 0)
    for name, value in found["measures"].items():
        x, y = (np.array([row[name] for row in rows if name in row]) for rows in (small, large))
        assert value["ks"] == pytest.approx(literal_ks(x, y))
        assert value["n"] == (12 if name in OF_HELD else 13)
        assert value["median_real"] == np.median(y)
    assert found["measures"]["area"]["ks"] > found["measures"]["centre_x"]["ks"]
    assert found["measures"]["area"]["p"] < 0.05
    assert compare(large, large)["measures"]["area"] == {
        "ks": 0, "p": 1, "n": 15, "n_real": 15, "median": found["measures"]["area"]["median_real"],
        "median_real": found["measures"]["area"]["median_real"],
    }  # fmt: skip


def test_nothing_to_compare_is_none() -> None:
    empty = [measure(np.zeros((5, 5)))] * 2
    found = compare(empty, [measure(disc(9))] * 2)
    assert found["measures"]["solidity"] is None
    assert found["measures"]["area"]["ks"] == 1


def dataset(folder: Path, masks: list[np.ndarray], classes: tuple[str, ...]) -> Dataset:
    folder.mkdir()
    for k, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8)).save(folder / f"{k}.png")
    records = tuple(Record(str(k), folder / f"{k}.png", folder / f"{k}.png") for k in range(len(masks)))
    return Dataset(folder.name, folder, records, classes, {k: k for k in range(len(classes))})


def test_every_class_on_its_own(tmp_path: Path) -> None:
    one, two = disc(20) + 2 * disc(15, (50, 180)), disc(30) + 2 * disc(15, (50, 180))
    classes = ("background", "polyp", "tool")
    sets = [dataset(tmp_path / name, [mask] * 3, classes) for name, mask in (("syn", one), ("real", two))]
    check_classes(*sets)
    found = compare_masks(*sets)
    assert list(found) == ["polyp", "tool"]
    assert found["polyp"]["measures"]["area"]["ks"] == 1
    assert found["tool"]["measures"]["area"]["ks"] == 0


def test_other_classes_are_refused(tmp_path: Path) -> None:
    sets = [
        dataset(tmp_path / "syn", [disc(9)], ("background", "polyp", "tool")),
        dataset(tmp_path / "real", [disc(9)], ("background", "polyp")),
    ]
    with pytest.raises(InputError, match=r"syn: its masks hold 3 classes, those of .*real 2; "):
        check_classes(*sets)


@pytest.mark.realdata
def test_real_masks_differ_by_organ(real_data: Path) -> None:
    skin = read_dataset(real_data / "skin" / "ph2")
    some, others = (skin.select(skin.ids[k:80:2]) for k in (0, 1))
    polyps = read_dataset(real_data / "polyps" / "cvc_clinicdb")
    near = compare_masks(some, others)["lesion"]["measures"]
    far = compare_masks(some, polyps.select(polyps.ids[:400:10]))["lesion"]["measures"]
    assert near["area"]["p"] > 0.01
    assert far["area"]["ks"] > 0.5 > near["area"]["ks"]
