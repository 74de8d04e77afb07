"""EfficientNet-Lite0: the classifier and the five feature levels that a U-Net decoder reads.

Architecture: Tan and Le, "EfficientNet" (ICML 2019), in its Lite variant (TensorFlow TPU models, 2020): no
squeeze-and-excitation, ReLU6 instead of swish, stem and head not scaled. Module names are those of the PyTorch ports
whose ImageNet weights are published, so that a state dict loads key for key.

Convolutions pad like TensorFlow's "same" at the even sizes that a strided convolution meets here: a stride of 2 puts
the odd pixel of padding at the bottom and right. Callers keep height and width at multiples of 32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 32
"""Height and width of the input must be multiples of this."""
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Input normalisation of the ImageNet weights, for RGB in [0, 1]: (x - 127) / 128 on 8-bit values."""

_STAGES = (  # repeats, kernel, stride, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_TAPS = (0, 2, 4, 10, 15)  # last block of each resolution
CHANNELS = (16, 24, 40, 112, 320)
"""Channels of the features at strides 2, 4, 8, 16, 32."""


class SameConv2d(nn.Conv2d):
    """Convolution without bias whose padding is TensorFlow's "same" for sizes divisible by the stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        before = (kernel - stride) // 2
        after = kernel - stride - before
        self._pad = (before, after, before, after)
        if before == after:
            self.padding = (before, before)

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        return super().forward(input if self._pad[0] == self._pad[1] else F.pad(input, self._pad))


def _norm(channels: int) -> nn.BatchNorm2d:
    # the port's momentum of 0.01 forgets ImageNet's statistics too slowly for runs of a few hundred steps
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


class MBConv(nn.Module):
    """Inverted residual block: expand 1x1, depthwise k x k, project 1x1; identity skip where the shape allows it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = SameConv2d(inputs, inner, 1)
            self._bn0 = _norm(inner)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv = SameConv2d(inner, outputs, 1)
        self._bn2 = _norm(outputs)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class Lite0Features(nn.Module):
    """The convolutional trunk of EfficientNet-Lite0 (2,958,848 parameters)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, 2)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList()
        inputs = 32
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for i in range(repeats):
                self._blocks.append(MBConv(inputs, outputs, kernel, stride if i == 0 else 1, expansion))
                inputs = outputs

    def features(self, x: Tensor) -> list[Tensor]:
        """Features at strides 2, 4, 8, 16 and 32.

        Args:
            x: (B, 3, H, W), normalised by `MEAN` and `STD`, H and W multiples of 32.

        Returns:
            Five tensors with the channels of `CHANNELS`, finest first.
        """
        x = F.relu6(self._bn0(self._conv_stem(x)))
        taps = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in _TAPS:
                taps.append(x)
        return taps

    def forward(self, x: Tensor) -> list[Tensor]:
        """Same as `features`."""
        return self.features(x)


class Lite0(Lite0Features):
    """The ImageNet classifier (4,652,008 parameters)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self._conv_head = SameConv2d(320, 1280, 1)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features: (B, 3, H, W) normalised by `MEAN` and `STD` -> (B, 1280), in [0, 6]."""
        return F.relu6(self._bn1(self._conv_head(self.features(x)[-1]))).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(B, 3, H, W) normalised by `MEAN` and `STD` -> (B, classes) logits."""
        return self._fc(self.embed(x))


def pretrained_lite0() -> Lite0:
    """The classifier with its ImageNet weights, in evaluation mode.

    Raises:
        InputError: The package that carries the weights is not installed.
    """
    from morphogen.metrics.weights import load_member

    with torch.device("meta"):
        model = Lite0()
    model.load_state_dict(load_member("lite0"), strict=True, assign=True)
    return model.eval()


def lite0_encoder(pretrained: bool) -> Lite0Features:
    """The trunk, with ImageNet weights or freshly initialised."""
    trunk = Lite0Features()
    if pretrained:
        wanted = trunk.state_dict().keys()
        trunk.load_state_dict({k: v for k, v in pretrained_lite0().state_dict().items() if k in wanted}, strict=True)
    return trunk
