"""How CTNet was trained: the defaults of its authors' code (Fhujinwu/CTNet)."""

from __future__ import annotations

import math
from typing import Any

_EPOCHS, _BATCH = 31, 16
_SCALES = (0.75, 1.0, 1.25)


def published(n_train: int) -> dict[str, Any]:
    """Fields of `SegmenterConfig`, and ``resolution``.

    Args:
        n_train: Training pairs.
    """
    return {
        "resolution": 352,
        "train_batch_size": _BATCH,
        "max_train_steps": _EPOCHS * math.ceil(n_train / _BATCH) * len(_SCALES),
        "optimizer": "adamw",
        "lr": 1e-4,
        "encoder_lr_scale": 1.0,
        "weight_decay": 1e-4,
        "norm_decay": True,
        "lr_scheduler": "constant",  # the script would lower it after epoch 200
        "lr_warmup_steps": 0,
        "max_grad_norm": 0.0,
        "max_grad_value": 0.5,
        "augmentation": "none",
        "scales": _SCALES,
        "colour_exchange": False,
        "mixed_precision": "no",
    }
