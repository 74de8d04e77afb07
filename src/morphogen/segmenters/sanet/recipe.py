"""How SANet was trained: the defaults of its authors' code (weijun88/SANet)."""

from __future__ import annotations

import math
from typing import Any

_EPOCHS, _BATCH = 128, 64


def published(n_train: int) -> dict[str, Any]:
    """Fields of `SegmenterConfig`, and ``resolution``.

    Args:
        n_train: Training pairs.
    """
    return {
        "resolution": 352,
        "train_batch_size": _BATCH,
        "max_train_steps": _EPOCHS * math.ceil(n_train / _BATCH),
        "optimizer": "sgd",
        "lr": 0.4,
        "encoder_lr_scale": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "norm_decay": True,
        "lr_scheduler": "halving",
        "lr_warmup_steps": 0,
        "max_grad_norm": 0.0,
        "augmentation": "geometric",
        "colour_exchange": True,
        # 256, 288, 320 and 352 px with chances of 0.1, 0.2, 0.3 and 0.4
        "scales": tuple(side / 352 for side in (352, 320, 288, 352, 320, 256, 352, 320, 288, 352)),
        "mixed_precision": "fp16",  # theirs was apex's O2
    }
