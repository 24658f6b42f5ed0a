"""The stand-in of Google Drive does what it says: a usual disk, and each of its faults."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .cloud import Cloud
from .machines import missing
from .processes import until

HERE = Path(__file__).resolve().parent


class Mount:
    """A Drive that is mounted on this machine."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.cloud = cloud
        self.place, self.cache = folder / "drive", folder / "cache"
        self.top = self.place / "MyDrive"
        self.held = cloud.files / "MyDrive"

    def start(self) -> None:
        self.place.mkdir(exist_ok=True)
        program = [sys.executable, HERE / "drive.py", self.cloud.files, self.cache, self.place]
        self.process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
        until(lambda: self.top.is_dir())

    def flush(self) -> None:
        os.setxattr(self.place, "user.drive.flush", b"")

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.place], check=True)
        self.process.wait(timeout=10)


@pytest.fixture
def mount(cloud: Cloud, tmp_path: Path) -> Iterator[Mount]:
    if reason := missing():
        pytest.skip(reason)
    mount = Mount(cloud, tmp_path)
    mount.start()
    yield mount
    if f" {mount.place} " in Path("/proc/mounts").read_text():
        mount.unmount()


def error_of(action: Callable[[], object]) -> str:
    """Name the error that an action ends with, '' if with none."""
    try:
        action()
    except OSError as error:
        assert error.errno is not None
        return errno.errorcode[error.errno]
    return ""


def test_it_is_seen_as_the_real_one_is(mount: Mount) -> None:
    line = next(x for x in Path("/proc/mounts").read_text().splitlines() if str(mount.place) in x)
    assert line.split()[0] == "drive"
    assert line.split()[2] == "fuse.drive"
    assert os.listdir(mount.place) == ["MyDrive"]
    assert error_of((mount.place / "beside").mkdir) == "EPERM"


def test_without_faults_it_is_a_usual_disk(mount: Mount, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    order, succeeded = random.Random(1), 0
    for number in range(2_000):
        operation, a, b = order.choice(OPERATIONS), *order.choices(NAMES, k=2)
        size = order.randrange(10_000)
        results = [attempt(operation, top, a, b, size) for top in (plain, mount.top)]
        assert results[0] == results[1], (number, operation.__name__, a, b)
        succeeded += isinstance(results[0], list)
    assert succeeded > 300
    assert contents(mount.top) == contents(plain)
    mount.flush()
    assert contents(mount.held) == contents(plain)


NAMES = ["a", "b", "one", "one/a", "one/b", "one/two", "one/two/a", "ümläut 😀", "three", "three/a"]


def attempt(
    operation: Callable[[Path, Path, int], object], top: Path, a: str, b: str, size: int
) -> object:
    """Give what an operation gives, or the error that it ends with."""
    result: list[object] = []
    return error_of(lambda: result.append(operation(top / a, top / b, size))) or result


def write(a: Path, b: Path, size: int) -> object:
    return a.write_bytes(random.Random(size).randbytes(size))


def append(a: Path, b: Path, size: int) -> object:
    with a.open("ab") as file:
        file.write(b"x" * size)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def patch(a: Path, b: Path, size: int) -> object:
    with a.open("r+b") as file:
        file.seek(size)
        return file.write(b"patched")


def truncate(a: Path, b: Path, size: int) -> object:
    return os.truncate(a, size)


def read(a: Path, b: Path, size: int) -> object:
    return a.read_bytes()


def state(a: Path, b: Path, size: int) -> object:
    found = a.stat()
    return found.st_mode, found.st_size if a.is_file() else None


def set_time(a: Path, b: Path, size: int) -> object:
    if a.is_dir():
        return None  # each upload into it sets its time again
    os.utime(a, ns=(size, 10**9 * size + 7))
    return a.stat().st_mtime_ns


def set_mode(a: Path, b: Path, size: int) -> object:
    return a.chmod(0o600 + size % 8) or a.stat().st_mode


def rename(a: Path, b: Path, size: int) -> object:
    return os.rename(a, b)


def remove(a: Path, b: Path, size: int) -> object:
    return a.unlink()


def make_folder(a: Path, b: Path, size: int) -> object:
    return a.mkdir(0o750)


def remove_folder(a: Path, b: Path, size: int) -> object:
    return a.rmdir()


def entries(a: Path, b: Path, size: int) -> object:
    return sorted(os.listdir(a))


def read_after_removal(a: Path, b: Path, size: int) -> object:
    with a.open("r+b") as file:
        a.unlink()
        file.write(b"on")
        file.seek(0)
        return file.read()


OPERATIONS = [write, write, append, patch, truncate, read, state, set_time, set_mode, rename]
OPERATIONS += [rename, remove, make_folder, make_folder, remove_folder, entries, read_after_removal]


def contents(top: Path) -> dict[str, object]:
    return {
        str(path.relative_to(top)): (
            path.stat().st_mode,
            path.read_bytes(),
            path.stat().st_mtime_ns,
        )
        if path.is_file() and path.stat().st_mtime_ns % 10**9 == 7
        else (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in sorted(top.rglob("*"))
    }


def test_many_threads_do_not_disturb_each_other(mount: Mount) -> None:
    def work(number: int) -> None:
        for turn in range(20):
            path = mount.top / f"{number}-{turn}"
            path.write_bytes(b"%d" % number * 5_000)
            assert path.read_bytes() == b"%d" % number * 5_000
            path.rename(mount.top / f"done-{number}-{turn}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(os.listdir(mount.top)) == 160
    mount.flush()
    assert len(os.listdir(mount.held)) == 160


def test_a_file_is_uploaded_some_time_after_it_was_closed(mount: Mount, cloud: Cloud) -> None:
    cloud.faults(upload_seconds=0.3)
    file = (mount.top / "late").open("wb")
    file.write(b"text")
    file.flush()
    os.fsync(file.fileno())
    time.sleep(0.4)
    assert not (mount.held / "late").exists(), "it is still open"
    file.close()
    assert (mount.top / "late").read_bytes() == b"text"
    assert not (mount.held / "late").exists()
    assert cloud.waiting("late").read_bytes() == b"text"
    assert cloud.events("upload") == [{"event": "upload", "path": "/MyDrive/late", "size": 4}]


def test_some_files_may_never_be_uploaded(mount: Mount, cloud: Cloud) -> None:
    cloud.faults(stuck="*/data/*")
    (mount.top / "data").mkdir()
    (mount.top / "data/model").write_text("large")
    (mount.top / "manifest").write_text("small")
    cloud.waiting("manifest")
    assert not (cloud.files / "MyDrive/data/model").exists()
    assert (mount.top / "data/model").read_text() == "large"


def test_an_unmount_loses_what_was_not_uploaded(mount: Mount, cloud: Cloud) -> None:
    (mount.top / "kept").write_text("1")
    cloud.waiting("kept")
    cloud.faults(upload_seconds="never")
    (mount.top / "kept").write_text("2")
    (mount.top / "lost").write_text("2")
    mount.unmount()
    assert cloud.events("unmount")[0]["lost"] == ["/MyDrive/kept", "/MyDrive/lost"]
    mount.start()
    assert os.listdir(mount.top) == ["kept"]
    assert (mount.top / "kept").read_text() == "1"


def test_a_flush_uploads_everything(mount: Mount, cloud: Cloud) -> None:
    cloud.faults(upload_seconds="never")
    (mount.top / "file").write_text("1")
    mount.flush()
    assert (mount.held / "file").read_text() == "1"


def test_a_crash_leaves_a_mount_that_answers_nothing(mount: Mount, cloud: Cloud) -> None:
    cloud.faults(upload_seconds="never")
    (mount.top / "lost").write_text("1")
    file = (mount.top / "open").open("w")
    cloud.faults(crash=True)
    mount.process.wait(timeout=10)
    for action in (mount.top.stat, lambda: os.listdir(mount.top), (mount.top / "x").touch):
        assert error_of(action) == "ENOTCONN"
    file.write("never arrives")
    assert error_of(file.flush) in ("ENOTCONN", "ECONNABORTED")
    assert "fuse.drive" in Path("/proc/mounts").read_text()
    with pytest.raises(OSError):
        file.close()
    subprocess.run(["umount", "-l", mount.place], check=True)
    mount.start()
    assert os.listdir(mount.top) == []


def test_a_crash_can_wait_for_a_certain_write(mount: Mount, cloud: Cloud) -> None:
    cloud.faults(crash_at_write=3)
    (mount.top / "1").write_text("1")
    (mount.top / "2").write_text("1")
    assert error_of(lambda: (mount.top / "3").write_text("1")) in ("ENOTCONN", "ECONNABORTED")
    assert len(cloud.events("crash")) == 1


def test_errors_of_input_and_output_can_be_had_for_some_operations(
    mount: Mount, cloud: Cloud
) -> None:
    cloud.faults(eio=[{"path": "*/checkpoints/*", "operations": ["read", "write"], "count": 2}])
    (mount.top / "checkpoints").mkdir()
    (mount.top / "other").write_text("1")
    file_of = mount.top / "checkpoints" / "1"
    # Without a buffer, which would be written once more when the file is closed.
    with file_of.open("wb", buffering=0) as file:
        assert [error_of(lambda: file.write(b"1")) for _ in range(3)] == ["EIO", "EIO", ""]
    cloud.faults(eio=[{"until": time.time() + 0.3}])
    assert error_of(file_of.stat) == "EIO"
    until(lambda: error_of(file_of.stat) == "")


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_a_full_quota_ends_a_write(mount: Mount, cloud: Cloud, error: str) -> None:
    cloud.faults(quota=100_000, quota_error=error)
    (mount.top / "fits").write_bytes(bytes(90_000))
    assert error_of(lambda: (mount.top / "more").write_bytes(bytes(20_000))) == error
    assert os.statvfs(mount.top).f_bavail * os.statvfs(mount.top).f_bsize < 10_000


def test_removed_and_replaced_files_use_up_the_quota(mount: Mount, cloud: Cloud) -> None:
    cloud.faults(quota=100_000)
    for size in (40_000, 30_000):
        (mount.top / "file").write_bytes(bytes(size))
        mount.flush()
    assert error_of(lambda: (mount.top / "more").write_bytes(bytes(40_000))) == "ENOSPC"
    (mount.top / "file").unlink()
    assert error_of(lambda: (mount.top / "more").write_bytes(bytes(40_000))) == "ENOSPC"


def test_a_file_that_was_emptied_first_does_not_use_up_the_quota(
    mount: Mount, cloud: Cloud
) -> None:
    cloud.faults(quota=100_000)
    for _ in range(5):
        (mount.top / "file").write_bytes(bytes(60_000))
        mount.flush()
        os.truncate(mount.top / "file", 0)
        (mount.top / "file").unlink()
    assert list((cloud.folder / "trash").iterdir()) == []


def test_a_full_quota_can_show_at_the_upload_only(mount: Mount, cloud: Cloud) -> None:
    cloud.faults(quota=50_000, quota_at="upload")
    (mount.top / "big").write_bytes(bytes(60_000))
    assert error_of(mount.flush) == "EDQUOT"
    assert os.listdir(mount.held) == []
    assert (mount.top / "big").stat().st_size == 60_000


@pytest.mark.parametrize("error", ["EIO", "ENOSYS"])
def test_a_rename_can_fail(mount: Mount, cloud: Cloud, error: str) -> None:
    cloud.faults(rename=error)
    (mount.top / "a").write_text("1")
    assert error_of(lambda: (mount.top / "a").rename(mount.top / "b")) == error
    assert os.listdir(mount.top) == ["a"]


def test_a_renamed_folder_takes_along_what_is_to_be_uploaded(mount: Mount, cloud: Cloud) -> None:
    cloud.faults(upload_seconds="never")
    (mount.top / "old").mkdir()
    (mount.top / "old" / "file").write_text("1")
    (mount.top / "old").rename(mount.top / "new")
    cloud.faults()
    assert cloud.waiting("new/file").read_text() == "1"


def test_a_replaced_file_is_gone_before_the_new_one_is_there(mount: Mount, cloud: Cloud) -> None:
    (mount.top / "file").write_text("old")
    cloud.waiting("file")
    cloud.faults(upload_seconds="never")
    (mount.top / "new").write_text("new")
    (mount.top / "new").rename(mount.top / "file")
    assert (mount.top / "file").read_text() == "new"
    assert os.listdir(mount.held) == []


def test_files_that_were_appended_to_stay_empty_in_the_cloud(mount: Mount, cloud: Cloud) -> None:
    cloud.faults(append_stays_empty=True)
    for mode in ("a", "w"):
        with (mount.top / mode).open(mode) as file:
            file.write("text")
    mount.flush()
    assert (mount.top / "a").read_text() == "text"
    assert [(mount.held / mode).read_text() for mode in ("a", "w")] == ["", "text"]


def test_a_folder_of_too_many_entries_cannot_be_listed(mount: Mount, cloud: Cloud) -> None:
    cloud.faults(entries=3)
    for name in "abc":
        (mount.top / name).touch()
    assert len(os.listdir(mount.top)) == 3
    (mount.top / "d").touch()
    assert error_of(lambda: os.listdir(mount.top)) == "EIO"
    assert (mount.top / "d").exists()


def test_symbolic_links_can_be_refused(mount: Mount, cloud: Cloud) -> None:
    (mount.top / "link").symlink_to("target")
    assert os.readlink(mount.top / "link") == "target"
    cloud.faults(symlink="EPERM")
    assert error_of(lambda: (mount.top / "other").symlink_to("target")) == "EPERM"


def test_locks_can_be_refused_from_the_next_mount_on(mount: Mount, cloud: Cloud) -> None:
    with tempfile.TemporaryFile(dir=mount.top) as file:
        assert error_of(lambda: fcntl.flock(file, fcntl.LOCK_EX)) == ""
    mount.unmount()
    cloud.faults(locks="ENOSYS")
    mount.start()
    with (mount.top / "lock").open("w") as file:
        assert error_of(lambda: fcntl.flock(file, fcntl.LOCK_EX)) == "ENOSYS"
        assert error_of(lambda: fcntl.lockf(file, fcntl.LOCK_EX)) == "ENOSYS"
