"""How the authors of SegFormer trained it (arXiv:2105.15203, section 4.1, and their configuration for ADE20K)."""

from __future__ import annotations

from typing import Any


def published(n_train: int) -> dict[str, Any]:
    """Fields of `SegmenterConfig`, and the resolution; none of them depends on how many pairs there are.

    Args:
        n_train: Training pairs.
    """
    return {
        "resolution": 512,
        "train_batch_size": 16,
        "max_train_steps": 160_000,
        "optimizer": "adamw",
        "lr": 6e-4,  # of the decoder: ten times the encoder's
        "encoder_lr_scale": 0.1,
        "weight_decay": 0.01,
        "norm_decay": False,
        "lr_scheduler": "linear",  # "poly" of power 1
        "lr_warmup_steps": 1500,
        "max_grad_norm": 0.0,
        "max_grad_value": 0.0,
        "augmentation": "geometric",
        "scales": (1.0,),
        "colour_exchange": False,
        "mixed_precision": "no",
    }
