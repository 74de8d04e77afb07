"""What Diff-CL takes to train by the field's protocol: 2 + 2 patches of 112 x 112 x 80, V-Nets of 16 filters.

    python runs/diffcl_memory.py [--mixed-precision bf16] [--patch 112x112x80]

Neither data nor a GPU are needed: networks without content take one step, and every allocation is counted
(`morphogen.training.memory`). Prints the parameters, and the most that each network's step takes; they take turns. The
scan is this package's own, which keeps little; mamba-ssm's may keep less.
"""

from __future__ import annotations

import argparse

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from morphogen.segmenters.diffcl.config import SemiConfig
from morphogen.segmenters.diffcl.recipe import published
from morphogen.segmenters.diffcl.vnet import VNet, VNetConfig
from morphogen.segmenters.losses import cross_entropy, soft_dice_loss
from morphogen.training.memory import GB, peak_of_step, without_content

ROWS = 4


def peak(shape: VNetConfig, patch: tuple[int, ...], precision: str) -> tuple[int, float]:
    """Parameters, and GB of a step of four patches with the weights, their gradients and SGD's momentum."""
    with torch.device("meta"):
        net = VNet(shape)
    with FakeTensorMode():
        weights = without_content(net)
        channels = shape.in_channels + shape.n_classes * shape.denoiser
        image, label = torch.empty(ROWS, channels, *patch), torch.zeros(ROWS, *patch, dtype=torch.long)
        t = torch.zeros(ROWS, dtype=torch.long) if shape.denoiser else None

        def loss() -> torch.Tensor:
            logits = net(image, t)
            return cross_entropy(logits, label) + soft_dice_loss(logits, label)

        step = peak_of_step(loss, weights, precision)
        n = sum(p.numel() for p in net.parameters())
    return n, (step + 8 * n) / GB  # weights and momentum; gradients are counted


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mixed-precision", default="bf16", choices=("no", "bf16"))
    parser.add_argument("--patch", default="112x112x80")
    options = parser.parse_args()
    patch = tuple(int(side) for side in options.patch.split("x"))
    config = SemiConfig(**published())
    plain = SemiConfig(**published(), operator="none")
    nets = {
        "V-Net (all baselines)": plain.shape(3, 1, 2),
        "CS, with modules at levels 3 and 4": config.shape(3, 1, 2),
        "DS": config.denoiser(3, 1, 2),
    }
    print(f"2 + 2 patches of {options.patch}, {options.mixed_precision}\n")
    print("| network | parameters | GB of its step |\n|---|---|---|")
    for name, shape in nets.items():
        n, gigabytes = peak(shape, patch, options.mixed_precision)
        print(f"| {name} | {n:,} | {gigabytes:.1f} |", flush=True)


if __name__ == "__main__":
    main()
