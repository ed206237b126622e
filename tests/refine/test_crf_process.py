"""The process of the dense CRF: it answers, it fails with its own words, and it never stays behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.forks import finish, fork
from tests.refine.scenes import needs_package, scene
from vostrack.errors import VostrackError
from vostrack.refine import make_refiner
from vostrack.refine.base import Refiner
from vostrack.refine.crf import CrfConfig, CrfRefiner, infer


@pytest.fixture
def refiner(fake_crf: Path) -> Iterator[CrfRefiner]:
    with CrfRefiner(CrfConfig()) as found:
        yield found


def number(fake_crf: Path) -> int:
    """Of the process that has refined something last."""
    return int((fake_crf / "pydensecrf" / "pid").read_text())


def gone(process: int, seconds: float = 20) -> bool:
    """Whether a process ends in time; one that is not our child, or was waited for, vanishes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


IMAGE, PROBS, _ = scene()


@needs_package
def test_the_process_gives_what_inference_gives() -> None:
    made = make_refiner("crf", {"iterations": 3})
    assert made is not None
    config = CrfConfig(iterations=3)
    with made as refiner:
        for seed in range(3):
            image, probs, _ = scene(seed)
            assert refiner.refine(image, probs).tobytes() == infer(image, probs, config).tobytes()
        turned = image.transpose(0, 2, 1), probs.transpose(0, 2, 1)
        assert np.array_equal(refiner.refine(*turned), infer(*turned, config))


def test_frames_of_any_size_go_through(refiner: CrfRefiner) -> None:
    random = np.random.default_rng(0)
    for shape in ((2, 1, 1), (7, 400, 500), (3, 5, 9)):
        probs = random.random(shape).astype(np.float32)
        probs /= probs.sum(0)
        image = np.zeros((3, *shape[1:]), np.uint8)
        np.testing.assert_allclose(refiner.refine(image, probs), np.maximum(probs, 1e-5)[::-1], atol=1e-4)


def test_what_a_library_prints_does_not_get_among_the_answers(fake_crf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CRF", "print")
    with CrfRefiner(CrfConfig()) as refiner:
        for _ in range(2):
            np.testing.assert_allclose(refiner.refine(IMAGE, PROBS), PROBS[::-1], atol=1e-6)


def test_the_process_does_without_torch_and_what_else_the_caller_has(fake_crf: Path) -> None:
    with CrfRefiner(CrfConfig()) as refiner:
        file = fake_crf / "pydensecrf" / "densecrf.py"
        file.write_text(f"{file.read_text()}\nassert not {{'torch', 'tests', 'pytest'}} & {{*sys.modules}}")
        np.testing.assert_allclose(refiner.refine(IMAGE, PROBS), PROBS[::-1], atol=1e-6)


def test_no_file_of_the_current_folder_is_taken_for_a_module(
    fake_crf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    for name in ("json", "numpy", "struct"):
        (tmp_path / "here" / f"{name}.py").write_text("raise SystemExit('taken')")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # "" is there where Python runs a `-c`
    with CrfRefiner(CrfConfig()) as refiner:
        np.testing.assert_allclose(refiner.refine(IMAGE, PROBS), PROBS[::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("order", "words"), [("fail", r"crf failed \(wrong\)"), ("die", r"its process ended with code -9\)")]
)
def test_a_failure_is_told(fake_crf: Path, monkeypatch: pytest.MonkeyPatch, order: str, words: str) -> None:
    monkeypatch.setenv("FAKE_CRF", order)
    with CrfRefiner(CrfConfig()) as refiner:
        for _ in range(2):
            with pytest.raises(VostrackError, match=words) as caught:
                refiner.refine(IMAGE, PROBS)
            assert len(str(caught.value).splitlines()) == 1


def test_a_package_that_breaks_in_the_process_is_told(fake_crf: Path) -> None:
    with CrfRefiner(CrfConfig()) as refiner:
        (fake_crf / "pydensecrf" / "densecrf.py").write_text("raise ImportError('no such symbol')")
        with pytest.raises(VostrackError, match="ImportError: no such symbol"):
            refiner.refine(IMAGE, PROBS)


def test_arrays_that_do_not_fit_are_refused_rather_than_waited_for(refiner: CrfRefiner) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        refiner.refine(IMAGE[:, :3], PROBS)
    refiner.refine(IMAGE, PROBS)


def test_leaving_ends_a_process_that_hangs(fake_crf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CRF", "hang")
    errors: list[BaseException] = []

    def refine(refiner: Refiner) -> None:
        try:
            refiner.refine(IMAGE, PROBS)
        except BaseException as error:
            errors.append(error)

    os.mkfifo(fake_crf / "pydensecrf" / "pid")
    with CrfRefiner(CrfConfig()) as refiner:
        thread = threading.Thread(target=refine, args=(refiner,))
        thread.start()
        process = number(fake_crf)  # it tells before it hangs
    thread.join(20)
    assert not thread.is_alive()
    assert errors
    assert gone(process)


def test_ctrl_c_does_not_reach_the_process(refiner: CrfRefiner, fake_crf: Path) -> None:
    refiner.refine(IMAGE, PROBS)
    process = number(fake_crf)
    assert os.getpgid(process) != os.getpgid(0)
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process, signal_number)
    refiner.refine(IMAGE, PROBS)


def refine_and_die() -> None:
    with CrfRefiner(CrfConfig()) as refiner:
        refiner.refine(IMAGE, PROBS)
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_process_ends_with_a_caller_that_is_killed(fake_crf: Path, tmp_path: Path) -> None:
    code, _, said = finish(fork(tmp_path / "log", refine_and_die), tmp_path / "log")
    assert code == -signal.SIGKILL, said
    assert gone(number(fake_crf))


def test_entering_and_leaving_leaves_nothing_open(fake_crf: Path) -> None:
    refiner = CrfRefiner(CrfConfig())
    for _ in range(2):
        before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
        with refiner:
            refiner.refine(IMAGE, PROBS)
            process = number(fake_crf)
        assert gone(process)
        assert (len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0) == before
