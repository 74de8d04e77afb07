"""Ray clusters: which are refused, how fast, and what one that is started here lets others do."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from morphogen import cluster
from morphogen.cli import main
from morphogen.cluster import refuse_address
from morphogen.errors import InputError
from ray_here import needs_ray

SAMPLE = ["sample", "nowhere", "--masks", "nowhere"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ray", "here"], "--ray here: is neither local nor auto nor HOST:PORT"),
        (["--ray", "ray://head:10001"], "--ray ray://head:10001: is neither local nor auto"),
        (["--ray", "head:70000"], "--ray head:70000: is neither local nor auto"),
        (["--ray", "local", "--workers", "0"], "--workers: is 0; give 1 or more"),
        (["--workers", "2"], "--workers: are those of Ray; give --ray too"),
        (["--ray", "local", "--shard", "0/2"], "--shard 0/2: Ray deals the pairs to its workers"),
        (["--ray", "127.0.0.1:1"], "--ray 127.0.0.1:1: does not answer (Connection refused); give the address"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_written(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SAMPLE, "--out", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("answer", "says"), [(None, "does not answer within"), (b"HTTP/1.0 400 no\r\n", "no Ray")])
def test_what_listens_but_is_no_cluster_is_told_in_seconds(
    answer: bytes | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        links: list[socket.socket] = []

        def serve() -> None:
            links.append(server.accept()[0])
            if answer is not None:
                links[0].recv(100)
                links[0].sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        with pytest.raises(InputError, match=says):
            refuse_address(f"127.0.0.1:{server.getsockname()[1]}", None)
        assert time.monotonic() - began < 5
        thread.join()
        links[0].close()


def test_a_launcher_and_ray_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="start the command once, without a launcher"):
        refuse_address("local", None)


def test_without_ray_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    says = r"^--ray: ray is not installed; run pip install 'morphogen\[scale\]'$"
    with pytest.raises(InputError, match=says), cluster.crew("local"):
        pass


@pytest.mark.parametrize(
    ("address", "cause", "says"),
    [
        ("auto", "no file", "start one with --ray local"),
        ("head:6379", "no raylet", "run the command on a machine of that cluster"),
        ("head:6379", "RPC error: InvalidAuthToken: missing", "set RAY_AUTH_MODE=token, with the ~/.ray/auth_token"),
    ],
)
def test_what_ray_refuses_is_one_line(address: str, cause: str, says: str) -> None:
    class Ray:
        @staticmethod
        def init(**_: object) -> None:
            raise ConnectionError("Failed to connect\nand a traceback") from RuntimeError(cause)

    with pytest.raises(InputError, match=rf"^--ray {address}: ConnectionError: Failed to connect; .*{says}") as caught:
        cluster._connect(Ray, address, None)
    assert "\n" not in str(caught.value)


def test_a_crew_is_one_for_each_device() -> None:
    assert cluster._crew({"CPU": 8.0, "GPU": 2.0}, None) == cluster.Crew(2, {"num_gpus": 1})
    assert cluster._crew({"CPU": 8.0}, None) == cluster.Crew(8, {"num_cpus": 1})
    assert cluster._crew({"CPU": 8.0}, 3) == cluster.Crew(3, {"num_cpus": 2})
    with pytest.raises(InputError, match="4 are more than the 2 GPUs of the cluster; give 2 or fewer"):
        cluster._crew({"CPU": 8.0, "GPU": 2.0}, 4)


LISTEN = """
import subprocess
from pathlib import Path
from morphogen.cluster import crew
with crew("local", 1) as found:
    import psutil
    root = psutil.Process()
    own = {process.pid for process in (root, *root.children(recursive=True))}
    for link in psutil.net_connections("inet"):
        if link.pid in own and link.status == psutil.CONN_LISTEN:
            print("listens on", link.laddr.ip)
    from ray._common.usage import usage_lib
    print("usage", usage_lib.usage_stats_enabled())
"""


@needs_ray
@pytest.mark.skipif(sys.platform != "linux", reason="looks at the sockets of other processes")
def test_a_local_ray_is_heard_on_this_machine_alone_and_says_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LISTEN], capture_output=True, text=True, check=True, timeout=200)
    lines = done.stdout.splitlines()
    assert {line for line in lines if line.startswith("listens")} <= {
        "listens on 127.0.0.1",
        "listens on ::ffff:127.0.0.1",
        "listens on ::1",
    }
    assert len(lines) > 3
    assert lines[-1] == "usage False"
    assert done.stderr == ""
