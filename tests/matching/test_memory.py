from __future__ import annotations

import pytest
import torch

from vostrack.matching.memory import with_new_objects


def test_new_objects_take_their_part_of_the_labels_that_a_frame_had() -> None:
    labels = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]])
    found = torch.tensor([[0.9, 0.0, 0.1], [0.3, 0.3, 0.4], [0.0, 0.0, 1.0]])
    merged = with_new_objects(labels, found)
    assert merged.flatten().tolist() == pytest.approx([0.9, 0.0, 0.1, 0.3, 0.3, 0.4, 0.0, 0.0, 1.0])
    assert torch.equal(with_new_objects(labels, labels), labels)
