"""Makes the weights of `best` from those of the methods that it adopts.

python -m tests.join_weights anchors.safetensors mast-mem.safetensors joined.safetensors
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from vostrack.errors import WeightsError
from vostrack.methods.best import BestMethod
from vostrack.nets.encoders import BestNet
from vostrack.weights import load, read_details, save_weights

_CHILDREN = {"anchors": "anchors", "mast-mem": "mast"}


def _within(method: str, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors that `best` takes of a method, as its child names them."""
    return {name.partition(".")[2]: tensor for name, tensor in BestMethod.adopts[method](tensors).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path, nargs=len(BestMethod.adopts))
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    net, details = BestNet(), {}
    for path in options.parts:
        told = read_details(path)
        method = told["method"]
        if method not in BestMethod.adopts or method in details:
            raise WeightsError(f"{path} holds weights for {method!r}: give one file for each of {[*BestMethod.adopts]}")
        # Into the child itself, so that none of the rest is asked for: there may be no weights of `best` yet.
        loaded = load(net.get_submodule(_CHILDREN[method]), "best", path, {method: partial(_within, method)})
        details[method] = {**told["details"], "sha256": loaded.sha256}
    save_weights(net, "best", options.out, details)


if __name__ == "__main__":
    main()
