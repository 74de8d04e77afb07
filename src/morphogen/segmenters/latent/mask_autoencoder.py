"""Whether an image autoencoder can hold masks, and training of its decoder where it cannot.

What a method that works in its latents can reach at most is the Dice of D(E(y)), the oracle. The decoder learns to
paint the colours of `labels.py`, from latents that are a little wrong too, as a denoiser's are. Where that is not
enough, as with several classes, whose colours no image had, the encoder learns with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from morphogen.data.augment import affine_maps, warp_pairs
from morphogen.metrics.overlap import class_counts, dice_from_counts
from morphogen.progress import say
from morphogen.segmenters.any_size import AnySize
from morphogen.segmenters.latent.labels import distances, picture
from morphogen.segmenters.latent.mask_latents import MaskLatents
from morphogen.segmenters.losses import cross_entropy, soft_dice_loss
from morphogen.training.loop import fit
from morphogen.training.rng import normal, seed_of, uniform
from morphogen.training.task import Batch, Draw, LoopConfig, Phase, Progress

WANTED = 0.99
"""Mean Dice of D(E(y)) from which on the decoder is left as it is."""
FOLDER = "mask_autoencoder"
_FILE = "autoencoder.safetensors"
_MANY = 256
"""Masks that the oracle is measured on, and that the scale follows from, at most."""
_ROWS, _PIXELS = 32, 64 * 64**2
"""Masks and pixels that are encoded or decoded at a time, at most: at 512 px, one mask."""
_STEPS, _BATCH, _LR = 120, 8, 2e-3
_TURNS = 4
"""At most, each of twice the steps of the one before; after each the oracle is asked again. The encoder stays as it is
in the first."""
_NOISE = 0.2
"""Largest noise on the latents that the decoder learns from, as a part of their standard deviation."""


def prepare(net: nn.Module, train: Sequence[Any], config: Any, out: Path) -> None:
    """`hold_masks` for the latent segmenter.

    Args:
        net: `AnySize` around a `LatentSegmenter`.
        train: Sources of training pairs.
        config: `SegmenterConfig`.
        out: The run's folder.
    """
    assert isinstance(net, AnySize)
    assert isinstance(net.net, MaskLatents)
    hold_masks(net.net, Masks(train), config, out)


def hold_masks(latent: MaskLatents, masks: Masks, config: Any, out: Path) -> None:
    """Sets the scale of the latents; trains the autoencoder in ``out/mask_autoencoder`` where its oracle is too low.

    Args:
        latent: Its notes get ``oracle_dice`` per class and mean.
        masks: What on.
        config: Its seed, and in what precision and parts the decoder trains.
        out: The run's folder.
    """
    some = masks.first(_MANY)
    latent.scale.copy_(1 / encoded_std(latent, some))
    found = oracle_dice(latent, some)
    before = _mean(found)
    if before < WANTED:
        say(f"mask autoencoder: Dice of decoded masks {before:.4f}; training its decoder")
        for turn in range(_TURNS):
            _train(latent, masks, config, out / FOLDER / f"turn{turn}", turn)
            latent.scale.copy_(1 / encoded_std(latent, some))
            found = oracle_dice(latent, some)
            if _mean(found) >= WANTED:
                break
        say(f"mask autoencoder: Dice of decoded masks {_mean(found):.4f}{_short(_mean(found))}")
    latent.notes["oracle_dice"] = {"mean": _mean(found), "per_class": found, "before": before}


def _train(net: MaskLatents, masks: Masks, config: Any, folder: Path, turn: int) -> None:
    task = MaskAutoencoderTask(net, masks, whole=turn > 0)
    loop = LoopConfig(
        max_train_steps=_STEPS * 2**turn, train_batch_size=_BATCH, seed=seed_of(config.seed, "mask autoencoder", turn),
        checkpointing_steps=40, gradient_accumulation_steps=min(config.gradient_accumulation_steps, _BATCH),
        mixed_precision=config.mixed_precision,
    )  # fmt: skip
    settings = {"method": "mask autoencoder", "seed": config.seed, "n_masks": len(masks)}
    task.load(fit(task, loop, folder, settings, "mask autoencoder"))


def _mean(found: Sequence[float]) -> float:
    return float(np.mean(found))


def _short(mean: float) -> str:
    return "" if mean >= WANTED else f", short of {WANTED}: the masks are too fine for the latents at this resolution"


def _parts(masks: Tensor) -> Sequence[Tensor]:
    """(N, H, W) masks in order, as many at a time as memory allows at their size."""
    return masks.split(max(1, min(_ROWS, _PIXELS // masks.shape[1:].numel())))


@torch.no_grad()
def encoded_std(net: MaskLatents, masks: Tensor) -> Tensor:
    """Standard deviation of the unscaled latents of (N, H, W) masks."""
    device = net.scale.device
    unscaled = [net.encode_mask(part.to(device)).cpu() / net.scale.cpu() for part in _parts(masks)]
    return torch.cat(unscaled).double().std().float()


@torch.no_grad()
def oracle_dice(net: MaskLatents, masks: Tensor) -> list[float]:
    """Dice of D(E(y)) for each foreground class, averaged over the masks that hold the class.

    Args:
        net: Its autoencoder is measured, at the size of the masks.
        masks: (N, H, W) int64 class ids.
    """
    device, n_classes = net.scale.device, len(net.palette)
    scores: list[list[float]] = [[] for _ in range(n_classes - 1)]
    for part in _parts(masks):
        labels = net.decode(net.encode_mask(part.to(device))).argmax(dim=1).cpu().numpy()
        for found, truth in zip(labels, part.numpy(), strict=True):
            dice = dice_from_counts(class_counts(found, truth, n_classes)[1:])
            for k, value in enumerate(dice, start=1):
                if (truth == k).any():
                    scores[k - 1].append(float(value))
    return [float(np.mean(some)) if some else 1.0 for some in scores]


class Masks:
    """The masks of several sources, end to end."""

    def __init__(self, sources: Sequence[Any]) -> None:
        self.items = [(source, i) for source in sources for i in range(len(source))]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> np.ndarray:
        source, i = self.items[index]
        mask: np.ndarray = source[i][1]
        return mask

    def first(self, n: int) -> Tensor:
        """(N, R, R) int64: the first n, or all."""
        return torch.from_numpy(np.stack([self[i] for i in range(min(n, len(self)))])).long()


class MaskAutoencoderTask:
    """L1 + cross-entropy + soft Dice of decoded masks, from latents with noise of 0 to a fifth of their deviation.

    Args:
        net: Its autoencoder is trained.
        masks: What on.
        whole: Train the encoder too.
    """

    def __init__(self, net: MaskLatents, masks: Masks, whole: bool = False) -> None:
        self.net, self.masks, self.whole = net, masks, whole
        vae: Any = net.autoencoder
        parts = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
        if whole:
            parts |= {"encoder": vae.encoder, "quant_conv": vae.quant_conv}
        self.modules = nn.ModuleDict({name: part for name, part in parts.items() if part is not None})
        self.modules.requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __len__(self) -> int:
        return len(self.masks)

    def to(self, device: Any) -> None:
        self.net.to(device)

    def phases(self) -> Sequence[Phase]:
        parameters = list(self.modules.parameters())
        return [Phase("decoder", parameters, self.loss, lr=_LR, weight_decay=0.0, schedule="cosine", warmup=10)]

    def batch(self, draws: Sequence[Draw]) -> Batch:
        masks = torch.from_numpy(np.stack([self.masks[draw.index] for draw in draws])).long()
        seeds = torch.tensor([draw.seed for draw in draws])
        _, moved = warp_pairs(torch.zeros(len(masks), 1, *masks.shape[1:]), masks, affine_maps(seeds))
        return {"mask": moved, "seed": seeds}

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        net, mask, seeds = self.net, batch["mask"], batch["seed"].cpu()
        with torch.set_grad_enabled(self.whole):
            z0 = net.encode_mask(mask)
        size = _NOISE * uniform(seeds, "size").view(-1, 1, 1, 1)
        z = z0 + (size * normal(seeds, z0.shape[1:], "latent")).to(z0)
        decoded = net.autoencoder.decode(z / net.scale).sample.float()
        logits = distances(decoded, net.palette)
        return {
            "l1": (decoded - picture(mask, net.palette)).abs().mean(),
            "cross_entropy": cross_entropy(logits, mask),
            "dice": soft_dice_loss(logits, mask),
        }

    def preview(self, step: int, folder: Path) -> None:
        """Nothing to show: the oracle says it."""

    def validate(self, step: int) -> Mapping[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        save_file({k: v.detach().cpu().contiguous() for k, v in self.modules.state_dict().items()}, folder / _FILE)
        (folder / "config.json").write_text(json.dumps({"part": "mask autoencoder"}) + "\n")

    def load(self, folder: Path) -> None:
        """What a finished training has made, frozen again."""
        self.modules.load_state_dict(load_file(folder / _FILE))
        self.modules.requires_grad_(False).eval()
