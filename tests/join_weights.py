"""Makes the weights of `best` from those of the methods that it adopts.

python -m tests.join_weights anchors.safetensors mast-mem.safetensors best.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file

from vostrack.errors import WeightsError
from vostrack.methods.best import BestMethod
from vostrack.nets.encoders import BestNet
from vostrack.weights import check, describe, save_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path, nargs=len(BestMethod.adopts))
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    tensors, details = {}, {}
    for path in options.parts:
        method = describe(path)["method"]
        if method not in BestMethod.adopts or method in details:
            raise WeightsError(f"{path} holds weights for {method!r}: give one file for each of {[*BestMethod.adopts]}")
        tensors |= dict(BestMethod.adopts[method](load_file(path)))
        details[method] = {"sha256": check(path), **describe(path)["details"]}
    net = BestNet()
    net.load_state_dict({name: tensor.to(net.state_dict()[name].dtype) for name, tensor in tensors.items()})
    save_weights(net, "best", options.out, details)


if __name__ == "__main__":
    main()
