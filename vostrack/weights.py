"""Where weights lie, whether they are whole, and how they get into a network.

A folder of weights holds `manifest.toml` and safetensors files. Nothing in it is unpickled, a file is hashed before it
is read, and every tensor must fit: there are no random weights in silence. Knows nothing of what the networks do.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vostrack.errors import WeightsError, unknown_name
from vostrack.files import open_regular, parse_json, read_toml, sha256, shown, write_bytes
from vostrack.nets.checkpoint import read_checkpoint

FORMAT = "vostrack-weights-1"
MANIFEST = "manifest.toml"
_MOST_TEXT = 1 << 20

RANDOM = "random"
"""Asks for a network as it is initialised with seed 0, to measure what learning is worth."""

NONE = "none"
"""Name of the weights of a method without a network."""

Adopt = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Picks and renames the tensors of another method's network, so that they fill whole children of a network."""


@dataclass(frozen=True)
class WeightsEntry:
    """A line of a manifest.

    Attributes:
        name: by which it is asked for.
        method: that it is for.
        file: name of the safetensors file.
        sha256: of that file.
        bytes: its size.
        licence: of the weights.
        trained_on: what footage they learned from.
        scores: measured figures, by name.
        net: architecture that the file fills, where a method has weights of several.
        folder: of the manifest and the file.
    """

    name: str
    method: str
    file: str
    sha256: str
    bytes: int
    licence: str
    trained_on: str
    scores: dict[str, float] = field(default_factory=dict)
    net: str = "default"
    folder: Path = Path()

    def __post_init__(self) -> None:
        """Refuse a file elsewhere; raises `ValueError`."""
        if Path(self.file).name != self.file or self.file in ("", "..") or "\0" in self.file:
            raise ValueError(f"{self.file!r} is not a plain file name")

    @property
    def path(self) -> Path:
        """Of the safetensors file."""
        return self.folder / self.file


@dataclass(frozen=True)
class _Manifest:
    weights: tuple[WeightsEntry, ...] = ()


@dataclass(frozen=True)
class LoadedWeights:
    """What was loaded.

    Attributes:
        name: of the weights, or the file's.
        sha256: of the file.
        rest: SHA-256 of the method's own weights, which filled what the file left out; empty if it left out nothing.
    """

    name: str
    sha256: str
    rest: str = ""


def search_path() -> list[Path]:
    """Folders that are searched for weights, first to last; they need not exist.

    `$VOSTRACK_WEIGHTS`, the package's own (or the repository's, when run from there), the user's cache.
    """
    given = os.environ.get("VOSTRACK_WEIGHTS")
    package = Path(__file__).resolve().parent
    folders = [Path(given)] if given else []
    cache = user_cache_path("vostrack", appauthor=False, opinion=False)
    # Beside an installed package lie other packages: only a source tree has weights of ours there.
    source_tree = [package.parent / "weights"] if (package.parent / "pyproject.toml").is_file() else []
    return [*folders, package / "_weights", *source_tree, cache / "weights"]


def read_manifest(folder: Path) -> list[WeightsEntry]:
    """Entries of a folder's manifest.

    Raises:
        WeightsError: it is there but cannot be read or names a file outside the folder.
    """
    path = folder / MANIFEST
    try:
        return [replace(entry, folder=folder) for entry in read_toml(path, _Manifest).weights]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"the manifest {shown(path)} cannot be read ({shown(error)}): restore it or reinstall vostrack"
        ) from error


def available() -> list[WeightsEntry]:
    """All entries on the search path; of equal names, the first one found."""
    found: dict[str, WeightsEntry] = {}
    for folder in search_path():
        for entry in read_manifest(folder):
            found.setdefault(entry.name, entry)
    return list(found.values())


def find(method: str, wanted: str | Path | None = None, net: str = "default") -> WeightsEntry | Path:
    """Weights for a method.

    Args:
        method: the method's name.
        wanted: a file, or a name from a manifest; None for the method's own.
        net: architecture that the method's own are of.

    Raises:
        WeightsError: there are none.
    """
    if wanted is not None and Path(wanted).is_file():
        return Path(wanted)
    entries = available()
    if wanted is None:
        matching = [entry for entry in entries if (entry.method, entry.net) == (method, net)]
        if not matching:
            folders = ", ".join(map(str, search_path()))
            raise WeightsError(
                f"no weights for method {method!r} in {folders}: train or convert some, or name a file as `weights`"
            )
        return matching[0]
    path = Path(wanted)
    for entry in entries:
        if entry.name == str(wanted):
            return entry
    if path.suffix or path.name != str(wanted) or not entries:
        raise WeightsError(f"there are no weights at {path}: check the path, or see `vostrack weights` for names")
    raise WeightsError(unknown_name("weights", str(wanted), [entry.name for entry in entries]))


def check(source: WeightsEntry | Path) -> str:
    """SHA-256 of a weights file.

    Raises:
        WeightsError: it is missing, or not what its manifest says.
    """
    path = _file(source)
    if isinstance(source, WeightsEntry):
        size = path.stat().st_size
        if size != source.bytes:
            raise WeightsError(f"{path} has {size} bytes instead of {source.bytes}: get it again")
    digest = sha256(path)
    if isinstance(source, WeightsEntry) and digest != source.sha256:
        raise WeightsError(f"{path} is damaged (SHA-256 {digest} instead of {source.sha256}): get it again")
    return digest


def architecture(source: WeightsEntry | Path) -> str:
    """Name of the network that a weights file fills.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    return _read(_file(source))[1].get("net", "default")


def _file(source: WeightsEntry | Path) -> Path:
    path = source if isinstance(source, Path) else source.path
    if not path.is_file():
        raise WeightsError(f"there are no weights at {path}: check the path")
    return path


def load(
    net: nn.Module, method: str, source: WeightsEntry | Path, adopts: Mapping[str, Adopt] | None = None
) -> LoadedWeights:
    """Fill a network with weights.

    Args:
        net: on the CPU; all its parameters and buffers are overwritten.
        method: the method that the weights must be for, unless it adopts them.
        source: from `find`.
        adopts: other methods whose weights are taken as well, each with what picks and renames their tensors. Children
            of the network that they leave out get the method's own weights. Under the method's own name stands what
            fills the network from a smaller one of its own.

    Returns:
        What was loaded.

    Raises:
        WeightsError: the file is missing, damaged, of another size or hash than its manifest says, or does not fit; or
            there are no weights of the method's own for what it leaves out. The network is as it was then.
    """
    path = _file(source)
    digest, wanted, rest = check(source), net.state_dict(), ""
    tensors, metadata = _read(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path} was not written by `vostrack train`: expected a file of format {FORMAT}")
    origin = metadata.get("method", "")
    if origin != method:
        if origin not in (adopts or {}):
            raise WeightsError(f"{path} holds weights for {origin[:60]!r}, not for {method!r}")
        tensors = dict((adopts or {})[origin](tensors))
        children = {name.partition(".")[0] for name in tensors}
        wanted = {name: x for name, x in wanted.items() if name.partition(".")[0] in children} or wanted
    elif tensors.keys() < wanted.keys() and method in (adopts or {}):
        filled = dict((adopts or {})[method](tensors))
        tensors = filled if filled.keys() == wanted.keys() else tensors
    _fit(tensors, wanted, path)
    if len(wanted) < len(net.state_dict()):
        rest = load(net, method, _own(method, path)).sha256
    net.load_state_dict({**net.state_dict(), **{name: x.to(wanted[name].dtype) for name, x in tensors.items()}})
    return LoadedWeights(path.name if isinstance(source, Path) else source.name, digest, rest)


def initialised(build: Callable[[], nn.Module]) -> tuple[nn.Module, LoadedWeights]:
    """A network with the weights that it is initialised with after seed 0; nobody else's random numbers change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build()
    digest = hashlib.sha256(save({name: tensor.contiguous() for name, tensor in net.state_dict().items()}))
    return net, LoadedWeights(RANDOM, digest.hexdigest())


def join(net: nn.Module, method: str, paths: Sequence[Path], adopts: Mapping[str, Adopt]) -> dict[str, dict[str, Any]]:
    """Fill a network with the weights of several other methods, each of which fills a part.

    Args:
        net: on the CPU; all its parameters and buffers are overwritten.
        method: whose network it is.
        paths: a weights file of each method that it adopts.
        adopts: as for `load`.

    Returns:
        By method, how its weights were trained, and the hash of their file.

    Raises:
        WeightsError: a file is missing or damaged, or is of none of these methods, or some part is left out.
    """
    tensors: dict[str, Tensor] = {}
    details: dict[str, dict[str, Any]] = {}
    for path in paths:
        description = read_details(path)
        origin = description["method"]
        if origin not in adopts or origin in details:
            raise WeightsError(
                f"{path} holds weights of {str(origin)[:60]!r}: give one file for each of {', '.join(adopts)}"
            )
        tensors |= adopts[origin](_read(path)[0])
        details[origin] = {**description["details"], "sha256": check(path)}
    wanted = net.state_dict()
    _fit(tensors, wanted, Path(f"{method}, joined from {' and '.join(map(str, paths))}"))
    net.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()})
    return details


def converted(path: Path, nets: Mapping[str, Callable[[], nn.Module]]) -> tuple[str, nn.Module, list[str]]:
    """The network that a checkpoint of another package fills.

    Args:
        path: of a file that `torch.save` wrote of tensors by name.
        nets: what builds each network that it may be for, by architecture.

    Returns:
        The architecture, its network, filled, and the names of tensors that it has no use for.

    Raises:
        WeightsError: the file is missing, damaged or holds anything but tensors, or they fit none of the networks.
    """
    tensors, refusal = read_checkpoint(path), None
    for name, build in nets.items():
        net = build()
        own = net.state_dict()
        # How many batches normalisation has seen decides nothing, and older files are without it.
        counts = {key: x for key, x in own.items() if key.endswith(".num_batches_tracked")}
        found = counts | {key: x for key, x in tensors.items() if key in own}
        try:
            _fit(found, own, path)
        except WeightsError as error:
            refusal = refusal or error
            continue
        net.load_state_dict({key: x.to(own[key].dtype) for key, x in found.items()})
        return name, net, sorted(tensors.keys() - own.keys())
    raise refusal or WeightsError(f"there is no network that {shown(path)} could fill: choose another method")


def _own(method: str, path: Path) -> WeightsEntry:
    """The first weights on the search path of a method's default network, and not another's that it adopts."""
    for entry in available():
        ours = (entry.method, entry.net) == (method, "default") and entry.path.is_file()
        if ours and read_details(entry.path)["method"] == method:
            return entry
    raise WeightsError(f"{path} fills a part of {method}, and there are no weights of {method} itself for the rest")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        open_regular(path).close()
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if any(len(text) > _MOST_TEXT for text in (*metadata, *metadata.values())):
                raise ValueError("its header is too large")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        short = shown(error)[:200]
        raise WeightsError(f"{shown(path)} is not a whole safetensors file ({short}): get it again") from error


def _fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Reject tensors that are not those expected, of their shapes, and finite."""
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or extra:
        listed = ", ".join([*(f"without {n}" for n in missing[:2]), *(f"with unknown {n}" for n in extra[:2])])
        raise WeightsError(f"{path} does not fit the network: {len(missing) + len(extra)} names differ ({listed})")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            found, wanted = list(tensor.shape), list(expected[name].shape)
            raise WeightsError(f"{path} does not fit the network: {name} is {found}, expected {wanted}")
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{path} is damaged: {name} holds values that are not finite")


def save_weights(
    net: nn.Module,
    method: str,
    path: Path,
    details: Mapping[str, Any],
    architecture: str = "default",
    half: bool = True,
) -> None:
    """Write a network's weights, whole or not at all.

    Args:
        net: the network.
        method: its method.
        path: of the safetensors file.
        details: how it was trained; kept in the file's metadata as JSON.
        architecture: name of the network among the method's.
        half: whether in half precision.

    Raises:
        WeightsError: a value is not finite, or too large for half precision.
        OutputError: the file cannot be written.
    """
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in net.state_dict().items()
    }
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{name} holds values that half precision cannot: train again with a lower `lr`")
    metadata = {"format": FORMAT, "method": method, "net": architecture, "details": json.dumps(details, sort_keys=True)}
    write_bytes(path, save(tensors, metadata))


def read_details(path: Path) -> dict[str, Any]:
    """What a weights file says of itself: "method", "net" and "details".

    Raises:
        WeightsError: it is not a weights file.
    """
    _, metadata = _read(path)
    try:
        return {
            "method": metadata.get("method"),
            "net": metadata.get("net", "default"),
            "details": parse_json(metadata.get("details", "{}"), dict[str, Any]),
        }
    except ValueError as error:
        raise WeightsError(f"{path} has details that cannot be read ({shown(error)}): get it again") from error
