"""Gradient-domain blending: what is pasted keeps its own detail and takes the colour of where it lands."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, signal, sparse
from scipy.sparse.linalg import splu

DARK = 25
"""Grey levels; a frame corner no channel of which is brighter lies outside the field of view."""
STEP_LIMIT = 48.0
"""Grey levels; how far the colour step at a border point may lie from the median step around the region. A highlight
or an instrument under the border would otherwise bleed through the whole region."""
ANCHOR = 1e-9
"""Pull towards 0 that makes the equations of a part without known border solvable; elsewhere it is lost in rounding."""
PATCHES = 3
"""Patches of healthy surface that may be laid over one lesion."""


def harmonic(values: np.ndarray, region: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill a region with the solution of Laplace's equation.

    Known neighbours outside the region fix its border. Through the frame's edge and towards unknown neighbours there
    is no flux; a part of the region that nothing fixes becomes 0.

    Args:
        values: (H, W, C) float; read where `known` and outside the region only.
        region: (H, W) bool.
        known: (H, W) bool.

    Returns:
        (H, W, C) float64, equal to `values` outside the region.
    """
    filled = values.astype(np.float64)
    n = int(region.sum())
    if n == 0:
        return filled
    index = np.full(region.shape, -1)
    index[region] = np.arange(n)
    degree, border, rows, columns = np.full(n, ANCHOR), np.zeros((n, values.shape[2])), [], []
    for here, there in _neighbours():
        linked, fixed = region[here] & region[there], region[here] & ~region[there] & known[there]
        degree += np.bincount(index[here][linked | fixed], minlength=n)
        rows.append(index[here][linked])
        columns.append(index[there][linked])
        border[index[here][fixed]] += filled[there][fixed]
    links = (np.concatenate(rows), np.concatenate(columns))
    laplacian = sparse.diags(degree) - sparse.coo_matrix((np.ones(len(links[0])), links), shape=(n, n))
    filled[region] = splu(sparse.csc_matrix(laplacian), permc_spec="MMD_AT_PLUS_A").solve(border)
    return filled


def paste(background: np.ndarray, source: np.ndarray, region: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Paste `source` onto `background` inside `region`.

    Poisson blending (Perez et al., 2003, eq. 3) in the equivalent form source + harmonic(background - source), with
    the step at the border limited to `STEP_LIMIT` around its median, and only points in the background's field of
    view speaking for its colour. From `core` outwards to the edge of the region the result fades into the
    background, which hides what the limit leaves.

    Args:
        background: (H, W, 3) float in [0, 255].
        source: (H, W, 3) float in [0, 255], defined on the region and one pixel around it.
        region: (H, W) bool.
        core: (H, W) bool, within the region.

    Returns:
        (H, W, 3) float64 in [0, 255].
    """
    known = field_of_view(background)
    ring = ndimage.binary_dilation(region) & ~region & known
    step = background.astype(np.float64) - source
    if ring.any():
        middle = np.median(step[ring], axis=0)
        step = np.clip(step, middle - STEP_LIMIT, middle + STEP_LIMIT)
    blended = source + harmonic(step, region, known)
    return np.clip(background + _fade(region, core) * (blended - background), 0, 255)


def field_of_view(image: np.ndarray) -> np.ndarray:
    """(H, W) bool: all but the dark areas that touch the frame (a scope's corners, a dermoscope's rim).

    Args:
        image: (H, W, 3) in [0, 255].
    """
    areas, _ = ndimage.label(image.max(axis=2) < DARK)
    edge = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
    return ndimage.binary_erosion(~np.isin(areas, edge[edge > 0]), border_value=1)


def without_lesion(image: np.ndarray, lesion: np.ndarray, margin: int) -> np.ndarray:
    """Replace the lesion by healthy surface of the same image.

    A smooth membrane closes the gap, which keeps the light as it is around it. Detail comes from the image itself,
    moved (up to `PATCHES` times) so that healthy pixels come to lie over the lesion and fit to what is around it.

    Args:
        image: (H, W, 3) uint8.
        lesion: (H, W) bool.
        margin: Pixels around the lesion that are replaced too.

    Returns:
        (H, W, 3) uint8.
    """
    field = field_of_view(image)
    region = grow(lesion, margin) & field
    healthy = field & ~region
    plate = image.astype(np.float64)
    for _ in range(PATCHES):
        if not region.any():
            break
        plate = harmonic(plate, region, field)
        moved, covered = _shifted(image, healthy, region)
        patch = region & covered
        core = ndimage.binary_erosion(patch, iterations=margin)
        if not core.any():
            break  # a sliver would show as a scratch
        detail = moved - _smooth(moved, covered, 2.0 * margin)
        plate += _fade(patch, core) * detail
        region &= ~covered
    return np.rint(plate).clip(0, 255).astype(np.uint8)


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """(H, W) bool: all pixels at most `pixels` away from the mask."""
    return ndimage.distance_transform_edt(~mask) <= pixels if mask.any() else mask


def _fade(region: np.ndarray, core: np.ndarray) -> np.ndarray:
    """(H, W, 1) weights: 1 in the core, 0 outside the region, linear between."""
    inwards, outwards = ndimage.distance_transform_edt(region), ndimage.distance_transform_edt(~core)
    return (inwards / np.maximum(inwards + outwards, 1))[..., None]


def _shifted(image: np.ndarray, healthy: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image and its healthy part, moved by the shift that covers the region and continues its surroundings best."""
    height, width = region.shape
    dy, dx = np.mgrid[1 - height : height, 1 - width : width]
    cost = _uncovered(healthy, region) + _misfit(image, healthy, region)
    shift = np.argmin(cost + 1e-3 * np.hypot(dy, dx) / (height + width))
    y, x = np.mgrid[:height, :width]
    y, x = y + dy.flat[shift], x + dx.flat[shift]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y, x = y.clip(0, height - 1), x.clip(0, width - 1)
    return image[y, x].astype(np.float64), inside & healthy[y, x]


def _smooth(image: np.ndarray, known: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of the known pixels: (H, W, 3) float64, 0 where none is near."""
    weight = ndimage.gaussian_filter(known.astype(np.float64), sigma)[..., None]
    return ndimage.gaussian_filter(image * known[..., None], (sigma, sigma, 0)) / np.maximum(weight, 1e-6)


def _uncovered(healthy: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(2H-1, 2W-1) share of the region over which no healthy pixel comes to lie, for every shift."""
    return 1 - np.rint(_correlate(healthy, region)) / region.sum()


def _misfit(image: np.ndarray, healthy: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(2H-1, 2W-1) root mean square colour difference in [0, 1] around the region, for every shift; 1 where unknown."""
    ring = grow(region, 3) & healthy
    n = np.rint(_correlate(healthy, ring))
    squares = np.zeros(n.shape)
    for channel in np.moveaxis(image / 255.0, -1, 0):
        squares += _correlate(healthy * channel**2, ring) + _correlate(healthy, ring * channel**2)
        squares -= 2 * _correlate(healthy * channel, ring * channel)
    known = n >= 0.5 * max(1, ring.sum())
    return np.where(known, np.sqrt(np.maximum(squares, 0) / 3 / np.maximum(n, 1)), 1.0)


def _correlate(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Sum over x of moving(x + shift) fixed(x), for every shift."""
    return signal.correlate(moving.astype(np.float64), fixed.astype(np.float64), mode="full", method="fft")


def _neighbours() -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Index pairs (pixel, its neighbour) of the four directions."""
    whole, head, tail = slice(None), slice(None, -1), slice(1, None)
    pairs = [((head, whole), (tail, whole)), ((whole, head), (whole, tail))]
    return pairs + [(there, here) for here, there in pairs]
