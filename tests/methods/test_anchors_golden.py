"""Label propagation equals a published implementation on stored features."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vostrack.methods.anchors import PAPER, AnchorsConfig, AnchorsMethod
from vostrack.nets.encoders import AnchorsNet
from vostrack.ops.labels import one_hot, strongest


@pytest.mark.data
@pytest.mark.parametrize("name", ["paper", "short-context"])
def test_paper_preset_equals_the_published_propagation(dev_data: Path, name: str) -> None:
    golden = np.load(dev_data / "golden-labelprop" / f"{name}.npz")
    fields = {key: golden[key].item() for key in ("context", "radius", "temperature", "top_k")}
    config = AnchorsConfig(**{**vars(PAPER), **fields})
    method = AnchorsMethod(AnchorsNet(), config)
    features = torch.from_numpy(golden["features"]).float()
    first = torch.from_numpy(golden["first_label"]).to(torch.uint8)
    ids = tuple(range(1, int(golden["first_label"].max()) + 1))
    size = (first.shape[0], first.shape[1])

    state = method.begin(features[0], one_hot(first, ids))
    equal, worst = [], 0.0
    for t in range(1, len(features)):
        probs = method.predict(state, features[t])
        full = method.enlarge(probs, torch.empty(3, *size))
        equal.append((strongest(full, ids, size).numpy() == golden["labels"][t]).mean())
        worst = max(worst, float((full[1] - torch.from_numpy(golden["object1_probability"][t])).abs().max()))
        state = method.remember(state, features[t], probs)

    assert len(equal) == len(golden["labels"]) - 1
    assert np.mean(equal) >= 0.9999
    assert worst <= 1e-4
