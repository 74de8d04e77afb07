"""How SDSeg, which SynDiff's segmenter follows, was trained (its code, configs/SDSeg; arXiv:2406.18361)."""

from __future__ import annotations

from typing import Any


def published(n_train: int) -> dict[str, Any]:
    """Fields of `SegmenterConfig`, and the resolution.

    Args:
        n_train: Training pairs; of no consequence: the length is stated in steps.
    """
    return {
        "resolution": 256,
        "train_batch_size": 4,
        "max_train_steps": 100_000,
        "optimizer": "adamw",
        "lr": 4e-5,  # 1e-5 for each row of the batch
        "encoder_lr_scale": 1.0,
        "weight_decay": 1e-2,
        "norm_decay": True,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 10_000,
        "max_grad_norm": 0.0,
        "max_grad_value": 0.0,
        "ema_decay": 0.9999,
        "augmentation": "geometric",  # published: flips alone
        "scales": (1.0,),
        "colour_exchange": False,
        "mixed_precision": "no",
        "validation_steps": 2000,
    }
