"""`vostrack inspect`: a picture of sampling locations, and refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import steps
from tests.fakes import IDS, NAME, corners, fake_method, register, truth, write_clip, write_mask
from vostrack.cli import run
from vostrack.errors import InputError, MethodError
from vostrack.methods import METHODS, load_method, method_class
from vostrack.methods.base import Correspondences, in_parts
from vostrack.methods.rpm_net import RpmNetMethod
from vostrack.nets.rpm_net import RpmNet
from vostrack.ops.grid import to_cells
from vostrack.run.inspection import (
    MATCHED,
    SAMPLED,
    TARGET,
    choose_points,
    correspondences,
    draw_features,
    draw_matching,
    draw_similarity,
    encode_pair,
    principal_colours,
    read_frames,
    sampled_similarity,
)
from vostrack.weights import RANDOM, save_weights

ALL = dict(METHODS)
SIZE = (48, 64)
SCALE = 10  # frames of 48 pixels are drawn at 480


@pytest.fixture(scope="module")
def net() -> RpmNet:
    torch.manual_seed(0)
    return RpmNet().eval()


@pytest.fixture(scope="module")
def weights(net: RpmNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "rpm.safetensors"
    save_weights(net, "rpm-net", path, {})
    return path


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register(monkeypatch, tmp_path / "weights")
    monkeypatch.setitem(METHODS, "rpm-net", "vostrack.methods.rpm_net:RpmNetMethod")
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", 4)
    write_mask(tmp_path / "second.png", truth(1))


Run = Any


@pytest.fixture
def inspect(capfd: pytest.CaptureFixture[str], weights: Path) -> Run:
    def call(*arguments: str, clip: str = "clip.mp4") -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(["inspect", clip, "--weights", str(weights), *arguments])
        return code, *capfd.readouterr()

    return call


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.array(image)


def colour(pixels: np.ndarray, wanted: tuple[int, int, int]) -> np.ndarray:
    return (pixels == np.array(wanted, np.uint8)).all(2)


def refused(answer: tuple[int, str, str], code: int, *words: str) -> None:
    ended, printed, said = answer
    assert (ended, printed) == (code, ""), said
    assert "Traceback" not in said
    if code != 2:
        assert len(said.splitlines()) == 1
    for word in words:
        assert word in said


def test_a_picture_shows_both_frames_and_the_places_around_the_pixel(inspect: Run, tmp_path: Path) -> None:
    code, printed, said = inspect("--frame", "2", "--point", "40,20")
    assert (code, printed) == (0, "")
    assert "frame 2 from frame 1" in said
    assert "\nnext: open it: " in said
    pixels = picture(tmp_path / "clip_inspect.png")
    assert pixels.shape == (2 * 480, 640, 3)
    for panel in (pixels[:480], pixels[480:]):
        y, x = colour(panel, TARGET).nonzero()
        assert (y.mean(), x.mean()) == pytest.approx((20.5 * SCALE, 40.5 * SCALE), abs=SCALE)
        y, x = colour(panel, SAMPLED).nonzero()
        # With random weights the layers sample a grid of 7 x 7 cells of 4 pixels, or nearly so.
        assert (y.min(), y.max()) == pytest.approx((8 * SCALE, 32 * SCALE), abs=6 * SCALE)
        assert (x.min(), x.max()) == pytest.approx((28 * SCALE, 52 * SCALE), abs=6 * SCALE)


def test_without_points_all_of_the_frame_is_shown(inspect: Run, tmp_path: Path) -> None:
    assert inspect("--out", "all.png")[0] == 0
    y, x = colour(picture(tmp_path / "all.png")[:480], TARGET).nonzero()
    assert (y.min() < 160, y.max() > 320, x.min() < 213, x.max() > 426) == (True,) * 4


def test_points_inside_a_mask(inspect: Run, tmp_path: Path) -> None:
    assert inspect("--mask", "second.png", "--out", "deep/er/mask.png")[0] == 0
    y, x = colour(picture(tmp_path / "deep" / "er" / "mask.png")[:480], TARGET).nonzero()
    # Marks reach a little over the objects.
    near = np.pad(truth(1) > 0, 2)
    assert near[y // SCALE + 2, x // SCALE + 2].mean() > 0.9


def test_annotations_are_masks(inspect: Run, tmp_path: Path) -> None:
    height, width = truth(1).shape
    shape = {"label": "dog", "points": [[10, 10], [30, 10], [30, 30]], "shape_type": "polygon"}
    content = {"shapes": [shape], "imagePath": "00001.jpg", "imageHeight": height, "imageWidth": width}
    Path("00001.json").write_text(json.dumps(content))
    assert inspect("--mask", "00001.json")[0] == 0
    y, x = colour(picture(tmp_path / "clip_inspect.png")[:480], TARGET).nonzero()
    assert (x.min() / SCALE > 5, x.max() / SCALE < 35, y.max() / SCALE < 35) == (True,) * 3
    refused(inspect("--mask", "00001.json", "--frame", "2", "--out", "other.png"), 4, "00001.json has no mask for")


def test_a_mask_is_read_as_by_segment(inspect: Run, tmp_path: Path) -> None:
    Image.fromarray(truth(1) == 0).save("inverted.png")
    refused(inspect("--mask", "inverted.png"), 4, "use --invert-mask")
    assert inspect("--mask", "inverted.png", "--invert-mask")[0] == 0
    assert inspect("--mask", "second.png", "--out", "second_inspect.png")[0] == 0
    assert Path("clip_inspect.png").read_bytes() == Path("second_inspect.png").read_bytes()


def test_the_reference_may_be_any_frame_and_the_size_smaller(inspect: Run, tmp_path: Path) -> None:
    code, _, said = inspect("-f", "0", "--reference", "3", "--size", "24", "-p", "10,10", "-p", "50,30")
    assert code == 0
    assert "frame 0 from frame 3, 2 pixels" in said
    assert picture(tmp_path / "clip_inspect.png").shape == (2 * 480, 640, 3)


def test_the_same_command_gives_the_same_bytes(inspect: Run, tmp_path: Path) -> None:
    files = []
    for name in ("one.png", "two.png"):
        assert inspect("--out", name)[0] == 0
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_nothing_is_replaced_unasked_and_inputs_never(inspect: Run, tmp_path: Path) -> None:
    assert inspect("-p", "4,4")[0] == 0
    before = (tmp_path / "clip_inspect.png").read_bytes()
    refused(inspect("-p", "40,30"), 9, "already", "--overwrite")
    assert (tmp_path / "clip_inspect.png").read_bytes() == before
    assert inspect("-p", "40,30", "--overwrite")[0] == 0
    assert (tmp_path / "clip_inspect.png").read_bytes() != before
    refused(inspect("--mask", "second.png", "--out", "second.png", "--overwrite"), 6, "one of the inputs")
    assert sorted(path.name for path in tmp_path.glob(".vostrack*")) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--frame", "4"), 5, ("no frame 4", "it has 4")),
        (("--reference", "9"), 5, ("no frame 9",)),
        (("--frame", "0"), 2, ("no frame before 0",)),
        (("--point", "64,3"), 5, ("64,3 is outside", "64x48")),
        (("--point", "nan,3"), 5, ("outside",)),
        (("--point", "3"), 2, ("X,Y",)),
        (("--point", "3,3", "--mask", "second.png"), 2, ("exclude",)),
        (("--mask", "missing.png"), 4, ("missing.png",)),
        (("--method", "rpm"), 2, ("did you mean 'rpm-net'?",)),
        (("--size", "8"), 2, ("--size",)),
    ],
)
def test_refusals(inspect: Run, tmp_path: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]) -> None:
    refused(inspect(*arguments), code, *words)
    assert not list(tmp_path.glob("*_inspect.png"))


def test_a_clip_that_is_not_there_is_refused(inspect: Run) -> None:
    refused(inspect(clip="no.mp4"), 5, "no.mp4")


def test_a_method_that_cannot_be_inspected_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    code = run(["inspect", "clip.mp4", "--method", NAME])
    refused((code, *capfd.readouterr()), 2, "fake cannot show its matches", "show similarity or features")


def test_a_method_that_does_all_in_one_step_is_refused(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, steps.NAME, steps.PATH)
    code = run(["inspect", "clip.mp4", "--method", steps.NAME, "--show", "features"])
    refused((code, *capfd.readouterr()), 2, "steps does all in one step")


def test_frames_are_given_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    third, first = read_frames(tmp_path / "clip.mp4", (2, 0))
    for image, index in ((third, 2), (first, 0)):
        top, left = corners(index)[0]
        assert image[0, top + 4, left + 12] > 180
    assert image_differs(third, first)
    same = read_frames(tmp_path / "clip.mp4", (1, 1))
    assert torch.equal(same[0], same[1])


def image_differs(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one.int() - other.int()).abs().max() > 50)


def test_points_are_spread_and_a_small_object_gets_one(tmp_path: Path) -> None:
    points = choose_points((480, 854))
    assert 8 <= len(points) <= 20
    assert len({y for _, y in points}) >= 3
    tiny = np.zeros(SIZE, np.uint8)
    tiny[47, 63] = IDS[0]
    assert choose_points(SIZE, write_mask(tmp_path / "tiny.png", tiny)) == [(63.0, 47.0)]
    assert choose_points((1, 1)) == [(0.0, 0.0)]


class Pointing(RpmNetMethod):
    """Says that each pixel comes from two pixels to its right."""

    def correspondences(self, reference: torch.Tensor, target: torch.Tensor, pixels: torch.Tensor) -> Correspondences:
        to = pixels + torch.tensor([0.0, 20.0])
        return Correspondences(tuple(place[None] for place in to), to, reference[:32], self.stride)


def test_matches_are_drawn_where_they_are(net: RpmNet) -> None:
    frames = torch.randint(0, 60, (2, 3, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    method = Pointing(net)
    pair = encode_pair(in_parts(method), frames[0], frames[1], [(10.0, 24.0)])
    pixels = draw_matching(pair, correspondences(method, pair))
    y, x = colour(pixels[:480], MATCHED).nonzero()
    assert (y.min(), y.max()) == pytest.approx((24.5 * SCALE, 24.5 * SCALE), abs=6)
    assert (x.min(), x.max()) == pytest.approx((10.5 * SCALE, 30.5 * SCALE), abs=8)


def test_frames_of_two_sizes_are_refused(net: RpmNet) -> None:
    with pytest.raises(InputError, match="size"):
        encode_pair(Pointing(net), torch.zeros(3, 8, 8).byte(), torch.zeros(3, 8, 9).byte(), [(0.0, 0.0)])
    blank = torch.zeros(3, 8, 8).byte()
    pair = encode_pair(fake_method(), blank, blank, [(0.0, 0.0)])
    with pytest.raises(MethodError, match="cannot show its matches"):
        correspondences(fake_method(), pair)


class Colourful(Pointing):
    """Features are the mean colours of cells of 4 pixels."""

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return to_cells(image, 4)


def test_the_most_similar_cell_of_the_other_frame_is_marked(net: RpmNet) -> None:
    """As what a feature is alike to in RPM-Net, figure 9: here the frame moves by 16 pixels."""
    frame = torch.randint(0, 200, (3, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pair = encode_pair(Colourful(net), frame, torch.roll(frame, 16, 2), [(40.0, 24.0), (48.0, 8.0)])
    pixels = draw_similarity(pair)
    assert pixels.shape == (2 * 240, 2 * 320, 3)
    for row, (x, y) in ((pixels[:240], (40, 24)), (pixels[240:], (48, 8))):
        for panel, wanted, at in ((row[:, :320], TARGET, x), (row[:, 320:], MATCHED, x - 16)):
            found = [float(axis.mean()) / 5 for axis in colour(panel, wanted).nonzero()]
            assert found == pytest.approx([y, at], abs=0.5)
        assert (row[:, 320:] == 255).all(2).any() or (row[:, 320:] > 150).all(2).any()


def test_features_of_both_frames_share_their_colours(net: RpmNet) -> None:
    frame = torch.randint(0, 200, (3, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels = draw_features(encode_pair(Colourful(net), frame, frame, []))
    assert pixels.shape == (2 * 240, 2 * 320, 3)
    assert np.array_equal(pixels[:, :320], pixels[:, 320:])
    assert pixels[240:, :320].std() > 20


def test_the_similarity_to_what_is_sampled_is_a_mean_of_cosines(net: RpmNet) -> None:
    """RPM-Net, section 4.5: of the feature of a pixel with those at its sampling locations."""
    features = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    blank = torch.zeros(3, 12, 16).byte()
    pair = encode_pair(Colourful(net), blank, blank, [(4.0, 8.0), (0.0, 0.0)])
    sampled = [[(0, 0), (2, 3), (2, 1)], [(1, 1)]]
    places = tuple(4.0 * torch.tensor(cells, dtype=torch.float32) for cells in sampled)
    found = Correspondences(places, pair.pixels, features, 4)
    means = []
    for (y, x), cells in zip(((2, 1), (0, 0)), sampled, strict=True):
        one = features[:, y, x].double()
        cosines = [one @ f.double() / (one.norm() * f.double().norm()) for f in (features[:, v, u] for v, u in cells)]
        means.append(sum(float(value) for value in cosines) / len(cosines))
    assert sampled_similarity(pair, found) == pytest.approx(sum(means) / 2, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in ALL if not hasattr(method_class(name), "step")])
def test_similarity_and_features_of_every_method_that_has_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, name, ALL[name])
    method = load_method(name, weights=RANDOM if method_class(name).nets else None)[0]
    frames = torch.randint(0, 200, (2, 3, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pair = encode_pair(in_parts(method), frames[0], frames[1], [(10.0, 24.0)])
    assert draw_similarity(pair).shape == (240, 2 * 320, 3)
    assert draw_features(pair).shape == (2 * 240, 2 * 320, 3)


@pytest.mark.parametrize("shown", ["similarity", "features"])
def test_methods_that_cannot_point_show_what_is_alike(shown: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "clip.mp4", "--method", NAME, "--show", shown]) == 0
    assert "\nnext: open it: " in capfd.readouterr().err
    assert picture(Path("clip_inspect.png")).shape[1] == 2 * 320


def test_features_that_differ_get_colours_that_differ() -> None:
    features = torch.zeros(8, 4, 6)
    features[:, :, 3:] = torch.arange(8.0).view(8, 1, 1)
    shown = principal_colours(features)
    assert tuple(shown.shape) == (3, 4, 6)
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert (shown[0, :, :3] - shown[0, :, 3:]).abs().min() > 0.3
    assert torch.equal(principal_colours(torch.ones(4, 3, 3)), torch.full((3, 3, 3), 0.5))


def test_help_has_an_example(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "--help"]) == 0
    assert "vostrack inspect dog.mp4 --frame 12" in capfd.readouterr().out
