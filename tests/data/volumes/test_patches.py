"""Patches: padding and back, places, turns, changes of intensity."""

from __future__ import annotations

import numpy as np
import pytest

from data.volumes.small_volumes import blob, grey
from morphogen.data.volumes.patches import augment, crop, draw_patch, draw_start, pad, strong, unpad
from morphogen.errors import InputError


def rng(seed: int = 0) -> np.random.Generator:
    """Draws."""
    return np.random.default_rng(seed)


@pytest.mark.parametrize("size", [(16, 10, 11), (12, 10, 8), (4, 4, 4), (13, 2, 30)])
def test_padding_is_undone_exactly(size: tuple[int, ...]) -> None:
    image = np.stack([grey() + 5, grey(1)])
    grown, label, margins = pad(image, blob(), size)
    assert label is not None
    assert grown.shape[1:] == label.shape == tuple(map(max, zip((12, 10, 8), size, strict=True)))
    assert np.array_equal(unpad(grown, margins), image)
    assert np.array_equal(unpad(label, margins), blob())
    assert label.sum() == blob().sum()
    for channel, small in zip(grown, image, strict=True):
        assert channel.min() == small.min()
        assert (channel == small.min()).sum() == channel.size - small.size + 1
    assert all(0 <= after - before <= 1 for before, after in margins)


def test_images_of_two_axes() -> None:
    image, mask = grey(0, (1, 9, 20)), blob((9, 20))
    grown, label, margins = pad(image, mask, (16, 16))
    assert label is not None
    assert grown.shape == (1, 16, 20)
    assert np.array_equal(unpad(grown, margins), image)
    patch, part = draw_patch(image, mask, (16, 16), rng(), "strong", 0.5)
    assert part is not None
    assert (patch.shape, part.shape) == ((1, 16, 16), (16, 16))


def test_a_crop_is_a_copy() -> None:
    image, label = grey()[None], blob()
    patch, part = crop(image, label, (4, 5, 6), (8, 5, 2))
    assert part is not None
    assert np.array_equal(patch[0], grey()[8:12, 5:10, 2:8])
    assert np.array_equal(part, blob()[8:12, 5:10, 2:8])
    patch[:], part[:] = 9, 9
    assert np.array_equal(image[0], grey())
    assert crop(image, None, (4, 4, 4), (0, 0, 0))[1] is None


def test_places_are_drawn_evenly_from_all_that_fit() -> None:
    draws = rng()
    starts = [draw_start((6, 4, 5), (4, 4, 4), draws) for _ in range(600)]
    assert set(starts) == {(x, 0, z) for x in range(3) for z in range(2)}
    assert min(starts.count(start) for start in set(starts)) > 60
    with pytest.raises(ValueError, match="pad first"):
        draw_start((3, 4, 5), (4, 4, 4), draws)


def test_places_by_foreground() -> None:
    label = np.zeros((30, 30, 30), np.uint8)
    label[25, 4, 28] = 2
    assert draw_start(label.shape, (10, 10, 10), rng(), label, 1.0) == (20, 0, 20)
    draws = rng()
    starts = [draw_start(label.shape, (10, 10, 10), draws, label, 0.5) for _ in range(400)]
    assert 0.4 < np.mean([start == (20, 0, 20) for start in starts]) < 0.6
    assert draw_start(label.shape, (10, 10, 10), rng(), label * 0, 1.0) != (20, 0, 20)
    assert draw_start(label.shape, (10, 10, 10), rng(), None, 1.0) == draw_start((30, 30, 30), (10, 10, 10), rng())


def test_all_eight_turns_are_drawn_alike_for_image_and_label() -> None:
    image, draws = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3), rng()
    label = image[0].astype(np.uint8)
    seen: dict[bytes, int] = {}
    for _ in range(800):
        made, part = augment(image, label, "turns", draws)
        assert part is not None
        assert np.array_equal(made[0], part)
        assert set(made[0, 0, 0] - made[0, 0, 0, 0]) == {0, 1, 2}  # the third axis is left alone
        seen[made.tobytes()] = seen.get(made.tobytes(), 0) + 1
    assert len(seen) == 8
    assert min(seen.values()) > 60
    assert image.tobytes() in seen


def test_unequal_sides_keep_their_shape() -> None:
    image, draws = grey()[None], rng()
    seen = {augment(image, None, "turns", draws)[0].tobytes() for _ in range(100)}
    assert len(seen) == 4
    assert augment(image, None, "turns", draws)[0].shape == image.shape


def test_none_leaves_all_as_it_is() -> None:
    image, label = augment(grey()[None], blob(), "none", rng())
    assert np.array_equal(image[0], grey())
    assert label is not None
    assert np.array_equal(label, blob())
    with pytest.raises(InputError, match="augmentation mirror: choose one of none, turns, strong"):
        augment(image, label, "mirror", rng())


def test_strong_changes_intensities_alone() -> None:
    image = np.stack([grey(), grey(1) * 100 + 400])
    made = [strong(image, rng(seed)) for seed in range(60)]
    for one in made:
        assert one.shape == image.shape
        assert one.dtype == np.float32
        assert np.isfinite(one).all()
        for channel, given in zip(one, image, strict=True):
            assert np.corrcoef(channel.ravel(), given.ravel())[0, 1] > 0.1
    same = np.mean([np.array_equal(one, image) for one in made])
    assert 0 < same < 0.3  # 0.3 squared is 0.09
    flat = np.full((1, 4, 4, 4), 3, np.float32)
    assert all(np.isfinite(strong(flat, rng(seed))).all() for seed in range(20))
    _, label = augment(image, blob(), "strong", rng(3))
    assert label is not None
    assert label.sum() == blob().sum()


def test_the_same_draws_give_the_same_patch() -> None:
    one, two = (draw_patch(grey()[None], blob(), (8, 8, 12), rng(5), "strong", 0.3) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert one[0].shape == (1, 8, 8, 12)
    assert one[1] is not None
    assert two[1] is not None
    assert np.array_equal(one[1], two[1])
