"""`gradlab datasets remove`: what goes, what stays, and a kill at any moment."""

from __future__ import annotations

import os
import pty
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from gradlab.inventory.removing import remove
from gradlab.store import sealed

from ..services.bucket import Bucket
from . import places
from .conftest import Project, wait_for
from .places import CUT_OFF, KINDS, MAKE, MODEL, Place, killed_at

KILLS = int(os.environ.get("KILLS", "4"))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, project: Project, bucket: Bucket) -> Place:
    return places.of(request.param, project, bucket)


@pytest.fixture
def here(project: Project, bucket: Bucket) -> Place:
    return places.of("folder", project, bucket)


def add(place: Place, name: str, *texts: str, files: int = 1) -> list[str]:
    """Add versions of a dataset, and give them."""
    found = []
    for text in texts:
        folder = place.project.root / "files"
        folder.mkdir(exist_ok=True)
        for number in range(files):
            (folder / f"file{number}").write_text(f"{text} {number}")
        found.append(place.ok("datasets", "add", name, str(folder)).split()[0])
    return found


def test_a_version_goes_once_it_is_confirmed_and_its_number_never_comes_again(
    place: Place,
) -> None:
    first, second = add(place, "data", "one", "two")
    before = place.files()
    text = place.fails(2, "datasets", "remove", second)
    assert f"{second} of" in text and "5 B" in text and "--yes" in text
    assert f"data:latest then is {first}" in text and place.files() == before
    assert "Removed 1 of 1, 5 B" in place.ok("datasets", "remove", second, "--yes")
    old = {path for path in before if second.partition(":")[2] not in path}
    assert old <= place.files().keys()
    assert len([path for path in place.files() if "/data/file" in path]) == 1
    assert not [*place.scratch.rglob(second.partition(":")[2])]
    assert place.ok("datasets", "show", "data").startswith(first)
    (third,) = add(place, "data", "three")
    assert third.startswith("data:v3-")
    place.ok("datasets", "remove", "data", "--yes")
    assert "No datasets" in place.ok("datasets")
    assert add(place, "data", "four")[0].startswith("data:v4-")


def test_what_a_run_under_way_or_cut_off_needs_stays(here: Place) -> None:
    project = here.project
    (data,) = add(here, "data", "one")
    project.workflow(MAKE)
    project.ok("run", "train", "--engine", "paths")
    project.workflow(CUT_OFF, "other")
    (made,) = (line.split()[0] for line in here.ok("datasets").splitlines() if "made:" in line)
    runner = project.start("run", "other", "--engine", "paths")
    wait_for(runner, "waits")
    text = here.fails(2, "datasets", "remove", made, "--yes")
    assert f"{made} stays: the run" in text and "of 'other' needs it" in text
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()
    assert "needs it, which has not finished" in here.fails(2, "datasets", "remove", "made")
    here.ok("datasets", "remove", data, "--yes")
    project.workflow(CUT_OFF.replace("sleep 60", ":"), "other")
    project.ok("run", "other", "--engine", "paths")
    here.ok("datasets", "remove", made, "--yes")


@pytest.mark.parametrize("noted", [True, False], ids=["", "not noted by earlier versions"])
def test_what_a_registered_model_was_made_from_goes_only_by_its_name(
    here: Place, noted: bool
) -> None:
    project = here.project
    (data,) = add(here, "data", "one")
    project.workflow(MAKE + MODEL)
    project.ok("run", "train", "--engine", "paths")
    (entry,) = (here.project.storage / "models/it").glob("*.json")
    if not noted:
        whole = sealed.load(entry)
        assert whole.pop("made_from")
        entry.write_text(sealed.to_text(whole))
    text = here.fails(2, "datasets", "remove", "made", "--yes")
    assert f"the registered model {entry.stem} was made from it" in text
    assert f"--model {entry.stem}" in text
    if noted:
        assert entry.stem in here.fails(2, "datasets", "remove", data, "--yes")
    assert "no registered model" in here.fails(2, "datasets", "remove", "made", "--model", "mo1")
    here.ok("datasets", "remove", "made", "--yes", "--model", entry.stem)
    assert not project.versions("made") and entry.exists()
    entry.write_text("{}}")
    assert "is damaged" in here.fails(1, "datasets", "remove", data, "--yes")
    assert len(project.versions("data")) == 1


def test_one_who_is_asked_may_say_no(here: Place) -> None:
    (data,) = add(here, "data", "one")
    own, its = pty.openpty()
    command = here.project.command("datasets", "remove", data)
    asked = subprocess.Popen(
        command, cwd=here.project.root, env=here.project.env, stdin=its, stdout=subprocess.PIPE
    )
    os.write(own, b"no\n")
    output, _ = asked.communicate(timeout=60)
    assert asked.returncode == 1 and b"Nothing was removed" in output
    assert "ok" in here.ok("datasets", "verify")


@pytest.mark.parametrize("kind", ["folder", "slow"])
def test_killed_at_any_moment_a_version_is_whole_or_none(
    kind: str, project: Project, bucket: Bucket
) -> None:
    place, seed = places.of(kind, project, bucket), random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    (kept,) = add(place, "data", "kept", files=3)
    stays = {path: sha for path, sha in place.files().items() if "/data/" in path}
    for number in [1, 2, *(rng.randrange(3, 14) for _ in range(KILLS))]:
        (version,) = add(place, "data", f"gone {number}", files=6)
        with place.opened() as opened:
            root = Path(project.root)
            killed_at(number, lambda v=version, o=opened, r=root: remove(o, r, v, set(), True))
        assert stays.items() <= place.files().items()
        listed = place.ok("datasets", "verify")
        assert "DAMAGED" not in listed, (number, listed)
        code, text = place.run("datasets", "remove", version, "--yes")
        assert code == 0 or "has no version" in text, text
        place.run("clean", "--yes")
        left = [path for path in place.files() if version.partition(":")[2] in path]
        left = [path for path in left if not path.endswith(".tmp")]  # which stays for a day
        assert left == [f"datasets/data/.removed/{version.partition(':')[2]}"], number
        assert stays.items() <= place.files().items()
    assert place.ok("datasets").startswith(kept)


def test_killed_while_it_removes_from_a_bucket_it_does_the_rest_when_given_again(
    project: Project, bucket: Bucket
) -> None:
    place, seed = places.of("bucket", project, bucket), random.randrange(1 << 30)
    print(f"seed {seed}")
    (version,) = add(place, "data", "gone", files=30)
    bucket.requests.clear()
    number = random.Random(seed).randrange(2, 25)
    removing = place.project.start("datasets", "remove", version, "--yes")
    while (
        sum(each.startswith("DELETE") and version[5:] in each for each in [*bucket.requests])
        < number
    ):
        assert removing.poll() is None, removing.communicate()
        time.sleep(0.001)
    os.killpg(removing.pid, signal.SIGKILL)
    removing.wait()
    assert "No datasets" in place.ok("datasets")
    place.run("datasets", "remove", version, "--yes")
    left = f"datasets/data/.removed/{version.partition(':')[2]}"
    assert [path for path in place.files() if "/v1-" in path] == [left]
    assert add(place, "data", "next")[0].startswith("data:v2-")
