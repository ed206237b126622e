"""Two processes, joined as `torchrun` joins them, do what one does; and none is left waiting when another ends."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.forks import fork
from tests.train.samples import ALONE, CPU, Mean, run, write_labelled
from vostrack import cli
from vostrack.errors import MethodError, VostrackError
from vostrack.methods import METHODS
from vostrack.methods.recipe import Recipe
from vostrack.train.data.cache import FrameCache
from vostrack.train.loop import CHECKPOINT, METRICS
from vostrack.train.parallel import ProcessGroup, join_group

pytestmark = pytest.mark.needs("lightning_fabric", "train")

SIZE = 2


def together(work: Callable[..., None], folder: Path, *arguments: Any) -> list[int | None]:
    """Run a function in two processes with the environment that `torchrun` gives; returns their exit codes."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [fork(folder / str(rank), _child, rank, port, work, folder, *arguments) for rank in range(SIZE)]
    for process in processes:
        process.join(60)
        process.kill()
    return [process.exitcode for process in processes]


def _child(rank: int, port: int, work: Callable[..., None], folder: Path, *arguments: Any) -> None:
    world = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": SIZE, "LOCAL_WORLD_SIZE": SIZE}
    os.environ.update({name: str(value) for name, value in world.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test")
    if work is _command:
        _command(folder, *arguments)
        return
    with join_group("cpu") as group:
        assert (group.rank, group.size, group.leads) == (rank, SIZE, rank == 0)
        work(folder, group, *arguments)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


RECIPE = Recipe(steps=6, batch=4)
SETTINGS = {"micro_batches": 2, "evaluate_every": 3}


def _train(folder: Path, group: ProcessGroup, stop: int | None) -> None:
    objective = Mean()
    cache = FrameCache(folder / "cache")

    def evaluate() -> dict[str, float]:
        """Each process knows one of the scores."""
        weight = float(objective.module.state_dict()["0.weight"].sum())
        own = [weight * (index + 1) if index % group.size == group.rank else 0.0 for index in range(3)]
        return dict(zip("abc", group.totals(own), strict=True))

    run(objective, cache, folder / "run", RECIPE, SETTINGS, stop, group, evaluate=evaluate)


def test_two_processes_train_as_one_does(cache: FrameCache, tmp_path: Path) -> None:
    """Also when a run goes on with another number of processes."""
    (tmp_path / "run").mkdir()
    assert together(_train, tmp_path, 4) == [0, 0], (tmp_path / "1" / "err").read_text()
    _train(tmp_path, ALONE, None)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "cache").symlink_to(tmp_path / "cache")
    _train(tmp_path / "alone", ALONE, None)
    both, one = metrics(tmp_path / "run"), metrics(tmp_path / "alone" / "run")
    assert [row["step"] for row in both] == [0, 1, 2, 3, 3, 4, 5, 6, 6]
    for row, other in zip(both, one, strict=True):
        for key in row.keys() - {"seconds"}:
            assert row[key] == pytest.approx(other[key], rel=1e-5), (row, other)
    states = [
        torch.load(folder / CHECKPOINT, weights_only=True)["module"]
        for folder in (tmp_path / "run", tmp_path / "alone" / "run")
    ]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-5, atol=1e-6)


def _command(folder: Path, *arguments: str) -> None:
    METHODS["tiny"] = "tests.train.samples:TinyMethod"
    os.chdir(folder)
    code = cli.run(
        ["train", "--method", "tiny", "--device", "cpu", "--data", "davis", "--held-out", "davis", *arguments]
    )
    if code:
        raise SystemExit(code)


def test_the_command_works_in_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labelled(tmp_path / "davis")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(METHODS, "tiny", "")
    assert together(_command, tmp_path, "--out", "two") == [0, 0], (tmp_path / "1" / "err").read_text()
    _command(tmp_path, "--out", "one", "--micro-batches", "2")
    one, two = (load_file(tmp_path / folder / "tiny.safetensors") for folder in ("one", "two"))
    assert torch.equal(one["scale"], two["scale"])
    rows = [[{**row, "seconds": 0} for row in metrics(tmp_path / folder)] for folder in ("one", "two")]
    assert rows[0] == rows[1]
    # The process that does not lead says nothing and writes nothing.
    assert "weights: two/tiny.safetensors" in (tmp_path / "0" / "err").read_text()
    assert "weights" not in (tmp_path / "1" / "err").read_text()
    files = [
        sorted(str(path.relative_to(tmp_path / folder)) for path in (tmp_path / folder).rglob("*"))
        for folder in ("one", "two")
    ]
    assert files[0] == files[1]
    leader, other = together(_command, tmp_path, "--out", "three", "--batch", "3")
    assert leader == 2
    assert other in (1, 2)  # 1 where it was still joining when the leader had ended
    assert "micro_batches must divide batch" in (tmp_path / "0" / "err").read_text()


def _interrupted(folder: Path, group: ProcessGroup) -> None:
    done = []

    def action() -> None:
        done.append(1)
        if group.rank == 1 and len(done) == 3:
            raise SystemExit(9)

    try:
        for _ in range(9):
            group.together(action)
    except KeyboardInterrupt:
        (folder / "told").write_text(str(len(done)))
        raise SystemExit(8) from None


def _dying(folder: Path, group: ProcessGroup) -> None:
    if group.rank == 1:
        os._exit(3)
    group.wait()


def test_when_one_process_ends_the_others_do(tmp_path: Path) -> None:
    assert together(_interrupted, tmp_path) == [8, 9]
    assert (tmp_path / "told").read_text() == "3"
    first, second = together(_dying, tmp_path)
    assert second == 3
    assert first not in (0, None, -9)


def test_one_process_is_a_group_of_its_own() -> None:
    with join_group("cpu") as group:
        assert group == ProcessGroup(CPU)
    tensors = [torch.ones(3), torch.zeros(2)]
    group.add_up(tensors)
    assert [tensor.tolist() for tensor in tensors] == [[1, 1, 1], [0, 0]]
    assert group.totals([0.1, 2]) == [0.1, 2]
    with pytest.raises(MethodError, match="mine"):
        group.together(lambda: (_ for _ in ()).throw(MethodError("mine")))


def test_several_processes_without_fabric_are_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(VostrackError, match=r"vostrack\[train\]"), join_group("cpu"):
        pass
