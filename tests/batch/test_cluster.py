from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.batch.clips import task, write_clips
from tests.runs import results, until
from vostrack import Callbacks, VostrackError
from vostrack.batch import cluster
from vostrack.batch.cluster import RayPool
from vostrack.batch.manifest import Manifest
from vostrack.batch.run import run_batch
from vostrack.batch.task import Status, Task, run_one

LENGTHS = {"dog": 40, "cat": 30, "eel": 20, "ant": 4}
DONE = dict.fromkeys(LENGTHS, Status.DONE)


def with_ray(test: Callable[..., None]) -> Callable[..., None]:
    """A test that starts Ray."""
    marked: Callable[..., None] = pytest.mark.slow(pytest.mark.needs("ray", "ray")(test))
    return marked


def test_ray_is_asked_for_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(VostrackError, match=r"Ray cannot be imported .*: pip install 'vostrack\[ray\]'"):
        RayPool(tmp_path).__enter__()


class LostRay(MagicMock):
    """A Ray that ends on this machine after it has started; of others nothing is heard any more."""

    asked = 0

    def nodes(self) -> list[dict[str, Any]]:
        self.asked += 1
        here = {"NodeID": "here", "Alive": self.asked == 1, "Resources": {"CPU": 2.0}}
        return [here, {"NodeID": "there", "Alive": True, "Resources": {"CPU": 2.0}}]

    def wait(self, refs: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        time.sleep(timeout)
        return [], refs


@pytest.mark.slow
def test_a_ray_that_ends_on_this_machine_ends_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = LostRay()
    ray.get_runtime_context.return_value.get_node_id.return_value = "here"
    monkeypatch.setitem(sys.modules, "ray", ray)
    with RayPool(tmp_path, jobs=2) as pool:
        heard = (event for _ in itertools.count() for event in pool.events(0.1))
        with pytest.raises(VostrackError, match=r"Ray has ended on this machine.*the same call goes on"):
            next(heard)
    assert (ray.asked, pool.busy) == (2, 0)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    folder = write_clips(tmp_path_factory.mktemp("clips"), LENGTHS)
    return [task(folder, name, outputs=["masks", "overlay"]) for name in LENGTHS]


@pytest.fixture(scope="module")
def whole(tasks: list[Task], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each clip gives by itself."""
    out = tmp_path_factory.mktemp("whole")
    for each in tasks:
        assert run_one(each, out).status == Status.DONE
    return out


@pytest.fixture(scope="module")
def ray_here() -> Iterator[str]:
    """A small cluster that is there already; gives its address."""
    import ray

    here: Any = ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        configure_logging=False,
    )
    yield here.address_info["gcs_address"]
    ray.shutdown()


def check_all(tasks: list[Task], out: Path, whole: Path) -> None:
    """Every clip is done, once, with the masks that it gives by itself."""
    found = list(Manifest(out).results())
    assert sorted(each.name for each in found) == sorted(each.name for each in tasks)
    assert {each.name: each.status for each in found} == DONE
    for each in tasks:
        assert results(out / each.name) == results(whole / each.name)


def processes(parent: int, is_wanted: Callable[[str], bool]) -> list[int]:
    """Processes below one, by their command lines."""
    below, titles = dict[int, int](), dict[int, str]()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            below[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(path.name)] = (path / "cmdline").read_text()
        except OSError:
            continue

    def is_ours(process: int) -> bool:
        return process == parent or (process in below and is_ours(below[process]))

    return [process for process, title in titles.items() if is_wanted(title) and is_ours(process)]


def actors(parent: int) -> list[int]:
    """Processes below one that work on clips."""
    return processes(parent, lambda title: title.startswith("ray::Actor") and "init" not in title)


@with_ray
def test_actors_give_the_same_bytes(tasks: list[Task], whole: Path, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    ended = list(run_batch(tasks, tmp_path, pool=partial(RayPool, address="local", jobs=2)))
    assert len({each.worker for each in ended}) == 2
    check_all(tasks, tmp_path, whole)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@with_ray
def test_actors_that_are_killed_cost_no_clip(tasks: list[Task], whole: Path, ray_here: str, tmp_path: Path) -> None:
    class Killer(Callbacks):
        left, last = 4, 0.0  # fewer than one clip may cost

        def cancelled(self) -> bool:
            alive = actors(os.getpid())
            if self.left and alive and time.monotonic() - self.last > 1:
                self.left, self.last = self.left - 1, time.monotonic()
                os.kill(alive[self.left % len(alive)], signal.SIGKILL)
            return False

    killer = Killer()
    list(run_batch(tasks, tmp_path, callbacks=killer, pool=RayPool))
    assert killer.left < 4
    check_all(tasks, tmp_path, whole)


DRIVER = """
import sys
from functools import partial
from pathlib import Path
from tests.batch.clips import task
from vostrack import run_batch
from vostrack.batch.cluster import RayPool

address, folder, out, *names = sys.argv[1:]
tasks = [task(Path(folder), name, outputs=["masks", "overlay"]) for name in names]
list(run_batch(tasks, out, pool=partial(RayPool, address=address)))
"""


@with_ray
def test_a_driver_that_is_killed_is_gone_on_from(tasks: list[Task], whole: Path, ray_here: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, ray_here, str(tasks[0].clip.parents[1]), str(tmp_path), *LENGTHS]
    for done in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as driver:
            assert until(lambda: len(list(Manifest(tmp_path).results())) > done, 200)  # noqa: B023
            driver.kill()
    told = subprocess.run(command, capture_output=True, timeout=200, check=True)
    assert (told.stdout, told.stderr) == (b"", b"")
    check_all(tasks, tmp_path, whole)


@with_ray
def test_what_is_wrong_with_a_cluster_is_told_at_once(
    tasks: list[Task], ray_here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VostrackError, match="no machine of the cluster has the 200 CPUs"):
        list(run_batch(tasks, tmp_path, pool=partial(RayPool, cpus=200)))
    monkeypatch.setattr(cluster, "versions", lambda: {"torch": "0.1"})
    with pytest.raises(VostrackError, match=r"has torch .*, and here is 0.1: install the same"):
        list(run_batch(tasks, tmp_path, pool=partial(RayPool, jobs=1)))


@with_ray
def test_stopping_leaves_clips_that_can_be_resumed(
    tasks: list[Task], whole: Path, ray_here: str, tmp_path: Path
) -> None:
    class Stop(Callbacks):
        moved = False

        def progress(self, done: int, total: int | None) -> None:
            self.moved = True

        def cancelled(self) -> bool:
            return self.moved

    with pytest.raises(VostrackError, match="was cancelled"):
        list(run_batch(tasks, tmp_path, callbacks=Stop(), pool=partial(RayPool, jobs=1)))
    assert len(list(Manifest(tmp_path).results())) < len(LENGTHS)
    list(run_batch(tasks, tmp_path, pool=RayPool))
    check_all(tasks, tmp_path, whole)
    assert [each.attempts for each in run_batch(tasks, tmp_path, pool=RayPool)] == [0] * len(LENGTHS)


@with_ray
def test_a_cluster_that_is_not_there_is_told(tasks: list[Task], tmp_path: Path) -> None:
    import ray

    ray.shutdown()
    with pytest.raises(VostrackError, match=r"cannot join a Ray cluster, nosuch://x is none"):
        list(run_batch(tasks, tmp_path, pool=partial(RayPool, address="nosuch://x")))


@with_ray
def test_a_cluster_goes_on_when_one_of_its_machines_dies(tasks: list[Task], whole: Path, tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    others = [nodes.add_node(num_cpus=1) for _ in range(2)]

    class Cut(Callbacks):
        def progress(self, done: int, total: int | None) -> None:
            if others and done > 2:
                nodes.remove_node(others.pop(), allow_graceful=False)
                others.clear()

    try:
        list(run_batch(tasks, tmp_path, callbacks=Cut(), pool=partial(RayPool, address=nodes.address)))
    finally:
        nodes.shutdown()
    assert not others
    check_all(tasks, tmp_path, whole)


@pytest.fixture
def command(tasks: list[Task], tmp_path: Path) -> list[str]:
    """Of a batch in a cluster of its own."""
    rows = "".join(f"{each.clip},{each.masks[0]}\n" for each in tasks)
    (tmp_path / "plan.csv").write_text(f"clip,mask\n{rows}")
    words = ["-m", "vostrack", "batch", "run", str(tmp_path / "plan.csv"), "--out", str(tmp_path)]
    return [sys.executable, *words, "--ray", "local", "--option", "method=copy", "--jobs", "2"]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@with_ray
def test_a_cluster_of_this_machine_that_dies_ends_the_driver(
    tasks: list[Task], whole: Path, command: list[str], tmp_path: Path
) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as driver:
        workers = partial(processes, driver.pid, lambda title: title.startswith("ray::"))
        assert until(lambda: driver.poll() is not None or bool(workers()), 200)
        for raylet in processes(driver.pid, lambda title: title.partition("\0")[0].endswith("/raylet")):
            os.kill(raylet, signal.SIGKILL)
        _, said = driver.communicate(timeout=300)
    assert driver.returncode == 1
    assert said.splitlines()[-1].startswith(b"error: Ray "), "it has ended, or did not start"
    subprocess.run(command, capture_output=True, timeout=300, check=True)
    check_all(tasks, tmp_path, whole)


@pytest.mark.skipif(sys.platform == "win32", reason="a group of processes gets the signal")
@with_ray
def test_ctrl_c_stops_a_cluster_of_this_machine_too(
    tasks: list[Task], whole: Path, command: list[str], tmp_path: Path
) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0) as driver:
        assert until(lambda: driver.poll() is not None or any(Manifest(tmp_path).results()), 200)
        os.killpg(driver.pid, signal.SIGINT)
        out, said = driver.communicate(timeout=200)
    assert (driver.returncode, out) == (130, b"")
    assert b"goes on with what is left" in said
    told = subprocess.run(command, capture_output=True, timeout=200, check=True)
    assert told.stdout == b""
    assert b"4 clips done, 0 failed" in told.stderr.splitlines()[-1]
    check_all(tasks, tmp_path, whole)
