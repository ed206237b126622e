from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vostrack.errors import InputError, OutputError, OutputExistsError
from vostrack.files import (
    LOCK_NAME,
    OutputRoot,
    PartialFile,
    atomic_path,
    lock_folder,
    make_folder,
    output_error,
    sha256,
    write_bytes,
    write_json,
    write_text,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits, signals or modes")
unprivileged = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_atomic_path_gives_a_hidden_part_file_beside_the_final_one(tmp_path: Path) -> None:
    final = tmp_path / "mask.png"
    with atomic_path(final) as partial:
        assert partial.parent == tmp_path
        assert re.fullmatch(r"\.vostrack-.+\.part", partial.name)
        partial.write_bytes(b"new")
        assert not final.exists()
    assert names(tmp_path) == {"mask.png"}
    assert final.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(1)])
def test_atomic_path_keeps_the_old_file_when_the_block_fails(tmp_path: Path, error: BaseException) -> None:
    final = tmp_path / "mask.png"
    final.write_bytes(b"old")
    partial = PartialFile(final)

    def fail() -> None:
        with partial as path:
            path.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names(tmp_path) == {"mask.png"}
    assert final.read_bytes() == b"old"


def test_every_step_that_fails_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "mask.png"
    final.write_bytes(b"old")
    for step in ("fsync", "replace"):
        for number in (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT):

            def fail(*_: object, code: int = number) -> None:
                raise OSError(code, os.strerror(code))

            with monkeypatch.context() as patch:
                patch.setattr(os, step, fail)
                with pytest.raises(OutputError, match=r"mask\.png"):
                    write_bytes(final, b"new")
            assert names(tmp_path) == {"mask.png"}
            assert final.read_bytes() == b"old"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            write_bytes(final, b"new")
    assert names(tmp_path) == {"mask.png"}


def test_data_are_on_the_disk_before_the_file_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append(f"sync {os.fstat(fd).st_size}"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("rename"), replace(a, b)))
    write_bytes(tmp_path / "a", b"12345")
    assert steps[:2] == ["sync 5", "rename"]


def test_replacing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    link = tmp_path / "mask.png"
    link.symlink_to(outside)
    write_bytes(link, b"new")
    assert outside.read_bytes() == b"mine"
    assert link.read_bytes() == b"new"
    assert not link.is_symlink()


@posix
def test_files_get_the_mode_that_the_user_asks_for(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_write_text_keeps_line_ends_and_writes_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "ä\r\nb\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa4\r\nb\n"


def test_write_json_is_stable_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": [1, 2.5], "a": "ä\udc80"})
    write_json(tmp_path / "b", {"a": "ä\udc80", "b": [1, 2.5]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert json.loads((tmp_path / "a").read_text()) == {"a": "ä\udc80", "b": [1, 2.5]}
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            write_json(tmp_path / "c", {"a": value})
    assert names(tmp_path) == {"a", "b"}


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("file/mask.png", "is a file, not a folder"),
        ("missing/mask.png", "does not exist"),
        ("folder", "a folder of this name is in the way"),
        ("x" * 300, "too long"),
    ],
)
def test_paths_that_cannot_be_written_are_explained_in_one_line(tmp_path: Path, name: str, cause: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=cause) as caught:
        write_bytes(tmp_path / name, b"data")
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    assert names(tmp_path) == {"file", "folder"}


@unprivileged
def test_folder_without_permission_is_explained(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="no permission"):
            write_bytes(tmp_path / "a", b"")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, ["disk is full", "at least 1,234 bytes needed", "bytes free"]),
        (errno.EDQUOT, ["quota", "at least 1,234 bytes needed"]),
        (errno.EROFS, ["read-only"]),
        (errno.EACCES, ["no permission"]),
        (errno.EFBIG, ["larger than"]),
        (errno.EIO, [os.strerror(errno.EIO), "choose another output folder"]),
    ],
)
def test_output_error_says_what_happened_and_what_to_do(tmp_path: Path, number: int, words: list[str]) -> None:
    error = output_error(OSError(number, os.strerror(number)), tmp_path / "a\nb", needed=1234)
    assert all(word in str(error) for word in [*words, r"a\nb", ";"])
    assert "\n" not in str(error)
    assert error.exit_code == 6


LIMITED = """
import resource, signal, sys
from pathlib import Path
from vostrack.errors import OutputError
from vostrack.files import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
write_bytes(Path(sys.argv[1], "small"), bytes(9_000))
try:
    write_bytes(Path(sys.argv[1], "large"), bytes(11_000))
except OutputError as error:
    print(error)
"""


@posix
def test_file_that_grows_over_the_limit_is_not_there_at_all(tmp_path: Path) -> None:
    done = run(LIMITED, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "larger than" in done.stdout
    assert names(tmp_path) == {"small"}


def test_full_disk_keeps_what_was_written_before(small_disk: Path) -> None:
    def fill() -> None:
        for index in range(10):
            write_bytes(small_disk / str(index), bytes([index]) * 50_000)

    with pytest.raises(OutputError, match=r"disk is full \(at least 50,000 bytes needed, [\d,]+ bytes free\)"):
        fill()
    assert names(small_disk) in ({"0", "1", "2", "3"}, {"0", "1", "2", "3", "4"})
    assert all(path.read_bytes() == bytes([int(path.name)]) * 50_000 for path in small_disk.iterdir())
    write_bytes(small_disk / "small", bytes(1_000))


def test_full_disk_names_the_size_that_a_growing_file_had_reached(small_disk: Path) -> None:
    partial = PartialFile(small_disk / "movie")
    with pytest.raises(OutputError, match=r"at least 2\d\d,\d\d\d bytes needed"), partial as path:
        path.write_bytes(bytes(500_000))
    assert names(small_disk) == set()


def test_read_only_disk_is_explained(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OutputError, match="read-only"):
        write_bytes(small_disk / "a", b"")
    with pytest.raises(OutputError, match="read-only"), lock_folder(small_disk):
        pass


def test_make_folder_accepts_a_folder_and_refuses_a_file(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="a file of this name is in the way"):
        make_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="not a folder"):
        make_folder(tmp_path / "file" / "a")


KILLED = """
import os, signal, sys
from pathlib import Path
from vostrack.files import atomic_path, lock_folder
with lock_folder(Path(sys.argv[1])), atomic_path(Path(sys.argv[1], "sub", "a")) as partial:
    partial.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_killed_process_leaves_one_part_that_is_removed_and_no_lock(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert run(KILLED, tmp_path).returncode == -signal.SIGKILL
    assert len(names(tmp_path / "sub")) == 1
    with lock_folder(tmp_path) as locked:
        assert locked
        assert names(tmp_path / "sub") == set()
    assert names(tmp_path) == {"sub"}


def test_a_lock_leaves_other_files_and_linked_and_locked_folders_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside, target_is_directory=True)
    kept = [inside / ".movie.part", inside / "vostrack-1.part", inside / ".vostrack-1", outside / ".vostrack-1.part"]
    (inside / "busy").mkdir()
    kept += [inside / "busy" / LOCK_NAME, inside / "busy" / ".vostrack-1.part"]
    for path in [*kept, inside / ".vostrack-1.part"]:
        path.write_bytes(b"")
    with lock_folder(inside):
        assert not (inside / ".vostrack-1.part").exists()
        assert all(path.exists() for path in kept)


LOCKING = """
import sys
from pathlib import Path
from vostrack.errors import OutputExistsError
from vostrack.files import lock_folder
try:
    with lock_folder(Path(sys.argv[1])):
        print("got it")
except OutputExistsError as error:
    print(error.exit_code, error)
"""


def test_second_process_is_refused_while_the_first_works(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    with lock_folder(folder) as locked:
        assert locked
        refused = run(LOCKING, folder).stdout
        assert refused.startswith("9 ")
        assert f"process {os.getpid()} on " in refused
        assert refused.count("\n") == 1
        assert (folder / LOCK_NAME).exists()
        with pytest.raises(OutputExistsError), lock_folder(folder):
            pass
        assert (folder / LOCK_NAME).exists()
    assert run(LOCKING, folder).stdout == "got it\n"
    assert names(folder) == set()


def test_lock_is_released_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), lock_folder(tmp_path):
        raise ValueError("stop")
    with lock_folder(tmp_path) as locked:
        assert locked


@posix
def test_lock_on_a_file_that_its_owner_deletes_meanwhile_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    name = tmp_path / LOCK_NAME
    flock = fcntl.flock
    deleted: list[int] = []

    def slow(descriptor: int, operation: int) -> None:
        if not deleted:
            deleted.append(descriptor)
            name.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    with lock_folder(tmp_path):
        assert deleted
        assert name.exists()
        assert run(LOCKING, tmp_path).stdout.startswith("9 ")


@posix
def test_file_system_without_locks_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_folder(tmp_path) as locked:
        assert not locked


@posix
def test_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / LOCK_NAME).symlink_to(outside)
    with pytest.raises(OutputError), lock_folder(folder):
        pass
    assert outside.read_bytes() == b"mine"


def test_sha256_equals_that_of_the_whole_content(tmp_path: Path) -> None:
    data = os.urandom(700_001)
    (tmp_path / "a").write_bytes(data)
    assert sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    with pytest.raises(InputError, match="missing"):
        sha256(tmp_path / "missing")


USES = {
    "append": lambda root, name: root.append(name, "text"),
    "new": lambda root, name: root.new(name),
    "read": lambda root, name: root.at(name),
    "remove": lambda root, name: root.remove(name),
    "write": lambda root, name: root.write(name, b"data"),
    "write_json": lambda root, name: root.write_json(name, {}),
}


@posix
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_below_an_output_folder_links_pipes_and_devices_are_refused(
    use: Callable[[OutputRoot, str], object], tmp_path: Path
) -> None:
    theirs, out = tmp_path / "theirs", tmp_path / "out"
    for folder in (theirs, out / "sub"):
        folder.mkdir(parents=True)
    (theirs / "file").write_bytes(b"theirs")
    (out / "folder").symlink_to(theirs)
    (out / "sub" / "file").symlink_to(theirs / "file")
    (out / "sub" / "dangling").symlink_to(theirs / "new")
    os.mkfifo(out / "pipe")
    for name in ("folder/file", "folder/new", "folder/a/b", "sub/file", "sub/dangling", "pipe", "pipe/file"):
        with pytest.raises(OutputError, match=r"is a link that may lead out|neither a file nor a folder"):
            use(OutputRoot(out), name)
    assert names(theirs) == {"file"}
    assert (theirs / "file").read_bytes() == b"theirs"


def test_below_an_output_folder_that_is_a_link_itself_all_works(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    root = OutputRoot(tmp_path / "out")
    root.write("a/b/c.txt", b"1")
    root.append("a/b/c.txt", "2")
    root.write_json("d.json", [])
    assert (tmp_path / "real" / "a" / "b" / "c.txt").read_bytes() == b"12"
    for _ in range(2):
        root.remove("d.json")
    assert names(tmp_path / "real") == {"a"}
    with pytest.raises(OutputError, match=r"too many parts|too long") as caught:
        root.write("a/" * 2000 + "b", b"")
    assert len(str(caught.value)) < 700
