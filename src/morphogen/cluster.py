"""A Ray cluster, found or started here for one command: quiet, and asked for as many workers as it has devices.

Ray is the extra ``scale``. What is started here listens on the loopback interface alone, sends no statistics of use and
has no dashboard. Ray itself waits almost two minutes for an address that does not answer, and then ends the process; so
the address is tried first. A cluster's address is that of a gRPC server: HTTP/2, whose first frame is SETTINGS in both
directions (RFC 9113, section 3.4).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from morphogen.errors import InputError, MorphogenError, WorkError
from morphogen.launched import place

LOCAL, AUTO = "local", "auto"
PATIENCE = 5.0
"""Seconds for a cluster to answer."""
STORE_BYTES = 100_000_000
"""Of shared memory for what travels between processes of a local cluster: ids and recipes, no images."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Faults reach the user as one line of ours; Ray's own words are in its log files."""
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Where this is 0, as by default on these two systems, Ray knows a single machine and binds to the loopback interface;
read when Ray is imported."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""Of an HTTP/2 client, and its SETTINGS, which are empty."""


@dataclass(frozen=True)
class Crew:
    """The workers that a cluster offers.

    Attributes:
        size: How many work at once.
        each: What one of them takes of the cluster, in the words of Ray's options: ``num_cpus``, ``num_gpus``.
    """

    size: int
    each: dict[str, int]


@contextmanager
def crew(address: str, workers: int | None = None) -> Iterator[Crew]:
    """Connect to a Ray cluster, or start one on this machine for the time of the block.

    A process that is connected already stays so, whatever the address.

    Args:
        address: ``local``, ``auto`` (the cluster that this machine is part of) or ``HOST:PORT``.
        workers: How many are wanted; one for each GPU by default, or where there are none for each core.

    Raises:
        InputError: Ray is not installed, the address does not answer or is no cluster, or there are not enough devices.
    """
    refuse_address(address, workers)
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    if address == LOCAL:
        os.environ.setdefault(LOOPBACK, "0")
    try:
        import ray
        import ray.data  # its own dependencies
    except ImportError as error:
        raise InputError(f"--ray: {error.name} is not installed; run pip install 'morphogen[scale]'") from None
    ray.data.DataContext.get_current().raise_original_map_exception = True  # not Ray's word for any of them
    if ray.is_initialized():
        yield _crew(ray.cluster_resources(), workers)
        return
    try:
        _connect(ray, address, workers)
        yield _crew(ray.cluster_resources(), workers)
    finally:
        ray.shutdown()


def refuse_address(address: str, workers: int | None) -> None:
    """Refuse what can be refused without Ray.

    Raises:
        InputError: The address has another form or does not answer, `workers` is below 1, or a launcher has started
            several of this process.
    """
    if place().world > 1:
        raise InputError("--ray: has workers of its own; start the command once, without a launcher")
    if workers is not None and workers < 1:
        raise InputError(f"--workers: is {workers}; give 1 or more")
    if address in (LOCAL, AUTO):
        return
    host, colon, port = address.rpartition(":")
    if not host or not colon or "/" in host or not port.isdigit() or int(port) > 65535:
        raise InputError(
            f"--ray {address}: is neither local nor auto nor HOST:PORT; `ray start --head` prints the last"
        )
    _try(address, host.strip("[]"), int(port))


@contextmanager
def plain_faults() -> Iterator[None]:
    """Tell a fault that comes from a worker as it would be told here.

    Raises:
        MorphogenError: The worker's own.
        WorkError: The worker ended without one, or Ray itself failed.
    """
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)  # of an error that a task has raised
        if isinstance(cause, MorphogenError):
            raise type(cause)(str(cause)) from error
        said = _first_line(cause or error)
        raise WorkError(f"a Ray worker failed ({said}); run the same command again to continue") from error


def _try(address: str, host: str, port: int) -> None:
    """Find in seconds what Ray would find in minutes."""
    fault = None
    try:
        with socket.create_connection((host, port), PATIENCE) as link:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                link.sendall(PREFACE)
                if link.recv(9)[3:4] != bytes([4]):  # length in three bytes, then the type
                    fault = "what answers there is no Ray cluster"
    except TimeoutError:
        fault = f"does not answer within {PATIENCE:.0f} seconds"
    except OSError as error:
        fault = f"does not answer ({error.strerror or error})"
    if fault is not None:
        remedy = "give the address that `ray start --head` printed, or local"
        raise InputError(f"--ray {address}: {fault}; {remedy}")


def _connect(ray: Any, address: str, workers: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if address == LOCAL:
        cores = max(workers or 1, os.cpu_count() or 1)
        options |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        with _unheard():
            ray.init(address=address, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        remedy = "start one with --ray local" if address == AUTO else "run the command on a machine of that cluster"
        if "InvalidAuthToken" in str(error.__cause__):
            remedy = "it wants its token: set RAY_AUTH_MODE=token, with the ~/.ray/auth_token of its head"
        raise InputError(f"--ray {address}: {_first_line(error)}; {remedy}") from error


@contextmanager
def _unheard() -> Iterator[None]:
    """Drop what native code writes to stderr meanwhile: Ray announces there that it was told to keep quiet."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _crew(resources: dict[str, float], workers: int | None) -> Crew:
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    devices, what = (gpus, "GPUs") if gpus else (cores, "cores")
    size = workers or devices
    if not 1 <= size <= devices:
        raise InputError(
            f"--workers: {size} are more than the {devices} {what} of the cluster; give {devices} or fewer"
        )
    return Crew(size, {"num_gpus": 1} if gpus else {"num_cpus": cores // size})


def _first_line(error: BaseException) -> str:
    """What an error says, without the traceback that Ray puts into its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
