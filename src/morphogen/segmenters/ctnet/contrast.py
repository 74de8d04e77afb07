"""The pixel contrast of CTNet: pixels of one class are drawn together, those of different classes apart.

Wang et al., "Exploring Cross-Image Pixel Contrast for Semantic Segmentation" (ICCV 2021, arXiv:2101.11939), whose loss
and sampling CTNet (Xiao et al., IEEE Transactions on Cybernetics 2024) takes over.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TEMPERATURE, _BASE_TEMPERATURE = 0.1, 0.07
_MAX_PIXELS = 1024
"""Pixels that are contrasted with each other, over all images and classes."""
_MAX_VIEWS = 100
"""Of one class of one image; a class with no more pixels than that is left out."""


def pixel_contrast(embedding: Tensor, mask: Tensor, predicted: Tensor) -> Tensor:
    """Mean over sampled pixels i of ``-T/T' mean_j log(e^(s_ij) / (e^(s_ij) + sum_k e^(s_ik)))``.

    j are the other sampled pixels of i's class, in any image of the batch, k those of other classes,
    ``s_ij = <x_i, x_j> / T``, T = 0.1 and T' = 0.07. Every class with more than 100 pixels in an image gives equally
    many pixels (100 or fewer), at random, half of them predicted wrongly where there are that many.

    The pixels of all images are contrasted with each other: the loss of a batch is no mean over its rows. In parts of a
    batch it contrasts each part by itself, as batch norm normalises each part by itself.

    Args:
        embedding: (B, D, H, W).
        mask: (B, H, W) int64 class ids.
        predicted: (B, H, W) int64, the most probable class.

    Returns:
        Scalar, 0 or more; 0 where fewer than two classes are large enough.
    """
    found = _classes(mask)
    if not found:
        return 0 * embedding.float().sum()  # every parameter keeps its (empty) gradient
    views = max(2, min(_MAX_PIXELS // len(found), _MAX_VIEWS))
    pixels, labels = [], []
    for row, label in found:
        of_class, right = mask[row].flatten() == label, predicted[row].flatten() == label
        pixels.append(embedding[row].flatten(1)[:, sample(of_class, right, views)].T.float())
        labels += [label] * views
    return contrast(torch.cat(pixels), torch.tensor(labels, device=mask.device))


def _classes(mask: Tensor) -> list[tuple[int, int]]:
    """(image, class) of every class that has more pixels in an image than are ever sampled."""
    found = []
    for row, labels in enumerate(mask):
        present, counts = labels.unique(return_counts=True)
        found += [(row, label) for label in present[counts > _MAX_VIEWS].tolist()]
    return found


def sample(of_class: Tensor, right: Tensor, n: int) -> Tensor:
    """Pixels of a class: half of them predicted wrongly, more of the others where there are too few of one kind.

    Args:
        of_class: (P,) bool, at least n of them true.
        right: (P,) bool, whether the pixel is predicted as that class.
        n: How many.

    Returns:
        (n,) int64 indices, all different, at random.
    """
    hard, easy = (_shuffled(part.nonzero()[:, 0]) for part in (of_class & ~right, of_class & right))
    n_hard = min(len(hard), max(n // 2, n - len(easy)))
    return torch.cat([hard[:n_hard], easy[: n - n_hard]])


def contrast(x: Tensor, labels: Tensor) -> Tensor:
    """The loss of `pixel_contrast`, of given pixels.

    Args:
        x: (N, D) float32.
        labels: (N,) int64; each occurs at least twice.
    """
    similarity = x @ x.T / _TEMPERATURE
    same = labels[:, None] == labels
    others = similarity.masked_fill(same, -torch.inf).logsumexp(dim=1, keepdim=True)
    log_part = similarity - torch.logaddexp(similarity, others)
    positive = same & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    mean = torch.where(positive, log_part, 0).sum(dim=1) / positive.sum(dim=1)
    return -(_TEMPERATURE / _BASE_TEMPERATURE) * mean.mean()


def _shuffled(indices: Tensor) -> Tensor:
    return indices[torch.randperm(len(indices), device=indices.device)]
