"""Checkpoints of others are hostile: nothing comes out of them but tensors, and those fit."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vostrack.errors import WeightsError
from vostrack.methods import METHODS
from vostrack.nets import checkpoint
from vostrack.nets.checkpoint import read_checkpoint
from vostrack.weights import converted, load, read_details


class SmallNet(nn.Sequential):
    def __init__(self, width: int = 4) -> None:
        super().__init__(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width))


NETS = {"default": SmallNet, "wide": lambda: SmallNet(6)}


def state(width: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return SmallNet(width).state_dict()


def saved(path: Path, content: Any, **settings: Any) -> Path:
    torch.save(content, path, **settings)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        converted(path, NETS)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    assert "weights_only" not in text
    return text


def test_the_network_that_a_checkpoint_fills_is_found_and_filled(tmp_path: Path) -> None:
    tensors = state(6)
    del tensors["1.num_batches_tracked"]
    name, net, unused = converted(saved(tmp_path / "a.pth", tensors | {"head": torch.ones(2)}), NETS)
    assert (name, unused) == ("wide", ["head"])
    assert all(torch.equal(net.state_dict()[key], x) for key, x in tensors.items())


def test_a_checkpoint_that_runs_code_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    for content in (Bomb(), state() | {"0.bias": Bomb()}):
        assert "holds more than tensors" in refusal(saved(tmp_path / "a.pth", content))
    assert "cannot be used" in refusal(saved(tmp_path / "b.pth", Bomb(), _use_new_zipfile_serialization=False))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "it is not a network's tensors by name"),
        ({1: torch.ones(1)}, "it is not a network's tensors by name"),
        (state() | {"epoch\x1b": 3}, "is not a plain tensor"),
        (state() | {"0.bias": torch.ones(4).to_sparse()}, "0.bias is not a plain tensor"),
        (state() | {"0.bias": torch.ones(4, device="meta")}, "0.bias is not a plain tensor"),
        (state() | {"0.bias": torch.ones(5)}, r"0.bias is [5], expected [4]"),
        (state() | {"0.bias": torch.ones(1).expand(10**12)}, r"0.bias is [1000000000000]"),
        (state() | {"0.bias": torch.full((4,), float("nan"))}, "not finite"),
        ({"0.bias": torch.ones(6)}, "without 0.weight"),
        ({}, "names differ"),
    ],
)
def test_what_is_not_a_networks_tensors_is_refused(tmp_path: Path, content: Any, words: str) -> None:
    assert words in refusal(saved(tmp_path / "a.pth", content))


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = saved(tmp_path / "good.pth", state())
    assert "there are no weights at" in refusal(tmp_path / "none.pth")
    for name, data in (("a", b""), ("b", b"hello"), ("c", good.read_bytes()[:-40]), ("d", good.read_bytes()[40:])):
        (tmp_path / name).write_bytes(data)
        refusal(tmp_path / name)
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refusal(tmp_path / "fifo")
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            new.writestr(part, old.read(part))
    assert "its parts are compressed" in refusal(tmp_path / "bomb.pth")
    monkeypatch.setattr(checkpoint, "MOST_BYTES", 100)
    with pytest.raises(WeightsError, match="it has more than"):
        read_checkpoint(good)


class ConvertedMethod:
    nets = NETS


def test_the_command_writes_weights_that_load_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vostrack import cli

    def run(*arguments: str) -> object:
        monkeypatch.setattr("sys.argv", ["vostrack", "weights", "convert", *arguments])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code

    monkeypatch.setitem(METHODS, "theirs", "tests.nets.test_checkpoint:ConvertedMethod")
    path = saved(tmp_path / "theirs.pth", state(6) | {"head": torch.ones(2)})
    assert run(str(path), "--method", "theirs") == 0
    assert "left out, since the network does not have them: head" in capsys.readouterr().err
    out, net = tmp_path / "theirs.safetensors", SmallNet(6)
    assert read_details(out)["net"] == "wide"
    assert read_details(out)["details"]["converted_from"] == "theirs.pth"
    load(net, "theirs", out)
    assert all(torch.equal(net.state_dict()[key], x) for key, x in state(6).items())
    assert run(str(path), "--method", "theirs") == 9
    assert run(str(path), str(out), "--method", "theirs", "--overwrite") == 0
