"""What every backend promises, and the copier on each: states arrive whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradlab.base.errors import GradlabError
from gradlab.store.backend import Backend
from gradlab.store.copier import Copier
from gradlab.store.copies import UPLOADED
from gradlab.store.drafts import DraftCopies
from gradlab.store.folder import Folder, SlowMount
from gradlab.store.objects import ObjectStore
from gradlab.store.tree import File

from .kit import KIT
from .services import sshd, webdav
from .services.bucket import NAME, Bucket

FOLDERS = {"folder": Folder, "slow mount": SlowMount}
KEY = "drafts/workflow/job"
# Of eight in which a machine dies; all of them: MOMENTS=8
MOMENTS = int(os.environ.get("MOMENTS", "2"))


REAL = pytest.param("real bucket", marks=pytest.mark.slow)
REMOTE = {
    "bucket": "in_a_bucket",
    "real bucket": "in_a_bucket",
    "server": "on_a_server",
}


@pytest.fixture(params=[*FOLDERS, "bucket", REAL, "server"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param in REMOTE:
        found: Backend = request.getfixturevalue(REMOTE[request.param])
        return found
    return FOLDERS[request.param](tmp_path / "kept")


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return FOLDERS[request.param](tmp_path / "kept")


@pytest.fixture
def in_a_bucket(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    return ObjectStore(f"s3://{NAME}{tmp_path}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    if not sshd.is_here():
        pytest.skip("no server with SSH is installed (openssh-server)")
    with sshd.serve(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def on_a_server(server: sshd.Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    monkeypatch.setenv("HOME", str(server.home))
    return ObjectStore(server.url(tmp_path / "kept"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_is_written_is_listed_and_read(backend: Backend, tmp_path: Path) -> None:
    assert backend.list("a") == [] and backend.size("a/one") is None
    backend.write("a/one", b"1")
    backend.write("a/b/two", [b"2", memoryview(b"2")])
    (tmp_path / "source").write_bytes(b"three")
    assert backend.put("a/three", tmp_path / "source") == sha256(b"three")
    assert sorted(backend.list("a")) == ["b", "one", "three"]
    assert [backend.read(key) for key in ("a/one", "a/b/two", "a/three")] == [b"1", b"22", b"three"]
    assert backend.size("a/three") == 5 and 0 <= backend.age("a/three") < 60
    assert backend.size("a/b") is None, "a folder is no file"
    assert backend.below("a") == {"one": 1, "b/two": 2, "three": 5} and backend.below("c") == {}
    assert backend.sha256("a/b/two") == sha256(b"22")
    backend.bring("a", tmp_path / "brought")
    assert (tmp_path / "brought/b/two").read_bytes() == b"22"


def test_a_file_is_made_by_one_only(backend: Backend) -> None:
    assert backend.create("a/one", b"mine")
    assert not backend.create("a/one", b"of another")
    assert backend.create("a/one", b"mine"), "whose answer was lost"
    assert backend.read("a/one") == b"mine"


def test_a_folder_is_put_in_the_place_of_another(backend: Backend) -> None:
    backend.write("a/one", b"1")
    backend.write("a/b/two", b"2")
    backend.write("z/old", b"old")
    backend.move("a", "z")
    assert backend.below("z") == {"one": 1, "b/two": 1} and backend.below("a") == {}
    backend.move("a", "z")
    assert backend.below("z") == {"one": 1, "b/two": 1}, "there was nothing to be moved"


def test_another_content_has_another_stamp(backend: Backend) -> None:
    backend.write("a", b"1")
    first = backend.stamp("a")
    assert backend.stamp("a") == first
    backend.write("a", b"22")
    assert backend.stamp("a") != first
    with pytest.raises(FileNotFoundError):
        backend.stamp("b")


def test_what_is_there_is_replaced_removed_and_may_be_removed_again(backend: Backend) -> None:
    backend.write("a/one", b"1")
    backend.write("a/one", b"2")
    assert backend.read("a/one") == b"2"
    for _ in range(2):
        backend.delete("a/one")
        assert backend.list("a") == []
    for _ in range(2):
        backend.discard("a")
    with pytest.raises(FileNotFoundError):
        backend.read("a/one")
    with pytest.raises(FileNotFoundError):
        backend.age("a/one")


def test_a_server_with_webdav_promises_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wsgidav", reason="no server of WebDAV is installed (wsgidav)")
    with webdav.serve(tmp_path) as server:
        monkeypatch.setenv("NETRC", str(server.netrc))
        test_what_is_written_is_listed_and_read(ObjectStore(server.url("written")), tmp_path)
        test_a_file_is_made_by_one_only(ObjectStore(server.url("made")))
        test_a_folder_is_put_in_the_place_of_another(ObjectStore(server.url("moved")))
        replaced = ObjectStore(server.url("replaced"))
        test_what_is_there_is_replaced_removed_and_may_be_removed_again(replaced)
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
        with pytest.raises(OSError, match=r"needs credentials.*~/.netrc"):
            ObjectStore(server.url("refused")).write("a", b"1")


def test_what_cannot_be_read_is_not_taken_for_absent(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("a/one", b"1")

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "no access", "a/one")

    for name in ("listdir", "lstat"):
        monkeypatch.setattr(os, name, fail)
    for ask in (lambda: folder.list("a"), lambda: folder.size("a/one")):
        with pytest.raises(PermissionError):
            ask()


def test_a_file_is_fetched_as_it_was_or_named(backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    file = File(7, backend.put("a/one", tmp_path / "source"), executable=True)
    backend.fetch("a/one", str(tmp_path / "target"), file)
    assert (tmp_path / "target").read_bytes() == b"content"
    assert os.access(tmp_path / "target", os.X_OK)
    backend.write("a/one", b"CONTENT")
    with pytest.raises(GradlabError, match="damaged or was changed"):
        backend.fetch("a/one", str(tmp_path / "target"), file)
    assert not (tmp_path / "target").exists()
    backend.delete("a/one")
    with pytest.raises(GradlabError, match="is missing"):
        backend.fetch("a/one", str(tmp_path / "target"), file)


def test_a_write_that_is_cut_off_leaves_the_old_or_is_known_for_what_it_is(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("a/one", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write("a/one", b"new")
    assert not folder.rename_is_atomic or folder.read("a/one") == b"old"
    assert [name for name in folder.list("a") if name != "one"] == []


def test_what_reads_back_otherwise_was_not_written(tmp_path: Path) -> None:
    class Forgetful(SlowMount):
        def read(self, key: str) -> bytes:
            return super().read(key)[:-1]

    with pytest.raises(OSError, match="reads back otherwise"):
        Forgetful(tmp_path).write("a/one", b"content")


# The copier


class Draft:
    """A job's outputs on a disk of its own, and their copies on a backend."""

    def __init__(self, folder: Path, backend: Backend) -> None:
        self.folder, self.backend = folder / "outputs", backend
        self.folder.mkdir(parents=True)
        self.copies = DraftCopies(self.folder, backend, KEY, "run")

    def copier(self) -> Copier:
        copier = self.copies.copier(minutes=60)
        assert copier
        return copier

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def brought_back(self, place: Path) -> dict[str, str]:
        other = Draft(place, self.backend)
        other.copies.restore(None, None)
        return {path.name: path.read_text() for path in sorted(other.folder.iterdir())}


@pytest.fixture
def draft(backend: Backend, tmp_path: Path) -> Draft:
    return Draft(tmp_path / "machine", backend)


def test_another_machine_finds_the_newest_state_that_arrived(draft: Draft, tmp_path: Path) -> None:
    copier = draft.copier()
    for number in range(5):
        draft.write(log=f"state {number}", same="as ever")
        assert copier.sync()
    assert draft.brought_back(tmp_path / "b") == {"log": "state 4", "same": "as ever"}
    # The list of the newest was uploaded, and a file of it was not.
    newest = draft.copies.entries()[0]
    for part in draft.copies.parts_of(newest) - draft.copies.parts_of(draft.copies.entries()[1]):
        draft.backend.delete(part)
    assert draft.brought_back(tmp_path / "c") == {"log": "state 3", "same": "as ever"}


def test_old_states_go_and_what_the_others_need_stays(draft: Draft) -> None:
    copier = draft.copier()
    for number in range(12):
        draft.write(log=f"state {number}", same="as ever")
        assert copier.sync()
        for path in (draft.backend.folder / KEY).rglob("*") if draft.backend.folder else ():
            os.utime(path, (time.time() - (12 - number) * UPLOADED,) * 2)
    assert len(draft.copies.entries()) == 2
    needed = set().union(*map(draft.copies.parts_of, draft.copies.entries()))
    assert {key for key in draft.copies.everything() if "/files/" in key} == needed


def test_a_full_backend_gives_up_all_but_the_newest_and_the_oldest(draft: Draft) -> None:
    copier, room = draft.copier(), [3]

    class Full(type(draft.backend)):  # type: ignore[misc]
        def put(self, key: str, source: Path) -> str:
            if not room[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            room[0] -= 1
            return str(super().put(key, source))

        def delete(self, key: str) -> None:
            super().delete(key)
            room[0] += "/files/" in key

    draft.backend.__class__ = Full
    for number in range(6):
        draft.write(log=f"state {number}")
        assert copier.sync(), number
    kept = [draft.backend.read(entry) for entry in draft.copies.entries()]
    assert sha256(b"state 5").encode() in kept[0]
    # Where nothing is uploaded later, the newest and the one before it will do.
    oldest = b"state 0" if draft.backend.writes_arrive_later else b"state 4"
    assert sha256(oldest).encode() in kept[-1]


def test_nothing_is_written_below_a_mount_that_is_gone(
    folder: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draft = Draft(tmp_path / "machine", folder)
    copier = draft.copier()
    draft.write(log="state 0")
    monkeypatch.setattr("gradlab.store.copier.TRIES", (0.0,))
    monkeypatch.setattr("gradlab.services.mounts.filesystem", lambda _: "another")
    assert not copier.sync()
    assert "is no longer mounted" in capsys.readouterr().err
    assert not folder.top.exists()


def test_a_copier_says_what_is_tried_again_and_of_its_last_copy_that_it_is_not(
    draft: Draft, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(final: bool) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("gradlab.store.copier.TRIES", (0.0,))
    monkeypatch.setattr(draft.copies, "copy", fail)
    copier = draft.copier()
    assert not copier.sync()
    assert "Input/output error. It is tried again." in capsys.readouterr().err
    assert not copier.flush()
    said = capsys.readouterr().err
    assert "Input/output error.\n" in said and "tried again" not in said


KILLED = """
import sys
from pathlib import Path
from gradlab.store import folder, objects
from gradlab.store.drafts import DraftCopies
outputs = Path(sys.argv[2]) / "outputs"
outputs.mkdir(parents=True)
kind, place = sys.argv[1], sys.argv[3]
backend = objects.ObjectStore(place) if "://" in place else getattr(folder, kind)(Path(place))
copier = DraftCopies(outputs, backend, "drafts/workflow/job", "run").copier(60)
number = 0
while True:
    for name in "abc":
        (outputs / name).write_text(f"state {number} " + "x" * 100_000)
    assert copier.sync()
    number += 1
    print(number, flush=True)
"""


@pytest.mark.parametrize("moment", range(0, 8, 8 // MOMENTS))
def test_a_machine_that_dies_at_any_moment_leaves_a_whole_state(
    backend: Backend, tmp_path: Path, moment: int
) -> None:
    kind = type(backend).__name__
    arguments = [kind, str(tmp_path / "dies"), str(backend)]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(KIT)},
    ) as process:
        assert process.stdout
        for _ in range(2):
            process.stdout.readline()
        time.sleep(moment * 0.003)
        process.send_signal(signal.SIGKILL)
        done = 2 + process.stdout.read().count(b"\n")
    found = Draft(tmp_path / "next", backend).brought_back(tmp_path / "other")
    states = {text.split()[1] for text in found.values()}
    assert set(found) == set("abc") and len(states) == 1
    assert int(states.pop()) >= done - 1


def test_a_server_that_is_not_known_is_not_spoken_to(
    server: sshd.Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519").write_bytes((server.home / ".ssh/id_ed25519").read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(GradlabError, match=r"is not in ~/.ssh/known_hosts"):
        ObjectStore(server.url(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "empty"))
    with pytest.raises(GradlabError, match="refuses the credentials"):
        ObjectStore(server.url(tmp_path))
