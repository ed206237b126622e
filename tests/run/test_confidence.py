from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vostrack.errors import WeightsError
from vostrack.run.confidence import (
    FEATURES,
    FILE,
    Model,
    Row,
    Term,
    by_object,
    confidences,
    csv_text,
    features,
    load_model,
    low_notes,
)
from vostrack.run.signs import FrameSigns, Sign
from vostrack.types import LabelMap

SIGN = Sign(400, 0.04, 0.5, 0.5, 0.1, 3.0, 0.9, 1, 0.5, 0.5, 0.5, 0.1, 0.95, 0.9, 0.8, 0.05, 0.1, 0.9)


def given(*ids: int) -> LabelMap:
    return LabelMap(torch.zeros(4, 4, dtype=torch.uint8), ids)


def rows(values: dict[int, list[float]]) -> list[Row]:
    return [Row(frame, number, value, 10) for number, own in values.items() for frame, value in enumerate(own)]


def test_features_compare_with_the_nearest_given_frame() -> None:
    signs = [(frame, replace(SIGN, soft=0.01 * frame, kept=1 - 0.1 * frame, red=0.1 * frame)) for frame in range(9)]
    found = features(signs, [2, 7])
    for frame in range(9):
        near = 2 if frame <= 4 else 7
        assert found["time"][frame] == pytest.approx(np.log1p(abs(frame - near)))
        assert found["color"][frame] == pytest.approx(0.1 * abs(frame - near))
        way = range(near + 1, frame + 1) if frame > near else range(frame, near)
        if way:
            assert found["soft_since"][frame] == pytest.approx(np.mean([np.sqrt(0.01 * at) for at in way]))
            assert found["lost_since"][frame] == pytest.approx(np.mean([0.1 * at for at in way]))


def test_what_is_not_known_changes_nothing() -> None:
    signs = [(frame, replace(SIGN, inside=None, soft=None, agreement=None)) for frame in range(3)]
    model = Model(0.7, {"inside": Term(3.0, 0.9), "soft": Term(-2.0, 0.3), "disagreement": Term(-5.0, 0.1)})
    assert model(features(signs, [0])) == pytest.approx(1 / (1 + np.exp(-0.7)))


def test_every_method_has_a_model_that_falls_with_what_speaks_against_a_mask() -> None:
    for method in ("best", "anchors", "no such method"):
        model = load_model(method)
        assert set(model.terms) <= set(FEATURES)
        good = features([(frame, replace(SIGN, soft=0.01)) for frame in range(5)], [0])
        bad = features([(frame, replace(SIGN, soft=0.4, least=0.3)) for frame in range(5)], [0])
        assert (model(bad)[1:] < model(good)[1:]).all()
        assert (np.diff(model(good)[1:]) <= 0).all()  # the farther from the given mask, the less sure


def test_given_and_gone_are_certain_and_nowhere_is_open() -> None:
    signs = [FrameSigns(frame, 0.0, {1: SIGN, 2: replace(SIGN, area=0 if frame > 1 else 9)}) for frame in range(4)]
    found = confidences(signs, {0: given(1, 2)}, {2: [(3, None)]}, Model(0.0, {}))
    assert [(row.number, row.confidence) for row in found] == [
        *((1, 1.0), (2, 1.0)),
        *((1, 0.5), (2, 0.5)),
        *((1, 0.5), (2, 0.5)),
        *((1, 0.5), (2, 1.0)),
    ]
    assert csv_text(found).splitlines()[:3] == ["frame,object,confidence,area", "0,1,1.000,400", "0,2,1.000,9"]


def test_each_object_has_its_mean_and_its_worst_frame() -> None:
    assert by_object(rows({4: [1.0, 0.5, 0.6], 2: [0.9] * 3})) == {
        "2": {"mean_confidence": 0.9, "lowest_confidence": 0.9, "lowest_confidence_frame": 0},
        "4": {"mean_confidence": 0.7, "lowest_confidence": 0.5, "lowest_confidence_frame": 1},
    }


def test_stretches_of_low_confidence_are_merged_and_only_the_worst_are_told() -> None:
    low = [0.9, 0.9, 0.4, 0.3, 0.6, 0.4, *[0.9] * 9, 0.2, *[0.9] * 9, 0.4, *[0.9] * 9, 0.45, *[0.9] * 9, 0.1, 0.1]
    assert list(low_notes(rows({3: low}))) == [
        "object 3 has a low confidence from frame 2 to frame 5, down to 0.30",
        "object 3 has a low confidence at frame 15, down to 0.20",
        "object 3 has a low confidence from frame 45 to frame 46, down to 0.10",
    ]
    assert not list(low_notes(rows({3: [0.5] * 9})))


def test_a_damaged_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOSTRACK_WEIGHTS", str(tmp_path))
    for text in ("[any", "any = 3", "[any]\nbias = 1.0\n[any.terms]\nwind = { weight = 1.0, mean = 0.0 }", "[other]"):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(WeightsError, match="cannot be read"):
            load_model("best")
