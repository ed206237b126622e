from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.fakes import FakeNet, write_weights
from vostrack import weights
from vostrack.errors import WeightsError
from vostrack.weights import (
    FORMAT,
    WeightsEntry,
    architecture,
    available,
    check,
    find,
    load,
    read_details,
    read_manifest,
    save_weights,
    search_path,
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights that is the only one searched."""
    folder = tmp_path / "store"
    monkeypatch.setattr(weights, "search_path", lambda: [folder])
    write_weights(folder)
    return folder


def entry(store: Path) -> WeightsEntry:
    return read_manifest(store)[0]


def refusal(source: WeightsEntry | Path, net: nn.Module | None = None, method: str = "fake") -> str:
    net = net or FakeNet()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load(net, method, source)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def file(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    save_file(tensors, path, {"format": FORMAT, "method": "fake", **metadata})
    return path


def test_folders_are_searched_from_the_given_one_to_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOSTRACK_WEIGHTS", str(tmp_path / "given"))
    monkeypatch.setattr(weights, "user_cache_path", lambda name, **options: tmp_path / "cache")
    package = Path(weights.__file__).parent
    own = [package / "_weights", package.parent / "weights"]
    assert search_path() == [tmp_path / "given", *own, tmp_path / "cache" / "weights"]
    monkeypatch.delenv("VOSTRACK_WEIGHTS")
    assert search_path() == [*own, tmp_path / "cache" / "weights"]


def test_of_equal_names_the_first_one_found_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "search_path", lambda: [tmp_path / name for name in ("none", "a", "b")])
    write_weights(tmp_path / "a", name="one")
    write_weights(tmp_path / "b", name="one")
    assert [found.path for found in available()] == [tmp_path / "a" / "one.safetensors"]


def test_weights_are_found_by_method_by_name_and_by_path(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store / "fake-1.safetensors"
    assert find("fake") == find("fake", "fake-1") == entry(store)
    assert find("fake", path) == find("fake", str(path)) == path
    monkeypatch.chdir(store)
    (store / "fake-1").mkdir()
    assert find("fake", "fake-1") == entry(store), "a folder of that name is no file of weights"


def test_a_name_with_a_dot_is_found(store: Path) -> None:
    write_weights(store, name="fake-1.5")
    assert find("fake", "fake-1.5") == entry(store)


def test_an_unknown_name_suggests_the_closest(store: Path) -> None:
    with pytest.raises(WeightsError, match=r"did you mean 'fake-1'"):
        find("fake", "fake-2")
    with pytest.raises(WeightsError, match=r"no weights at .*none\.safetensors"):
        find("fake", "none.safetensors")


def test_a_method_without_weights_is_told_where_was_looked(store: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights for method 'other' in .*store.*`weights`"):
        find("other")


def test_halves_come_back_as_what_the_network_holds(tmp_path: Path) -> None:
    norm = nn.BatchNorm2d(4)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.fill_(70_000)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), norm)
    save_weights(net, "fake", tmp_path / "w.safetensors", {"steps": 3})
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    loaded = load(other, "fake", tmp_path / "w.safetensors")
    assert loaded.name == "w.safetensors"
    assert loaded.sha256 == check(tmp_path / "w.safetensors")
    for name, tensor in other.state_dict().items():
        wanted = net.state_dict()[name]
        assert tensor.dtype == wanted.dtype
        assert torch.equal(tensor, wanted.half().float() if wanted.is_floating_point() else wanted)
    assert read_details(tmp_path / "w.safetensors") == {"method": "fake", "net": "default", "details": {"steps": 3}}


def test_a_file_names_the_network_that_it_fills(tmp_path: Path) -> None:
    save_weights(FakeNet(), "fake", tmp_path / "w.safetensors", {}, "large")
    assert architecture(tmp_path / "w.safetensors") == read_details(tmp_path / "w.safetensors")["net"] == "large"
    assert architecture(file(tmp_path / "old.safetensors", FakeNet().state_dict())) == "default"
    with pytest.raises(WeightsError, match="no weights at"):
        architecture(tmp_path / "missing.safetensors")


def test_weights_of_another_method_are_adopted_where_it_is_said_how(tmp_path: Path) -> None:
    path = file(tmp_path / "w.safetensors", {"inner.scale": torch.full((1,), 0.25), "head": torch.ones(3)})
    net = FakeNet()
    assert "holds weights for 'fake', not for 'other'" in refusal(path, net, "other")
    load(net, "other", path, {"fake": lambda tensors: {"scale": tensors["inner.scale"]}})
    assert float(net.scale.detach()) == 0.25
    with pytest.raises(WeightsError, match="not for 'other'"):
        load(net, "other", path, {"third": dict})


def test_a_manifest_tells_all_about_its_weights(store: Path) -> None:
    found = entry(store)
    assert (found.name, found.method, found.licence) == ("fake-1", "fake", "Apache-2.0")
    assert found.scores == {"J": 0.5}
    assert load(FakeNet(), "fake", found).name == "fake-1"


def test_a_file_of_another_size_is_refused_before_it_is_read(store: Path) -> None:
    path = entry(store).path
    path.write_bytes(path.read_bytes() + b"\0")
    assert "bytes instead of" in refusal(entry(store))


def test_a_file_of_another_hash_is_refused(store: Path) -> None:
    path = entry(store).path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "is damaged (SHA-256" in refusal(entry(store))


def test_a_file_that_is_missing_is_refused(store: Path) -> None:
    entry(store).path.unlink()
    assert "there are no weights at" in refusal(entry(store))
    assert "there are no weights at" in refusal(store)


def test_weights_of_another_method_are_refused(store: Path) -> None:
    assert "holds weights for 'fake', not for 'other'" in refusal(entry(store), method="other")


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "without scale"),
        ({"scale": torch.ones(1), "more": torch.ones(1)}, "with unknown more"),
        ({"scale": torch.ones(2)}, r"scale is [2], expected [1]"),
        ({"scale": torch.tensor([float("nan")])}, "scale holds values that are not finite"),
        ({"scale": torch.tensor([float("inf")]).half()}, "not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], words: str) -> None:
    assert words in refusal(file(tmp_path / "w.safetensors", tensors))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    for name, data in (("a", pickle.dumps(Bomb())), ("b", b""), ("c", b"\xff" * 100), ("d", b"hello")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        assert "is not a whole safetensors file" in refusal(path)
    torch.save({"scale": torch.ones(1)}, tmp_path / "torch.safetensors")
    refusal(tmp_path / "torch.safetensors")
    assert not (tmp_path / "exploded").exists()


def test_safetensors_of_another_program_are_refused(tmp_path: Path) -> None:
    save_file({"scale": torch.ones(1)}, tmp_path / "w.safetensors")
    assert "was not written by `vostrack train`" in refusal(tmp_path / "w.safetensors")
    path = file(tmp_path / "d.safetensors", {"scale": torch.ones(1)}, details="{")
    with pytest.raises(WeightsError, match="details"):
        read_details(path)


@pytest.mark.parametrize(
    ("line", "replacement"),
    [
        ('file = "fake-1.safetensors"', 'file = "../fake-1.safetensors"'),
        ('file = "fake-1.safetensors"', 'file = "/etc/passwd"'),
        ('file = "fake-1.safetensors"', 'file = ".."'),
        ('file = "fake-1.safetensors"', 'file = ""'),
        ('file = "fake-1.safetensors"', "file = 3"),
        ('name = "fake-1"', ""),
        ("[weights.scores]", "[weights.scores"),
        ("J = 0.5", 'J = "good"'),
        ("[[weights]]", "[weights]"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(store: Path, line: str, replacement: str) -> None:
    path = store / "manifest.toml"
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, replacement))
    with pytest.raises(WeightsError, match=r"manifest .*manifest\.toml cannot be read"):
        available()


def test_a_folder_without_a_manifest_holds_no_weights(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) == read_manifest(tmp_path / "none") == []


ROW = {"name": '"a"', "method": '"fake"', "file": '"a.safetensors"', "sha256": '"0"', "bytes": "1", "licence": '"x"',
       "trained_on": '"y"'}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": "inf"},
        {"bytes": "nan"},
        {"bytes": "-inf"},
        {"bytes": "9" * 400},
        {"bytes": "9" * 5000},
        {"bytes": "[" * 5000 + "]" * 5000},
        {"bytes": '"1"'},
        {"bytes": "true"},
        {"name": "3"},
        {"name": "[]"},
        {"file": '"../a"'},
        {"file": '"/etc/passwd"'},
        {"file": '".."'},
        {"file": r'"a\u0000b"'},
        {"licence": "1979-05-27"},
        {"scores": '{J = "high"}'},
        {"scores": "{J = inf}"},
        {"scores": "[]"},
        {"sha256": None},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_hostile_manifest_is_one_line(change: dict[str, str | None], tmp_path: Path) -> None:
    lines = [f"{key} = {value}" for key, value in (ROW | change).items() if value is not None]
    (tmp_path / "manifest.toml").write_text("\n".join(["[[weights]]", *lines]))
    with pytest.raises(WeightsError, match=r"manifest .* cannot be read") as caught:
        read_manifest(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("text", ["weights = 3", "weights = [3]", "[weights]", "a = " + "[" * 50_000, "\udcff"])
def test_what_is_no_manifest_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(WeightsError, match=r"manifest .* cannot be read"):
        read_manifest(tmp_path)


def test_a_pipe_is_neither_weights_nor_a_manifest(tmp_path: Path) -> None:
    for name in ("manifest.toml", "a.safetensors"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(WeightsError, match="not a regular file"):
        read_manifest(tmp_path)
    for use in (lambda path: load(FakeNet(), "fake", path), read_details, architecture, check):
        with pytest.raises(WeightsError, match=r"not a regular file|no weights at"):
            use(tmp_path / "a.safetensors")


def test_weights_given_as_a_file_need_no_manifest(store: Path, tmp_path: Path) -> None:
    path = (store / "fake-1.safetensors").rename(tmp_path / "w.safetensors")
    (store / "manifest.toml").write_text("weights = 3")
    assert find("fake", path) == path


@pytest.mark.parametrize("details", ["[" * 100_000, "[]", "9" * 5000, "NaN", '"\\ud800"', "", '{"a": 1e999}'])
def test_hostile_details_are_one_line(details: str, tmp_path: Path) -> None:
    path = file(tmp_path / "w.safetensors", {"scale": torch.ones(1)}, details=details)
    with pytest.raises(WeightsError, match="details that cannot be read"):
        read_details(path)
