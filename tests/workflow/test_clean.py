"""`gradlab clean`: what can go, what stays, and a kill at any moment."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from gradlab.inventory import asking
from gradlab.inventory.clean import clean_command
from gradlab.inventory.rests import ABANDONED

from ..services.bucket import NAME, Bucket
from . import places
from .conftest import Project, wait_for
from .places import CUT_OFF, KINDS, MAKE, MODEL, Place, killed_at
from .test_removed import KILLS, add

# What is made anew for each attempt at a job: of one that was killed it goes.
SCRAPS = tuple(f"drafts/other/wait/{name}/" for name in ("root", "inputs", "tmp"))
OLD = ABANDONED + 100  # seconds
LIKE_A_CHECKPOINT = "checkpoints/0000000001-0123456789abcdef.safetensors"
# What lies in a storage by hand: what is to go, and what is to stay, by its key and its age.
GOES = {
    "runs/a~/model.safetensors": 0,
    f"runs/a~/{LIKE_A_CHECKPOINT}": 0,
    "runs/a~2/model.safetensors": 0,
}
DRAFTS = {"drafts/train/make/outputs/made/file": 0, "drafts/train/gone/outputs/x/y": 0}
ONLY_OLD = {
    "datasets/data/v9-aaaaaa/data/half": 0,
    "runs/a/checkpoints/.x.12345.tmp": 0,
    "models/it/.mo1.json.77.tmp": 0,
    "workflows/train/logs/old.log": 0,
}
STAYS = {
    "runs/a/model.safetensors": 0,
    f"runs/a/{LIKE_A_CHECKPOINT}": 0,
    "drafts/other/wait/outputs/out/half": 0,
    "drafts/unknown/job/outputs/out/half": 0,
    "models/it/mine.json": 0,
}


def finished_and_cut_off(place: Place) -> None:
    """Let one workflow finish, and leave another that was cut off."""
    add(place, "data", "one")
    place.project.workflow(MAKE + MODEL)
    place.project.ok("run", "train", "--engine", "paths")
    place.project.workflow(CUT_OFF, "other")
    runner = place.project.start("run", "other", "--engine", "paths")
    wait_for(runner, "waits")
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()


def lay(place: Place, ages: bool = True) -> None:
    for key in (*GOES, *DRAFTS, *STAYS):
        place.write(key, key)
    for key in ONLY_OLD:
        place.write(key, key, OLD + 31 * 24 * 3600 if ages else 0)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, project: Project, bucket: Bucket) -> Place:
    return places.of(request.param, project, bucket)


def test_what_nobody_needs_goes_and_all_else_stays(place: Place, bucket: Bucket) -> None:
    finished_and_cut_off(place)
    made = place.files().keys()
    lay(place, ages=False)
    before = place.files()
    upload = begun_upload(place) if place.bucket else ""
    text = place.fails(2, "clean")
    assert all(key in place.files() for key in GOES), "nobody has said yes"
    assert ("an upload that never ended" in text) == bool(upload)
    late = place.kind == "slow"  # there the versions of the run may not be uploaded yet
    for key in ("runs/a~", "runs/a~2", "would go:", " in all, "):
        assert key in text, key
    assert ("drafts/train/gone" in text) != late
    for key in (*ONLY_OLD, "drafts/other/wait/outputs", "drafts/unknown"):
        assert key not in text, key
    place.ok("clean", "--yes")
    after = place.files()
    own = {key for key in made if not key.startswith(SCRAPS)}
    assert not after.keys() & GOES.keys() and {*STAYS, *ONLY_OLD, *own} <= after.keys()
    assert all(after[key] == before[key] for key in own)
    if upload:
        assert not bucket.client.list_multipart_uploads(Bucket=NAME).get("Uploads")
    else:
        grown_old(place)
        assert "a version that was never finished" in place.ok("clean", "--yes")
        after = place.files()
        assert not after.keys() & {*GOES, *ONLY_OLD, *DRAFTS} and STAYS.keys() <= after.keys()
    assert "Nothing in" in place.ok("clean")
    place.project.workflow(CUT_OFF.replace("sleep 60", "cat /outputs/out/half"), "other")
    if not upload:  # the same there, and slow
        place.project.ok("run", "other", "--engine", "paths")


def begun_upload(place: Place) -> str:
    """Begin an upload in parts and leave it at that."""
    assert place.bucket
    client, key = place.bucket.client, f"{place.prefix}runs/a/checkpoints/large"
    id = str(client.create_multipart_upload(Bucket=NAME, Key=key)["UploadId"])
    client.upload_part(Bucket=NAME, Key=key, UploadId=id, PartNumber=1, Body=b"x" * 1000)
    return id


def grown_old(place: Place) -> None:
    """Let time pass for all that was put there, and for what was made."""
    lay(place)
    for path in place.project.storage.glob("datasets/*/v*/manifest.json"):
        os.utime(path, (path.stat().st_mtime - OLD,) * 2)


@pytest.mark.parametrize("kind", ["folder", "slow"])
def test_killed_at_any_moment_it_loses_nothing_that_it_did_not_name(
    kind: str, project: Project, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, seed = places.of(kind, project, bucket), random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    finished_and_cut_off(place)
    monkeypatch.chdir(project.root)
    lay(place)
    grown_old(place)
    goes = {*GOES, *ONLY_OLD, *DRAFTS}
    kept = place.files().items()
    stays = {key: sha for key, sha in kept if key not in goes and not key.startswith(SCRAPS)}
    for number in (rng.randrange(1, 50) for _ in range(2 * KILLS)):
        grown_old(place)
        with place.opened():
            killed_at(number, lambda: clean_command(yes=True))
        assert stays.items() <= place.files().items(), number
        place.ok("clean", "--yes")
        after = place.files()
        assert stays.items() <= after.items(), number
        assert not after.keys() & goes and not [path for path in after if ".trash" in path], number


def test_of_a_run_under_way_all_stays(project: Project, bucket: Bucket) -> None:
    place = places.of("folder", project, bucket)
    project.workflow(
        CUT_OFF.replace("data: ", "").replace("    inputs: {made: ", "    env: {X: "), "x"
    )
    project.workflow(
        """
        jobs:
          wait:
            outputs: {out: {type: dataset, with: {ref: out}}}
            uses: script@v1
            with:
              image: bash:5
              script: |
                echo half > /outputs/out/half
                echo waits
                while [ ! -e "$GO" ]; do sleep 0.1; done
            env: {GO: "%s"}
    """
        % (project.root / "go")
    )
    runner = project.start("run", "train", "--engine", "paths")
    wait_for(runner, "waits")
    place.write("drafts/train/wait/aside/outputs/out/x", "1")
    place.write("drafts/train/other/aside/outputs/out/x", "1")
    assert "Nothing in" in place.ok("clean", "--yes")
    (project.root / "go").touch()
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 0, output
    assert "out:v1-" in place.ok("datasets")


def test_what_a_draft_takes_up_again_stays_and_what_is_only_aside_goes(
    project: Project, bucket: Bucket
) -> None:
    place = places.of("folder", project, bucket)
    script = CUT_OFF.replace("    inputs: {made: {type: dataset, with: {ref: made}}}\n", "")
    for text in ("one", "two"):
        project.workflow(script.replace("half >", f"{text} >"))
        runner = project.start("run", "train", "--engine", "paths")
        wait_for(runner, "waits")
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()
    aside = project.storage / "drafts/train/wait/aside"
    assert (aside / "outputs/out/half").read_text() == "one\n"
    checkpoint = aside / "outputs/out/runs/r" / LIKE_A_CHECKPOINT
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    place.run("clean", "--yes")
    assert checkpoint.exists(), "the job takes up this training"
    checkpoint.unlink()
    assert "a draft of 'wait' that was set aside" in place.ok("clean", "--yes")
    assert not aside.exists()
    assert (place.project.storage / "drafts/train/wait/outputs/out/half").read_text() == "two\n"


def test_two_do_not_remove_at_once(project: Project, bucket: Bucket, tmp_path: Path) -> None:
    place = places.of("folder", project, bucket)
    (version,) = add(place, "data", "one")
    with place.opened() as opened, asking.alone(opened):
        began = time.monotonic()
        assert "another process removes things" in project.fails(2, "clean", "--yes")
        assert "another process" in project.fails(2, "datasets", "remove", version, "--yes")
        assert time.monotonic() - began < 30
    assert "Nothing" in place.ok("clean")
