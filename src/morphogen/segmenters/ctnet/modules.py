"""The parts of CTNet's decoder (Xiao et al., IEEE Transactions on Cybernetics 2024), all of one width."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """A convolution without bias and its batch norm, not rectified: what is multiplied later may be negative."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs))


def twice(width: int) -> nn.ConvTranspose2d:
    """(B, width, h, w) -> (B, width, 2h, 2w)."""
    return nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)


def up(width: int) -> nn.Sequential:
    """(B, width, h, w) -> (B, width, 2h, 2w), smoothed."""
    return nn.Sequential(twice(width), conv_norm(width, width, 3))


class SelfMultiscaleInteraction(nn.Module):
    """SMIM: a level and its half-size copy exchange what they see, twice; the result is added to the level.

    With H the level's stream, L that of half its size, down = 2 x 2 mean, enlarge = bilinear, r = ReLU after batch norm
    and c a 3 x 3 convolution of its own at every place:

    * H1 = r(c(x)), L1 = r(c(down(x)))
    * H2 = r(c(H1) + c(enlarge(L1))), L2 = r(c(L1) + c(down(H1)))
    * x + r(c(H2) + c(enlarge(L2)))
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # from which stream to which, and the step; a norm for each stream that a step ends in
        names = ("hh0", "hl0", "hh1", "hl1", "lh1", "ll1", "hh2", "lh2")
        self.convs = nn.ModuleDict({name: nn.Conv2d(width, width, 3, padding=1) for name in names})
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(width) for name in ("h0", "l0", "h1", "l1", "h2")})

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, width, h, w)."""
        c, n = self.convs, self.norms
        high = F.relu(n["h0"](c["hh0"](x)))
        low = F.relu(n["l0"](c["hl0"](_halved(x))))
        high, low = (
            F.relu(n["h1"](c["hh1"](high) + c["lh1"](_enlarged(low, x)))),
            F.relu(n["l1"](c["ll1"](low) + c["hl1"](_halved(high)))),
        )
        return x + F.relu(n["h2"](c["hh2"](high) + c["lh2"](_enlarged(low, x))))


class CollectionInformation(nn.Module):
    """CIM: what is deep guides what is fine. With u one learned enlargement for all three places:

    m' = u(high) m + m, l' = u(m) l + l, result = u(m') l' + l'.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = up(width)

    def forward(self, high: Tensor, middle: Tensor, low: Tensor) -> Tensor:
        """(B, width, h, w), (B, width, 2h, 2w), (B, width, 4h, 4w) -> (B, width, 4h, 4w)."""
        guided = self.up(high) * middle + middle
        low = self.up(middle) * low + low
        return self.up(guided) * low + low


class ProjectionHead(nn.Module):
    """The space that is contrasted: three learned enlargements, a 1 x 1 convolution, unit length."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [twice(width), nn.BatchNorm2d(width), nn.ReLU()]
        self.project = nn.Sequential(*layers, nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, width, 8h, 8w), of length 1 along the channels."""
        return F.normalize(self.project(x), dim=1)


def _halved(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, an odd row or column left out; a side of one pixel stays as it is."""
    return F.avg_pool2d(x, (min(2, x.shape[-2]), min(2, x.shape[-1])))


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
