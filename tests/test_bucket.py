"""A storage by URL: what goes wrong on the way to it, who may write, and what is said.

A real client over real HTTP to a server, with a wire between them that a test can damage. Where the
server has its part in what is promised, it is moto's and, in a slow test, a real one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from gradlab.base.errors import GradlabError
from gradlab.base.locks import Held
from gradlab.services import session, urls
from gradlab.store import clients, leftovers, objects, remote
from gradlab.store.datasets import Datasets, close
from gradlab.store.leases import Lease, Lost, fence
from gradlab.store.location import Location
from gradlab.store.objects import ObjectStore
from gradlab.store.refusals import StorageError
from gradlab.store.shared import Keyed
from gradlab.store.transfer import clone
from gradlab.store.tree import Tree

from .kit import KIT
from .services.bucket import NAME, Bucket, Fault


@pytest.fixture(autouse=True)
def environment(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients of this process find the bucket, and be tried again soon."""
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "WAITS", (0.05, 0.1, 0.2))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"s3://{NAME}{tmp_path}"


@pytest.fixture
def store(url: str) -> ObjectStore:
    return ObjectStore(url)


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.slow)])
def each_server(request: pytest.FixtureRequest) -> str:
    """Let a test be repeated with a real server."""
    return str(request.param)


# What passes

PASSING = {
    "500": Fault(status=500, code="InternalError", times=2),
    "503": Fault(status=503, code="SlowDown", times=2),
    "slow": Fault(seconds=0.5, times=2),
    "cut while it is sent": Fault(method="PUT", cut="request", times=2),
    "cut while it is answered": Fault(method="GET", cut="answer", times=2),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_tried_again(
    store: ObjectStore, bucket: Bucket, tmp_path: Path, kind: str
) -> None:
    data = os.urandom(300_000)
    (tmp_path / "file").write_bytes(data)
    asked: list[Callable[[], object]] = [
        lambda: store.write("a/written", data),
        lambda: store.put("a/put", tmp_path / "file"),
        lambda: store.read("a/written") == data,
        lambda: sorted(store.list("a")) == ["put", "written"],
        lambda: store.get("a/put", tmp_path / "got") and (tmp_path / "got").read_bytes() == data,
        lambda: store.size("a/put") == len(data),
    ]
    for ask in asked:
        fault = PASSING[kind]
        bucket.faults[:] = [Fault(**vars(fault))]
        assert ask() in (None, True) or isinstance(ask(), str)


@pytest.mark.slow
def test_a_part_that_is_cut_off_is_sent_again(
    store: ObjectStore, bucket: Bucket, tmp_path: Path
) -> None:
    with (tmp_path / "large").open("wb") as file:
        for _ in range(3 * clients.PART >> 20):
            file.write(os.urandom(1 << 20))
    bucket.faults.append(Fault(path="partNumber=2", cut="request", times=1))
    sha256 = store.put("large", tmp_path / "large")
    assert len([each for each in bucket.requests if "partNumber=" in each]) == 4
    bucket.faults[:] = [Fault(method="GET", path="/large", cut="answer", times=1)]
    assert store.get("large", tmp_path / "back") == sha256 == store.sha256("large")


@pytest.mark.slow  # for moto all uploads were begun in 2010
def test_parts_that_a_killed_upload_left_are_removed_after_a_day(
    store: ObjectStore, bucket: Bucket, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = url.removeprefix(f"s3://{NAME}/")
    for key in (f"{top}/runs/x/model", f"{top}/runs/xy/model"):
        bucket.client.create_multipart_upload(Bucket=NAME, Key=key)

    def left() -> list[str]:
        found = bucket.client.list_multipart_uploads(Bucket=NAME, Prefix=top)
        keys = [each["Key"] for each in found.get("Uploads", ())]
        return sorted(key.removeprefix(f"{top}/") for key in keys)

    store.sweep("runs/x")
    assert left() == ["runs/x/model", "runs/xy/model"], "it may be under way"
    monkeypatch.setattr(leftovers, "ABANDONED_AFTER", -60.0)
    store.sweep("runs/x")
    assert left() == ["runs/xy/model"]


def test_what_does_not_pass_ends_with_a_word_that_names_the_url(
    store: ObjectStore, bucket: Bucket
) -> None:
    bucket.faults.append(Fault(status=500, code="InternalError"))
    with pytest.raises(StorageError, match=rf"{store.url}/a does not answer as it should"):
        store.read("a")


# What is refused

REFUSED = {
    "AccessDenied": (403, "refuses the credentials that were found"),
    "ExpiredToken": (400, "refuses credentials that have expired"),
    "RequestTimeTooSkewed": (403, "refuses this machine's clock"),
    "QuotaExceeded": (507, "is full"),
    "NoSuchBucket": (404, "there is no such bucket"),
}


@pytest.mark.parametrize("code", REFUSED)
def test_what_is_refused_is_said_in_plain_words_and_never_taken_for_absent(
    store: ObjectStore, bucket: Bucket, tmp_path: Path, code: str
) -> None:
    status, says = REFUSED[code]
    (tmp_path / "file").write_bytes(b"1")
    # As S3 does, the answer to HEAD has no body that would say why.
    bucket.faults[:] = [Fault(status=status, code=code)]
    for ask in (
        lambda: store.list("a"),
        lambda: store.size("a/b"),
        lambda: store.read("a/b"),
        lambda: store.write("a/b", b"1"),
        lambda: store.put("a/b", tmp_path / "file"),
        lambda: store.age("a/b"),
        lambda: store.below("a"),
    ):
        bucket.requests.clear()
        with pytest.raises(OSError) as raised:
            ask()
        assert not isinstance(raised.value, FileNotFoundError)
        assert says in str(raised.value) and store.url in str(raised.value)
        assert len(bucket.requests) < 12, "what does not pass is not tried again"


def test_without_credentials_it_is_said_where_they_are_looked_for(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StorageError, match=r"needs credentials, and none were found.*AWS_ACCESS"):
        ObjectStore(url).list("a")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sftp://me:pa55word@host/x", r"sftp://\*\*\*@host/x, a URL with a password.*~/.ssh"),
        ("s3://KEY:pa55word@bucket/x", "a URL with a password"),
        ("https://host/x?X-Amz-Signature=abc", "a URL with a password"),
        ("https://host/x", "can't keep anything"),
        ("s3://", "names no bucket"),
        ("s3:/bucket/x", "a URL has two slashes: s3://bucket/x"),
    ],
)
def test_a_url_that_can_be_none_is_refused(
    text: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADLAB_STORAGE", text)
    with pytest.raises(GradlabError, match=f"(?s){says}") as raised:
        session.storage("demo")
    assert "pa55word" not in str(raised.value)


def test_a_kind_of_url_that_is_not_known_and_a_client_that_is_missing_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(GradlabError, match=r"(?s)s4:// is no kind of URL.*s3://"):
        ObjectStore("s4://bucket/x")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(GradlabError, match=r'needs a client.*pip install "gradlab\[s3\]"'):
        ObjectStore("s3://bucket/x")


# Who may write


@pytest.mark.usefixtures("each_server")
def test_an_answer_that_was_lost_is_not_taken_for_another_writer(
    store: ObjectStore, bucket: Bucket
) -> None:
    assert store.create("probe", b"x")  # it has learned that the server refuses a second write
    bucket.faults.append(Fault(method="PUT", path="/number", cut="answer", times=1))
    assert store.create("number", b"mine")
    assert not store.create("number", b"of another")


@pytest.mark.usefixtures("each_server")
@pytest.mark.parametrize("conditional", [True, False])
def test_of_many_that_take_a_number_at_once_each_gets_another(
    url: str, tmp_path: Path, conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not conditional:
        monkeypatch.setattr(objects, "EXCLUSIVE", ())
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_text("1")
    machines = [Datasets(Location(ObjectStore(url), tmp_path / f"m{n}")) for n in range(4)]

    def add(machine: Datasets) -> str:
        return machine.add("made", tmp_path / "data", "test").id

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(add, machines))
    numbers = sorted(id.partition("-")[0] for id in ids)
    assert len({*numbers}) == 4
    assert sorted(version.id for version in machines[0].versions("made")) == sorted(ids)
    assert machines[1].find("made").id == max(ids, key=lambda id: int(id[1:].partition("-")[0]))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLAB_LEASE_SECONDS", "4")


def keyed(url: str, machine: Path, key: str = "runs/default") -> Keyed:
    return Keyed(ObjectStore(url), machine, machine / "lock", key)


@pytest.mark.usefixtures("short")
def test_two_machines_do_not_work_on_the_same(url: str, tmp_path: Path) -> None:
    first, second = (keyed(url, tmp_path / name) for name in ("first", "second"))
    with first.lock() as lock:
        lock.take()
        assert second.is_held()
        with second.lock() as other, pytest.raises(Held, match=f"process {os.getpid()} on "):
            other.take()
        began = time.monotonic()
        with second.lock() as other, pytest.raises(Held):
            other.take_after("it may be at work")
        assert time.monotonic() - began < 8, "each renewal tells that it lives"
    # It was given up.
    assert not second.is_held()
    with second.lock() as other:
        other.take()


DIES = """
import sys, time
from pathlib import Path
from gradlab.store.objects import ObjectStore
from gradlab.store.shared import Keyed
from gradlab.store.transfer import clone
from gradlab.store.tree import Tree
machine = Path(sys.argv[2])
lock = Keyed(ObjectStore(sys.argv[1]), machine, machine / "lock", "runs/default").lock()
lock.take()
print("taken", flush=True)
time.sleep(60)
"""


@pytest.fixture
def died(url: str, tmp_path: Path, short: None) -> Path:
    """The folder of a machine on which a process was killed that had a lease."""
    command = [sys.executable, "-c", DIES, url, str(tmp_path / "first")]
    env = os.environ | {"PYTHONPATH": str(KIT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout and process.stdout.readline()
        process.kill()
    return tmp_path / "first"


def test_a_process_that_died_is_not_waited_for_on_its_own_machine(url: str, died: Path) -> None:
    with keyed(url, died).lock() as lock:
        lock.take()


@pytest.mark.usefixtures("each_server")
def test_another_machine_waits_for_the_end_of_its_lease(
    url: str, died: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = keyed(url, tmp_path / "second")
    assert second.is_held()
    with second.lock() as lock:
        lock.take_after("it may be at work")
        assert lock.lease and lock.lease.token == 2
    assert "its lease ends" in capsys.readouterr().err


@pytest.mark.usefixtures("each_server")
def test_a_clock_that_is_off_ends_no_lease(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keyed(url, tmp_path / "first").lock() as lock:
        lock.take()
        true = time.time
        monkeypatch.setattr(time, "time", lambda: true() + 3600)
        second = keyed(url, tmp_path / "second")
        assert second.is_held()
        assert second.backend.clock() == pytest.approx(-3600, abs=3)


@pytest.fixture
def taken_over(url: str, tmp_path: Path, short: None) -> Iterator[Lease]:
    """The lease of a process that was away for too long, which another has taken over."""
    first = Lease(ObjectStore(url), "runs/default", "first")
    first.take()
    first._end.set()  # it renews it no more
    second = Lease(ObjectStore(url), "runs/default", "second")
    while not second.is_free():
        time.sleep(0.1)
    second.take()
    assert second.token > first.token
    yield first
    second.release()


@pytest.mark.usefixtures("each_server")
def test_who_lost_a_lease_commits_nothing(
    url: str, taken_over: Lease, tmp_path: Path, bucket: Bucket
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_text("1")
    store = Datasets(Location(ObjectStore(url), tmp_path / "m"))
    with pytest.raises(Lost, match="another process has taken over"):
        commit(store, tmp_path / "data", taken_over.verify)
    assert store.names() == [] and not [k for k in bucket.keys(str(tmp_path)[1:]) if "manif" in k]


def test_a_manifest_carries_the_token_of_its_lease(url: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_text("1")
    backend = ObjectStore(url)
    lease = Lease(backend, "workflows/w/jobs/j", "machine")
    lease.take()
    store = Datasets(Location(backend, tmp_path / "m"))
    commit(store, tmp_path / "data", lambda: fence(backend, lease.key))
    assert store.find("made").token == lease.token == 1
    lease.release()
    assert fence(backend, lease.key) == 0, "what needs none has none"


def commit(store: Datasets, folder: Path, fenced: Callable[[], int]) -> str:
    """Commit a folder as a job does."""
    planned = store.plan("made", Tree(), "test")
    box = store.box(planned)
    close(replace(planned, tree=clone(folder, box / "data")), box)
    return store.commit(str(planned), box, fenced)


# What is moved


def test_no_file_is_fetched_that_is_here_already(url: str, tmp_path: Path, bucket: Bucket) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in "abc":
        (data / name).write_text(name * 1000)
    first = Datasets(Location(ObjectStore(url), tmp_path / "first"))
    first.add("made", data, "test")
    other = Datasets(Location(ObjectStore(url), tmp_path / "other"))
    assert (other.open(other.find("made")) / "a").read_text() == "a" * 1000
    (data / "c").write_text("new")
    first.add("made", data, "test")
    bucket.requests.clear()
    assert (other.open(other.find("made")) / "c").read_text() == "new"
    fetched = [each for each in bucket.requests if each.startswith("GET") and "/data/" in each]
    assert len(fetched) == 1 and fetched[0].endswith("/data/c")
    # And once it is here, nothing of it.
    bucket.requests.clear()
    other.open(other.find("made"))
    assert not [each for each in bucket.requests if "/data/" in each]


def test_many_small_files_go_at_once(url: str, tmp_path: Path, bucket: Bucket) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(40):
        (data / str(number)).write_text(str(number))
    bucket.faults.append(Fault(method="PUT", path="/data/", seconds=0.2))
    Datasets(Location(ObjectStore(url), tmp_path / "machine")).add("made", data, "test")
    assert bucket.most >= 8


@pytest.mark.usefixtures("each_server")
def test_what_is_damaged_in_the_bucket_is_named(url: str, tmp_path: Path, bucket: Bucket) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("good", "bad", "gone"):
        (data / name).write_text(name)
    store = Datasets(Location(ObjectStore(url), tmp_path / "machine"))
    version = store.add("made", data, "test")
    assert store.problems(version) == []
    key = f"datasets/made/{version.id}/data"
    store.backend.write(f"{key}/bad", b"BAD")
    store.backend.delete(f"{key}/gone")
    store.backend.write(f"{key}/more", b"")
    assert store.problems(version) == [
        "bad has changed", "gone is missing", "more is not in the manifest",
    ]  # fmt: skip


@pytest.mark.usefixtures("each_server")
def test_a_folder_that_was_being_moved_is_moved_to_its_end(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        store.write(f"runs/x/{name}", name.encode())

    class Killed(BaseException):
        pass

    def die(_: object, key: str) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(ObjectStore, "delete", die)
        store.move("runs/x", "runs/x~")
    ObjectStore(store.url).delete("runs/x/a")  # it had come so far
    ObjectStore(store.url).move("runs/x", "runs/x~")
    assert store.below("runs/x~") == {"a": 1, "b": 1, "c": 1} and store.below("runs/x") == {}


def test_variables_of_credentials_are_those_of_clients() -> None:
    named = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS")
    assert all(urls.VARIABLES.fullmatch(name) for name in named)
    assert not urls.VARIABLES.fullmatch("MY_AWS_KEY")
