"""What of an image, a volume or a feature map is of high frequency: three linear operators.

All take (B, C, *S) with S of two or three axes and give the same shape and type; they compute in float32, in float64
where the input has it. A constant gives 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}


def fft_high(f: Tensor, cut: float) -> Tensor:
    """High-pass by the Fourier transform: ``Re ifftn(G fftn(f))``, ``G = 1 - exp(-r^2 / (2 cut^2))``.

    The complement of a Gaussian low-pass (Gonzalez and Woods, Digital Image Processing, section 4.9). The grid is taken
    to go on periodically.

    Args:
        f: (B, C, *S), any sizes.
        cut: In cycles per voxel, above 0: at this distance r from frequency 0 a share of 0.39 remains. The highest
            frequency along an axis is 0.5.
    """
    x = _wide(f)
    shape, axes = x.shape[2:], tuple(range(2, x.ndim))
    # A real grid has half of its spectrum to spare. Half precision is no option: its FFT wants powers of two.
    of_axis = [torch.fft.fftfreq(n, device=x.device, dtype=x.dtype) for n in shape[:-1]]
    of_axis.append(torch.fft.rfftfreq(shape[-1], device=x.device, dtype=x.dtype))
    r2 = sum((axis.square() for axis in torch.meshgrid(*of_axis, indexing="ij")), torch.zeros((), device=x.device))
    gain = -torch.expm1(-r2 / (2 * cut**2))
    return torch.fft.irfftn(torch.fft.rfftn(x, dim=axes) * gain, s=shape, dim=axes).to(f.dtype)


def haar_high(f: Tensor) -> Tensor:
    """All bands but the lowest of one level of the Haar wavelet transform (Mallat 1989), put together again.

    That is f less the mean of each block of 2 x 2 (x 2). An odd size is first extended by its last plane once more.

    Args:
        f: (B, C, *S), any sizes.
    """
    x = _wide(f)
    odd = [end for size in reversed(x.shape[2:]) for end in (0, size % 2)]
    low = _POOL[x.ndim - 2](F.pad(x, odd, mode="replicate"), 2)
    for axis, size in enumerate(x.shape[2:], start=2):
        low = low.repeat_interleave(2, dim=axis).narrow(axis, 0, size)
    return (x - low).to(f.dtype)


def laplacian_high(f: Tensor) -> Tensor:
    """f less the mean of the 3 x 3 (x 3) around each voxel, beyond the border the nearest one.

    Up to its factor -1/9 (-1/27) the discrete Laplacian over all 8 (26) neighbours.

    Args:
        f: (B, C, *S), any sizes.
    """
    x = _wide(f)
    padded = F.pad(x, (1, 1) * (x.ndim - 2), mode="replicate")
    return (x - _POOL[x.ndim - 2](padded, 3, stride=1)).to(f.dtype)


def _wide(f: Tensor) -> Tensor:
    return f.to(torch.promote_types(f.dtype, torch.float32))
