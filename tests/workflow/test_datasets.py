"""Datasets: versioned, immutable, whole or not there."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from .conftest import Project


def folder(project: Project, **files: str) -> Path:
    top = project.root / "files"
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    return top


def test_a_folder_becomes_a_version_and_the_next_one_another(project: Project) -> None:
    first = project.ok("datasets", "add", "digits", str(folder(project, a="one")))
    second = project.ok("datasets", "add", "digits", str(folder(project, a="two")))
    assert re.match(r"digits:v1-\w{6}  1 file, 3 B", first)
    assert second.startswith("digits:v2-")
    old, new = project.versions("digits")
    assert (old / "data" / "a").read_text() == "one"
    assert (new / "data" / "a").read_text() == "two"
    assert [line.split()[0] for line in project.ok("datasets").splitlines()] == [
        f"digits:{new.name}",
        f"digits:{old.name}",
    ]


def test_a_reference_means_the_newest_version_a_version_or_a_tag(project: Project) -> None:
    project.ok("datasets", "add", "digits:clean", str(folder(project, a="one")))
    project.ok("datasets", "add", "digits", str(folder(project, a="two")))
    old, new = (version.name for version in project.versions("digits"))
    for reference, version in {
        "digits": new,
        "digits:latest": new,
        "digits:clean": old,
        f"digits:{old}": old,
    }.items():
        assert project.ok("datasets", "show", reference).startswith(f"digits:{version}"), reference


def test_show_lists_each_file_with_its_hash_and_size(project: Project) -> None:
    project.ok("datasets", "add", "team/digits", str(folder(project, a="one")))
    text = project.ok("datasets", "show", "team/digits")
    assert re.search(r"  7692c3ad3540 +3  a", text)
    assert "gradlab datasets add" in text


def test_modes_and_links_within_the_folder_are_kept(project: Project) -> None:
    top = folder(project, **{"bin/tool": "#!/bin/sh\n"})
    (top / "bin" / "tool").chmod(0o755)
    (top / "newest").symlink_to("bin/tool")
    project.ok("datasets", "add", "tools", str(top))
    (version,) = project.versions("tools")
    assert (version / "data" / "bin" / "tool").stat().st_mode & 0o111
    assert (version / "data" / "newest").readlink() == Path("bin/tool")
    assert "ok" in project.ok("datasets", "verify", "tools")


def test_verify_names_each_file_that_is_damaged_missing_or_foreign(project: Project) -> None:
    project.ok("datasets", "add", "digits", str(folder(project, a="one", b="two", c="three")))
    assert "ok" in project.ok("datasets", "verify")
    (version,) = project.versions("digits")
    (version / "data" / "a").write_text("0ne")
    (version / "data" / "b").unlink()
    (version / "data" / "d").write_text("new")
    text = project.fails(1, "datasets", "verify")
    assert "DAMAGED" in text
    assert [line.strip() for line in text.splitlines()[1:]] == [
        "a has changed",
        "b is missing",
        "d is not in the manifest",
    ]


def test_a_folder_without_a_manifest_is_no_version(project: Project) -> None:
    project.ok("datasets", "add", "digits", str(folder(project, a="one")))
    (version,) = project.versions("digits")
    (version.with_name("v2-aaaaaa") / "data").mkdir(parents=True)
    assert project.ok("datasets").count("digits:") == 1
    assert project.ok("datasets", "show", "digits").startswith(f"digits:{version.name}")


def test_what_an_interrupted_copy_left_behind_goes_after_a_day(project: Project) -> None:
    project.ok("datasets", "add", "digits", str(folder(project, a="one")))
    (version,) = project.versions("digits")
    old, new = version.with_name("v2-aaaaaa"), version.with_name(".v2-bbbbbb")
    for half, age in ((old, 2 * 24 * 3600), (new, 60)):
        (half / "data").mkdir(parents=True)
        os.utime(half, (time.time() - age,) * 2)
    project.ok("datasets", "add", "digits", str(folder(project, a="two")))
    assert new.exists() and not old.exists()


def test_a_manifest_that_leads_out_of_its_folder_is_not_believed(project: Project) -> None:
    project.ok("datasets", "add", "digits", str(folder(project, a="one")))
    (version,) = project.versions("digits")
    data = json.loads((version / "manifest.json").read_text())
    data["files"] = {"../../../escaped": data["files"]["a"]}
    del data["checksum"]
    (version / "manifest.json").write_text(json.dumps(data))
    assert "leads out of the folder" in project.fails(1, "datasets", "show", "digits")


def test_a_version_is_never_written_again(project: Project) -> None:
    project.ok("datasets", "add", "digits", str(folder(project, a="one")))
    (version,) = project.versions("digits")
    text = project.fails(2, "datasets", "add", f"digits:{version.name}", "files")
    assert "versions don't change: write to digits" in text


def test_a_link_that_leads_out_is_refused_by_name(project: Project) -> None:
    top = folder(project, a="one")
    (top / "sub").mkdir()
    for target in ("/etc/passwd", "../../../secret", "here/../../../secret"):
        (top / "sub" / "here").symlink_to(".") if target.startswith("here") else None
        (top / "sub" / "key").symlink_to(target)
        text = project.fails(2, "datasets", "add", "digits", str(top))
        assert f"sub/key is a symbolic link to {target}" in text
        (top / "sub" / "key").unlink()
    assert not project.versions("digits")


def test_mistakes_are_named_with_the_way_out(project: Project) -> None:
    assert "No datasets" in project.ok("datasets")
    assert "gradlab datasets add digits FOLDER" in project.fails(2, "datasets", "show", "digits")
    assert "can't be a reference to a dataset" in project.fails(2, "datasets", "show", "../digits")
    assert "which dataset?" in project.fails(2, "datasets", "show")
    assert "which folder?" in project.fails(2, "datasets", "add", "digits")
    assert "is not a folder" in project.fails(2, "datasets", "add", "digits", "/nowhere")
    (project.root / "empty").mkdir()
    assert "has no files" in project.fails(2, "datasets", "add", "digits", "empty")


@pytest.mark.parametrize("above", [".", ".."])
def test_the_storage_is_not_added_to_itself(project: Project, above: str) -> None:
    (project.root / "data.txt").write_text("1")
    text = project.fails(2, "datasets", "add", "all", above, GRADLAB_STORAGE="storage")
    assert (
        "holds the storage itself" in text and not (project.root / "storage" / "datasets").exists()
    )


def test_on_slow_storage_a_version_is_copied_whole_and_checked(project: Project) -> None:
    slow = {"GRADLAB_STORAGE_SLOW": "1", "GRADLAB_SCRATCH": str(project.root / "scratch")}
    top = folder(project, **{"bin/tool": "#!/bin/sh\n"})
    (top / "bin" / "tool").chmod(0o755)
    (top / "newest").symlink_to("bin/tool")
    project.ok("datasets", "add", "tools", str(top), **slow)
    (version,) = project.versions("tools")
    assert not (version / "data" / "newest").is_symlink()
    assert "ok" in project.ok("datasets", "verify", "tools", **slow)
    assert "newest -> bin/tool" in project.ok("datasets", "show", "tools", **slow)
    (version / "data" / "bin" / "tool").write_text("#!/bin/false\n")
    assert "bin/tool has changed" in project.fails(1, "datasets", "verify", "tools", **slow)
