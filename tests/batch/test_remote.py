from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vostrack.batch.remote import Remote
from vostrack.errors import InputError, OutputError, VostrackError
from vostrack.run.place import address, below

MUCH = 10**9


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://bucket/a/dog [1]*.mp4", "s3://bucket/a/dog [1]*.mp4"),
        ("gs://bucket/ü.mp4", "gs://bucket/ü.mp4"),
        ("videos/dog.mp4", None),
        ("C:/dog.mp4", None),
        ("file:///etc/passwd", None),
        ("s3://bucket/../x", None),
        ("zip://a::s3://bucket/x", None),
        ("40:s3://bucket/x", None),
    ],
)
def test_addresses_outlive_being_paths(path: str, expected: str | None) -> None:
    assert address(path) == address(Path(path)) == expected
    assert below(Path("/base"), path) == (Path(path) if expected else Path("/base", path))


def test_a_store_that_nothing_is_known_of_says_what_to_do() -> None:
    with pytest.raises(VostrackError, match=r"cannot reach nosuch://x .*pip install 'vostrack\[cloud\]'"):
        Remote("nosuch://x")


@pytest.mark.needs("moto", "dev")
@pytest.mark.needs("s3fs", "cloud")
class TestStore:
    def test_files_and_folders_are_fetched(self, store: Any, tmp_path: Path) -> None:
        for name in ("frames/00000.png", "frames/[1]*.png", "frames/deeper/x.png", "framesmore/y.png"):
            store.pipe_file(f"clips/{name}", name.encode())
        store.touch("clips/frames/")
        assert Remote("s3://clips/frames/[1]*.png").fetch(tmp_path / "one.png", MUCH) == len("frames/[1]*.png")
        Remote(Path("s3://clips/frames")).fetch(tmp_path / "all", MUCH)
        assert (tmp_path / "one.png").read_text() == "frames/[1]*.png"
        assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["00000.png", "[1]*.png"]

    def test_what_cannot_be_fetched_says_why(self, store: Any, tmp_path: Path) -> None:
        store.pipe_file("clips/dog.mp4", b"12345")
        store.pipe_file("clips/bad/..\\x", b"1")
        with pytest.raises(InputError, match=r"there is nothing at s3://clips/cat\.mp4"):
            Remote("s3://clips/cat.mp4").fetch(tmp_path / "cat.mp4", MUCH)
        with pytest.raises(InputError, match="has 5 bytes, and scratch has room for 4"):
            Remote("s3://clips/dog.mp4").fetch(tmp_path / "dog.mp4", 4)
        with pytest.raises(InputError, match="no name for a file"):
            Remote("s3://clips/bad").fetch(tmp_path / "bad", MUCH)
        with pytest.raises(InputError, match="s3://nowhere/x"):
            Remote("s3://nowhere/x").fingerprint()

    def test_what_changed_has_another_fingerprint(self, store: Any) -> None:
        prints = set()
        for data in (b"1", b"2", b"33"):
            store.pipe_file("clips/frames/0.png", data)
            prints |= {Remote("s3://clips/frames/0.png").fingerprint(), Remote("s3://clips/frames").fingerprint()}
        assert len(prints) == 6

    def test_a_folder_is_sent_with_one_file_last(
        self, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("masks/0.png", "masks/9.png", "notes.txt", "summary.json"):
            store.pipe_file(f"clips/runs/dog/{name}", b"old")
        (tmp_path / "masks").mkdir()
        for name in ("masks/0.png", "masks/1.png", "summary.json"):
            (tmp_path / name).write_text("new")
        sent, put = list[str](), store.put_file
        monkeypatch.setattr(store, "put_file", lambda here, there: (sent.append(there), put(here, there)))
        remote = Remote("s3://clips/runs/dog")
        remote.send(tmp_path, ("masks", "summary.json"), last="summary.json")
        assert sent[-1] == "clips/runs/dog/summary.json"
        assert remote.names(deep=True) == ["masks/0.png", "masks/1.png", "notes.txt", "summary.json"]
        assert (remote.read("masks/0.png"), remote.read("notes.txt"), remote.read("x")) == (b"new", b"old", None)

    def test_what_cannot_be_sent_is_an_error_of_output(self, store: Any, tmp_path: Path) -> None:
        (tmp_path / "x").touch()
        with pytest.raises(OutputError, match="cannot write s3://nowhere/runs"):
            Remote("s3://nowhere/runs").send(tmp_path, last="x")
