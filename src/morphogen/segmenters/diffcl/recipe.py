"""The published protocol of semi-supervised segmentation of volumes, which the paper's benchmarks share."""

from __future__ import annotations

from typing import Any


def published() -> dict[str, Any]:
    """Fields of `SemiConfig`: V-Net of 16 filters, 15,000 steps of 2 + 2 patches, SGD 0.01, learning rate constant.

    As MC-Net and CAML train; what Diff-CL itself states could not be read. The ramp is UA-MT's 6,000 steps, unlabelled
    data has a say after 1,000 (DiffRect), and the convolutional network listens after 2,000. SGD's momentum is
    Nesterov's, theirs is plain.
    """
    return {
        "filters": 16,
        "max_train_steps": 15_000,
        "train_batch_size": 2,
        "optimizer": "sgd",
        "lr": 0.01,
        "weight_decay": 1e-4,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "max_grad_norm": 0.0,
        "start": 1_000 / 15_000,
        "patience": 1_000 / 15_000,
        "ramp": 6_000 / 15_000,
        "checkpointing_steps": 1_000,
        "validation_steps": 1_000,
        "keep_last": True,
    }
