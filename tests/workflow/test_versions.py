"""What a version holds: the same in every engine and storage, all of it, and as it was made.

A process that has loaded the runner is forked for each command, so that many cases cost little.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gradlab.base import files, folders
from gradlab.store import sealed, sealing, transfer, tree
from gradlab.store.datasets import Datasets, close
from gradlab.store.folder import Folder, SlowMount
from gradlab.store.location import Location

from .. import warm
from ..failing import Done, Forks, flip_a_bit, kept
from ..kit import KIT
from .conftest import HAS_BUBBLEWRAP, Project

ERRORS = ("EIO", "ESTALE", "ENOSPC", "ENOTCONN")
MODULES = (*warm.KIT, "gradlab.run.runner", "gradlab.inventory.datasets")
# For each storage and beginning; a run in a fork takes half a second. More of them: TRIED=300.
CALLS = FLIPS = int(os.environ.get("TRIED", "4"))
LEAVES = """
set -e
cd /outputs/made
mkdir -p a/empty b unreadable
echo x > a/file; chmod 640 a/file; touch -d 2001-02-03T04:05:06Z a/file
truncate -s 8M hole
cp /bin/true setuid; chmod 4711 setuid
echo own > unreadable/file; chmod 0 unreadable/file unreadable
ln a/file b/hard; ln -s ../a/file b/link
mkfifo b/pipe; mknod b/null c 1 3 2> /dev/null || true
echo half > .model.safetensors.1234.tmp
cp -a . /outputs/kept
"""
LOOKS = r"""
set -e
for name in made kept; do
  cd /inputs/$name
  find . -type d -printf "$name %p %m\n" | sort
  find . -type l -printf "$name %p -> %l\n" | sort
  find . -type f -printf "$name %p %m %n links %s bytes\n" | sort
  test "$(stat -c %Y a/file)" = 981173106 && echo time
  test "$(stat -c %b hole)" -lt 100 && echo sparse
done > /outputs/seen/list
"""
SEEN = """\
{0} . 755
{0} ./a 755
{0} ./a/empty 755
{0} ./b 755
{0} ./unreadable 755
{0} ./b/link -> ../a/file
{0} ./a/file 644 1 links 2 bytes
{0} ./b/hard 644 1 links 2 bytes
{0} ./hole 644 1 links 8388608 bytes
{0} ./setuid 755 1 links SIZE bytes
{0} ./unreadable/file 644 1 links 4 bytes
time
sparse
"""
MADE = "{type: dataset, with: {ref: made}}"


def workflow(*jobs: tuple[str, str, str]) -> str:
    """Give a workflow of jobs, each a name, what it reads and writes, and its script."""
    text = "jobs:\n"
    for name, ports, script in jobs:
        lines = "".join(f"          {line}\n" for line in script.strip().splitlines())
        text += f"  {name}:\n    {ports.strip()}\n    uses: script@v1\n    with:\n"
        text += f"      image: bash:5\n      script: |\n{lines}"
    return text


class Lab:
    """A project whose commands are run in forks."""

    def __init__(self, project: Project, forks: Forks, scratch: Path) -> None:
        self.project, self.forks, self.scratch = project, forks, scratch
        self.storage = project.storage
        self.engine, self.slow = "paths", "0"

    @property
    def env(self) -> dict[str, str]:
        return {
            "GRADLAB_STORAGE": str(self.storage),
            "GRADLAB_SCRATCH": str(self.scratch),
            "GRADLAB_STORAGE_SLOW": self.slow,
            "GRADLAB_MIRROR_MINUTES": "60",
        }

    def run(self, *arguments: str, at: int = 0, error: str = "EIO", count: bool = False) -> Done:
        under = [self.storage, self.scratch] if at or count else []
        return self.forks.run("gradlab", *arguments, env=self.env, under=under, at=at, error=error)

    def workflow(self, *options: str, **how: object) -> Done:
        return self.run("run", "train", "--engine", self.engine, *options, **how)  # type: ignore[arg-type]

    def clear(self) -> None:
        for folder in (self.storage, self.scratch):
            folders.discard(folder)

    def put(self, folder: Path) -> None:
        """Take a storage and a disk that were kept."""
        self.clear()
        shutil.copytree(folder, self.storage.parent, symlinks=True, dirs_exist_ok=True)

    def keep(self, folder: Path) -> None:
        for each in (self.storage, self.scratch):
            if each.exists():
                shutil.copytree(each, folder / each.name, symlinks=True)


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Forks:
    root = tmp_path_factory.mktemp("demo")
    (root / "pyproject.toml").write_text('[project]\nname = "demo"\n')
    return Forks(root, *MODULES)


@pytest.fixture
def lab(forks: Forks, tmp_path: Path) -> Iterator[Lab]:
    top = tmp_path / "kept"
    project = Project(forks.project, top / "storage", {})
    yield Lab(project, forks, top / "scratch")
    shutil.rmtree(forks.project / "files", ignore_errors=True)


ENGINES = ["paths"] + ["bubblewrap"] * HAS_BUBBLEWRAP
ENGINES += ["machine"] * (os.getuid() == 0 and not os.path.lexists("/inputs"))


@pytest.mark.parametrize("slow", ["0", "1"])
def test_what_a_job_leaves_arrives_alike_in_every_engine(lab: Lab, slow: str) -> None:
    outputs = f"outputs: {{made: {MADE}, kept: {{type: volume}}}}"
    inputs = "needs: [make]\n    inputs: {made: make.outputs.made, kept: make.outputs.kept}"
    seen = "\n    outputs: {seen: {type: dataset, with: {ref: seen}}}"
    lab.project.workflow(workflow(("make", outputs, LEAVES), ("look", inputs + seen, LOOKS)))
    size = os.stat("/bin/true").st_size
    for lab.engine in ENGINES:
        lab.clear()
        lab.slow = slow
        done = lab.workflow()
        assert done.code == 0, done.output
        for name in ("made", "kept"):
            assert f"/outputs/{name}/b/pipe is a pipe" in done.output
            assert f"/outputs/{name}/.model.safetensors.1234.tmp is not written" in done.output
        (version,) = lab.project.versions("seen")
        wanted = (SEEN.format("made") + SEEN.format("kept")).replace("SIZE", str(size))
        assert (version / "data/list").read_text() == wanted, (lab.engine, slow)
        assert lab.run("datasets", "verify").code == 0


def test_a_file_of_the_outside_is_not_shared_with_a_version(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("before")
    script = f"ln {tmp_path}/mine /outputs/made/theirs"
    lab.project.workflow(workflow(("make", f"outputs: {{made: {MADE}}}", script)))
    assert lab.workflow().code == 0
    (tmp_path / "mine").write_text("after")
    (version,) = lab.project.versions("made")
    assert (version / "data/theirs").read_text() == "before"
    assert lab.run("datasets", "verify").code == 0


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="a matter of Linux")
def test_rights_that_a_file_carries_do_not_become_part_of_a_version(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o6755)
    names = ["user.note"] + ["security.capability"] * (os.getuid() == 0)
    capability = bytes.fromhex("0100000280000000000000000000000000000000")
    try:
        for name in names:
            os.setxattr(tmp_path / "tool", name, capability)
    except OSError:
        pytest.skip("this file system has no extended attributes")
    sealing.seal(tmp_path)
    assert not set(os.listxattr(tmp_path / "tool")) & set(names)
    assert stat.S_IMODE((tmp_path / "tool").stat().st_mode) == 0o755


def test_a_folder_that_is_added_leaves_out_what_was_never_finished(lab: Lab) -> None:
    folder = lab.project.root / "files"
    (folder / "empty").mkdir(parents=True)
    (folder / "a").write_text("a")
    (folder / ".a.77.tmp").write_text("half")
    done = lab.run("datasets", "add", "made", str(folder))
    assert done.output.splitlines()[-1].endswith("1 file, 1 B"), done.output
    (version,) = lab.project.versions("made")
    assert {path.name for path in (version / "data").iterdir()} == {"a", "empty"}
    assert (folder / ".a.77.tmp").exists()


# What is damaged is named, and not used


def versions(lab: Lab, count: int = 2) -> list[Path]:
    for number in range(1, count + 1):
        folder = lab.project.root / "files"
        (folder / "sub").mkdir(parents=True, exist_ok=True)
        (folder / "sub/a").write_text(f"content {number}")
        (folder / "b").write_text("b" * 100)
        done = lab.run("datasets", "add", "made:tag", str(folder))
        assert done.code == 0, done.output
    return lab.project.versions("made")


READS = workflow(
    (
        "read",
        f"inputs: {{made: {MADE}}}\n    outputs: {{out: {{type: string}}}}",
        "cat /inputs/made/sub/a > /outputs/out",
    )
)


def flip(path: Path) -> None:
    flip_a_bit(path, random.Random(7))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "slow"),
    [
        *((flip, "0"), (flip, "1"), (cut, "0"), (cut, "1")),
        *(("tag", "0"), ("created", "0"), ("another's", "1")),
    ],
)
def test_a_damaged_manifest_of_the_newest_version_is_named_and_refused(
    lab: Lab, damage: Callable[[Path], None] | str, slow: str
) -> None:
    lab.slow = slow
    old, new = versions(lab)
    manifest = new / "manifest.json"
    if callable(damage):
        damage(manifest)
    elif damage == "another's":
        shutil.copy(old / "manifest.json", manifest)
    else:
        data = json.loads(manifest.read_text())
        manifest.write_text(manifest.read_text().replace(str(data[damage]), "x", 1))
    lab.project.workflow(READS)
    if damage is cut and slow == "1":  # was not uploaded whole, as far as can be known
        assert "was not uploaded whole: passed over" in lab.run("datasets", "show", "made").output
        return
    for command in (
        ("datasets", "show", "made"),
        ("datasets", "show", "made:tag"),
        ("datasets", "show", f"made:{new.name}"),
        ("datasets", "verify"),
        ("run", "train", "--engine", "paths"),
    ):
        done = lab.run(*command)
        assert done.code == 1 and "Traceback" not in done.output, done.output
        assert f"made:{new.name}" in done.output and "damaged" in done.output.lower(), command
    assert f"made:{new.name}  DAMAGED" in lab.run("datasets").output
    assert f"such as made:{old.name}" in lab.run("datasets", "show", "made").output
    assert lab.run("datasets", "show", f"made:{old.name}").code == 0
    lab.project.workflow(READS.replace("ref: made", f"ref: 'made:{old.name}'"))
    done = lab.workflow()
    assert done.code == 0 and "out=content 1" in done.output, done.output


@pytest.mark.parametrize("slow", ["0", "1"])
@pytest.mark.parametrize("engine", ENGINES[:2])
def test_data_with_a_changed_bit_is_named_and_never_read(lab: Lab, engine: str, slow: str) -> None:
    lab.engine, lab.slow = engine, slow
    (version,) = versions(lab, 1)
    lab.project.workflow(READS)
    for path in ("data/sub/a", "data/b"):
        whole = (version / path).read_bytes()
        flip(version / path)
        folders.discard(lab.scratch)
        done = lab.workflow()
        assert done.code == 1 and "Traceback" not in done.output
        assert "damaged" in done.output and path.removeprefix("data/") in done.output
        assert "content" not in done.output
        (version / path).write_bytes(whole)
    assert "out=content 1" in lab.workflow().output


def test_a_damaged_copy_on_this_machine_is_copied_again(lab: Lab) -> None:
    lab.slow = "1"
    (version,) = versions(lab, 1)
    (copy,) = lab.scratch.glob(f"*/datasets/made/{version.name}/data/sub/a")
    flip(copy)
    lab.project.workflow(READS)
    done = lab.workflow()
    assert done.code == 0 and "out=content 1" in done.output, done.output
    assert "is damaged (sub/a has changed): copied again" in done.output


def test_a_version_is_compared_once_however_many_jobs_read_it(lab: Lab) -> None:
    if "bubblewrap" not in ENGINES:
        pytest.skip("bubblewrap is not installed")
    lab.engine = "bubblewrap"
    (version,) = versions(lab, 1)
    read = f"inputs: {{made: {MADE}}}"
    jobs = [(f"job{i}", read, "cat /inputs/made/sub/a") for i in range(3)]
    lab.project.workflow(workflow(*jobs))
    done = lab.workflow(count=True)
    assert done.code == 0
    assert done.calls.count(f"open {version}/data/sub/a") == 1


def test_records_without_a_checksum_are_read(lab: Lab) -> None:
    (version,) = versions(lab, 1)
    manifest = version / "manifest.json"
    data = json.loads(manifest.read_text())
    for entry in data["files"].values():
        del entry["mtime"]
    del data["checksum"]
    manifest.write_text(json.dumps(data, indent=1))
    assert lab.run("datasets", "verify").code == 0
    lab.project.workflow(READS)
    assert "out=content 1" in lab.workflow().output


# The number of a version


def store(folder: Path, slow: bool = False) -> Datasets:
    if slow:
        return Datasets(Location(SlowMount(folder), folder / "work"))
    return Datasets(Location(Folder(folder), folder))


def box(store: Datasets, text: str, folder: Path) -> tuple[str, Path]:
    """Plan a version of a file that holds a text, and pack it."""
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text(text)
    version = store.plan("made", tree.scan(folder), "a test")
    place = store.box(version)
    transfer.copy(version.tree, folder, place / "data")
    close(version, place)
    return str(version), place


@pytest.mark.parametrize("slow", [False, True])
def test_latest_is_the_version_that_was_committed_last(tmp_path: Path, slow: bool) -> None:
    kept = store(tmp_path / "kept", slow)
    for turn in range(5):
        planned = [box(kept, f"{turn} {each}", tmp_path / "files") for each in "abc"]
        for number in (1, 2, 0):
            final = kept.commit(*planned[number])
            assert kept.commit(*planned[number]) == final, "a commit that is repeated is the same"
            newest = kept.find("made")
            assert str(newest) == final
            assert (kept.open(newest) / "file").read_text() == f"{turn} {'abc'[number]}"
    numbers = [version.id.partition("-")[0] for version in kept.versions("made")]
    assert numbers == [f"v{number}" for number in range(15, 0, -1)]


def test_a_commit_that_is_killed_as_it_gets_its_number_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = store(tmp_path / "kept")
    version, place = box(kept, "content", tmp_path / "files")
    kept.commit(*box(kept, "of another", tmp_path / "files"))  # it has the number that was planned

    def write_half(path: Path, data: bytes, synced: bool) -> None:
        path.write_bytes(data[: len(data) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "_write", write_half)
        kept.commit(version, place)
    final = kept.commit(version, place)
    assert version.startswith("made:v1-") and final.startswith("made:v2-")
    assert (kept.open(kept.find("made")) / "file").read_text() == "content"
    assert str(kept.find("made")) == final


COMMIT = """
import sys
from pathlib import Path
from gradlab.store.datasets import Datasets
from gradlab.store.folder import Folder
from gradlab.store.location import Location
top = Path(sys.argv[1])
store = Datasets(Location(Folder(top), top))
sys.stdin.readline()
print(store.commit(sys.argv[2], Path(sys.argv[3])))
"""


def test_commits_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    kept, final = store(tmp_path / "kept"), set[str]()
    planned = [box(kept, str(number), tmp_path / "files") for number in range(8)]
    others = [
        subprocess.Popen(
            [sys.executable, "-c", COMMIT, str(tmp_path / "kept"), version, str(place)],
            env=os.environ | {"PYTHONPATH": str(KIT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for version, place in planned[:3]
    ]
    threads = [
        threading.Thread(target=lambda each=each: final.add(kept.commit(*each)))  # type: ignore[misc]
        for each in planned[3:]
    ]
    for thread in threads:
        thread.start()
    final |= {other.communicate("\n")[0].strip() for other in others}
    for thread in threads:
        thread.join()
    numbers = sorted(int(re.findall(r":v(\d+)-", each)[0]) for each in final)
    assert numbers == list(range(1, 9))


def test_of_two_versions_with_one_number_the_later_is_the_newest(tmp_path: Path) -> None:
    for first in ("aaaaaa", "zzzzzz"):
        kept = store(tmp_path / first)
        last = "zzzzzz" if first == "aaaaaa" else "aaaaaa"
        for number, suffix in enumerate((first, last)):
            version, place = box(kept, suffix, tmp_path / "files")
            made = kept.local / "made" / kept.commit(version, place).partition(":")[2]
            text = (made / "manifest.json").read_text()
            data = sealed.from_bytes(text.encode()) | {"version": f"v1-{suffix}"}
            data["created"] = f"2026-01-01T00:00:0{number}.5Z"
            (made / "manifest.json").write_text(sealed.to_text(data))
            made.rename(made.with_name(f"v1-{suffix}"))
        assert kept.find("made").id == f"v1-{last}"
        assert kept.plan("made", tree.Tree(), "").id.startswith("v2-")


# Calls that fail once, and bits that are others


@pytest.mark.parametrize("work", [tree.scan, lambda folder: list(tree.walk(folder))])
def test_a_folder_that_can_not_be_listed_is_never_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[Path], object]
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_text("x")

    def fail(path: object = ".") -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return real[0](path)  # type: ignore[no-any-return, operator]

    real = [os.listdir]
    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(PermissionError):
        work(tmp_path)


PIPELINE = workflow(
    (
        "make",
        f"outputs: {{made: {MADE}, kept: {{type: volume}}, rate: {{type: string}}}}",
        "mkdir -p /outputs/made/sub /outputs/kept/sub; printf lr=0.001 > /outputs/rate\n"
        "for i in 1 2 3; do echo made $i > /outputs/made/sub/$i; done\n"
        "echo top > /outputs/made/top\n"
        "for i in 1 2; do echo kept $i > /outputs/kept/sub/$i; done",
    ),
    (
        "use",
        "needs: [make]\n    inputs: {made: make.outputs.made, kept: make.outputs.kept, "
        "rate: make.outputs.rate}\n"
        "    outputs: {model: {type: dataset, with: {ref: model}}}",
        "set -e; test -e MARK\n"
        "(cat /inputs/rate; find /inputs/made /inputs/kept -type f | sort | xargs cat) "
        "> /outputs/model/all",
    ),
    (
        "judge",
        "needs: [use]\n    inputs: {model: use.outputs.model}\n    outputs: {text: {type: string}}",
        "test -e MARK; cat /inputs/model/all > /outputs/text",
    ),
)
RESULT = "lr=0.001" + "kept 1\nkept 2\nmade 1\nmade 2\nmade 3\ntop\n"


@pytest.fixture
def pipeline(lab: Lab, tmp_path: Path) -> Callable[[str], Path]:
    """Give a storage in which the pipeline was cut off after its first job, or nothing yet."""
    mark = tmp_path / "mark"
    lab.project.workflow(PIPELINE.replace("MARK", str(mark)))

    def begin(slow: str) -> Path:
        lab.slow, begun = slow, tmp_path / f"begun{slow}"
        lab.clear()
        mark.unlink(missing_ok=True)
        assert lab.workflow().code == 1
        lab.keep(begun)
        mark.touch()
        return begun

    return begin


def is_right(lab: Lab, done: Done) -> None:
    """Check the end of a run, and every version there is."""
    assert "Traceback" not in done.output, done.output
    for manifest in (lab.storage / "datasets").glob("*/v*/manifest.json"):
        listed = json.loads(manifest.read_text())["files"]
        held = [path for path in (manifest.parent / "data").rglob("*") if path.is_file()]
        assert len(listed) == len(held) == {"made": 4, "model": 1}[manifest.parents[1].name]
    if done.code == 0:
        newest = lab.project.versions("model")[-1]
        assert (newest / "data/all").read_text() == RESULT, done.output
    else:
        assert done.code == 1 and len(done.output.splitlines()) > 1, done.output


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["0", "1"])
def test_a_call_that_fails_once_loses_no_run_and_no_file(
    lab: Lab, pipeline: Callable[[str], Path], slow: str, tmp_path: Path
) -> None:
    begun, empty = pipeline(slow), tmp_path / "empty"
    empty.mkdir()
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for start in (begun, empty):
        lab.put(start)
        calls = lab.workflow(count=True).calls
        assert len(calls) > 100
        for _ in range(CALLS):
            lab.put(start)
            at, error = chance.randrange(len(calls)) + 1, chance.choice(ERRORS)
            done = lab.workflow(at=at, error=error)
            what = f"seed {seed}: {error} at {at}: {done.failed}\n{done.output}"
            try:
                is_right(lab, done)
                if done.code:
                    done = lab.workflow()
                    is_right(lab, done)
                    assert done.code == 0
                assert len(lab.project.versions("model")) == 1
                assert len(lab.project.versions("made")) == 1
            except AssertionError as wrong:
                raise AssertionError(what) from wrong


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["0", "1"])
def test_a_changed_bit_in_what_is_kept_is_never_believed(
    lab: Lab, pipeline: Callable[[str], Path], slow: str
) -> None:
    begun = pipeline(slow)
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(FLIPS):
        lab.put(begun)
        files = [path for path in kept(lab.storage) if not {"drafts", "logs"} & {*path.parts}]
        path = chance.choice(files + [p for p in kept(lab.scratch) if "volumes" in p.parts])
        what = f"seed {seed}: {flip_a_bit(path, chance)}"
        if slow == "1" and chance.random() < 0.5:
            folders.discard(lab.scratch)  # another machine goes on
        done = lab.workflow()
        assert "Traceback" not in done.output, what + done.output
        if done.code == 0:
            newest = lab.project.versions("model")[-1]
            assert (newest / "data/all").read_text() == RESULT, what + done.output
        else:
            assert "damaged" in done.output, what + done.output
