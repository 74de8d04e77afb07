"""``--device``: where networks work."""

from __future__ import annotations

from morphogen.errors import InputError


def usable_device(device: str | None) -> str:
    """`device` where it is to be had; of None, a GPU where there is one.

    Raises:
        InputError: It is not to be had here.
    """
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except Exception as error:  # torch has one type for an unknown word, and another for what is not built in
        raise InputError(f"--device {device}: is not to be had here; give cpu, or look at the driver") from error
    return device
