"""Images of any size: the border is repeated, of image and mask alike, and cut off again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.segmenters.any_size import AnySize


class Seen(nn.Module):
    """Returns what it is given, and keeps it."""

    def forward(self, image: Tensor) -> Tensor:
        self.image = image
        return image

    def losses(self, image: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        self.image, self.mask = image, mask
        return {"loss": image.mean()}


def test_the_border_is_repeated_and_cut_off() -> None:
    image = torch.rand(2, 3, 5, 9)
    net = AnySize(Seen(), 4)
    assert torch.equal(net(image), image)
    repeated = image[:, :, [*range(5), 4, 4, 4]][:, :, :, [*range(9), 8, 8, 8]]
    assert torch.equal(net.net.image, repeated)


def test_losses_see_image_and_mask_with_the_same_border() -> None:
    image, mask = torch.rand(1, 3, 6, 4), torch.randint(0, 200, (1, 6, 4))
    net = AnySize(Seen(), 4)
    net.losses(image, mask, torch.zeros(1, dtype=torch.long))
    assert torch.equal(net.net.image, F.pad(image, (0, 0, 0, 2), mode="replicate"))
    assert torch.equal(net.net.mask, mask[:, [*range(6), 5, 5]])
    assert net.net.mask.dtype == torch.int64


def test_sizes_that_divide_are_left_alone() -> None:
    image = torch.rand(1, 3, 8, 4)
    net = AnySize(Seen(), 4)
    net(image)
    assert net.net.image is image
