"""Workflows and scripts that do what they shouldn't: a clear error or a safe result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Project

MADE = "{made: {type: dataset, with: {ref: made}}}"
TEXT = "{text: {type: string}}"


def job(script: str, outputs: str = "{}") -> str:
    return json.dumps(
        {
            "jobs": {
                "job": {
                    "outputs": OUTPUTS[outputs],
                    "uses": "script@v1",
                    "with": {"image": "bash:5", "script": script},
                }
            }
        }
    )


OUTPUTS: dict[str, dict[str, object]] = {
    "{}": {},
    MADE: {"made": {"type": "dataset", "with": {"ref": "made"}}},
    TEXT: {"text": {"type": "string"}},
    "volume": {"kept": {"type": "volume"}},
}


@pytest.mark.parametrize(
    ("outputs", "script", "message"),
    [
        (MADE, "true", "output 'made' (dataset): nothing was written to /outputs/made"),
        (MADE, "mkdir -p /outputs/made/empty", "nothing was written to /outputs/made"),
        (MADE, "mkfifo /outputs/made/pipe", "nothing was written to /outputs/made"),
        (
            MADE,
            "ln -s /etc/passwd /outputs/made/key",
            "key is a symbolic link to /etc/passwd, which leads out of its folder",
        ),
        (MADE, "ln -s ../../../.. /outputs/made/up", "up is a symbolic link to ../../../.."),
        (
            MADE,
            "cd /outputs/made; echo x > file; ln -s . here; ln -s here/../../.. up",
            "up is a symbolic link to here/../../..",
        ),
        (TEXT, "true", "output 'text' (string): the file /outputs/text was not written"),
        (TEXT, "ln -s /etc/passwd /outputs/text", "/outputs/text is not a file"),
        (TEXT, "mkfifo /outputs/text", "/outputs/text is not a file"),
        (TEXT, "cd /outputs; mkdir text", "/outputs/text is not a file"),
        (TEXT, r"printf '\xff' > /outputs/text", "/outputs/text is not text in UTF-8"),
        (TEXT, "head -c 70000 /dev/zero > /outputs/text", "/outputs/text is larger than 64 KiB"),
        ("volume", "ln -s /etc /outputs/kept/etc", "etc is a symbolic link to /etc"),
    ],
)
@pytest.mark.parametrize("engine", ["auto", "paths"])
def test_an_output_that_is_not_sound_fails_the_job(
    project: Project, engine: str, outputs: str, script: str, message: str
) -> None:
    project.workflow(job(script, outputs))
    assert message in project.fails(1, "run", "train", "--engine", engine)
    assert not project.versions("made")


def test_an_output_that_became_a_link_is_not_followed(project: Project, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("private")
    project.workflow(job(f"cd /outputs && rmdir made && ln -s {tmp_path}/private made", MADE))
    text = project.fails(1, "run", "train", "--engine", "paths")
    assert "/outputs/made is no longer a folder" in text
    project.workflow(job("echo good > /outputs/made/key", MADE))
    project.ok("run", "train", "--engine", "paths")
    assert (project.versions("made")[0] / "data" / "key").read_text() == "good\n"
    assert (tmp_path / "private" / "key").read_text() == "private"


def test_what_no_output_declares_is_named_and_not_kept(project: Project) -> None:
    project.workflow(job("cd /outputs; echo x > made/file; echo y > more", MADE))
    text = project.ok("run", "train")
    assert "warning: /outputs/more is not kept: the job declares no such output" in text
    assert not list(project.storage.rglob("more"))


def test_an_empty_volume_is_a_warning(project: Project) -> None:
    project.workflow(job("true", "volume"))
    assert "warning: the volume /outputs/kept is empty" in project.ok("run", "train")


def test_folders_that_a_job_made_read_only_are_cleared_away(project: Project) -> None:
    project.workflow(job("cd /outputs/made; mkdir a; echo x > a/b; chmod 500 a; exit 1", MADE))
    project.fails(1, "run", "train")
    project.fails(1, "run", "train", "--fresh")
    assert "x" not in str(project.versions("made"))


@pytest.mark.parametrize("name", ["../../escaped", "a/b/c", "..", ".hidden", "x\n", ""])
def test_a_name_that_leads_elsewhere_is_refused(project: Project, name: str) -> None:
    for part in ("jobs", "outputs", "inputs", "ref"):
        spec = json.loads(job("echo x > /outputs/made/file", MADE))
        the_job = spec["jobs"]["job"]
        if part == "jobs":
            spec["jobs"] = {name: the_job}
        elif part == "outputs":
            the_job["outputs"] = {name: the_job["outputs"]["made"]}
        elif part == "inputs":
            the_job["inputs"] = {name: {"type": "string", "with": {"value": "x"}}}
        else:
            the_job["outputs"]["made"]["with"]["ref"] = name
        project.workflow(json.dumps(spec))
        done = project.run("run", "train")
        assert done.returncode in (1, 2), (part, done.stdout)
        assert "Traceback" not in done.stderr
    assert {path.name for path in project.root.iterdir()} <= {
        ".gradient",
        "pyproject.toml",
        "storage",
    }
    assert not list(project.root.parent.rglob("escaped"))


def test_a_workflow_is_a_name_and_no_path(project: Project) -> None:
    project.workflow(job("true"))
    for name in ("../train", "/etc/passwd", "nothing", ""):
        done = project.run("run", name)
        assert done.returncode == 2, (name, done.stdout)
        assert "Traceback" not in done.stderr


def test_a_secret_of_several_lines_is_masked_line_by_line(project: Project) -> None:
    spec = json.loads(job('printf "%s" "$KEY"; echo; printf "%s" "$KEY" | tac'))
    spec["jobs"]["job"]["env"] = {"KEY": "secret:KEY"}
    project.workflow(json.dumps(spec))
    output = project.ok("run", "train", KEY="begin-key\nAbCdEf\nend-key")
    assert not any(part in output for part in ("begin-key", "AbCdEf", "end-key"))


def test_a_record_that_is_damaged_is_as_good_as_none(project: Project) -> None:
    project.workflow(job("echo x > /outputs/made/file; exit 1", MADE))
    project.fails(1, "run", "train")
    for text in ("", "{", "[]", "{}", '{"jobs": 3}', '{"jobs": {"job": {"contents": 1}}}'):
        for record in (project.storage / "workflows" / "train").glob("run-*.json"):
            record.write_text(text)
        assert "its exit status is 1" in project.fails(1, "run", "train"), text


def test_a_storage_that_cant_be_written_is_an_error_without_a_traceback(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    project.workflow(job("true"))
    text = project.fails(1, "run", "train", GRADLAB_STORAGE=str(tmp_path / "file" / "storage"))
    assert f"the storage {tmp_path}/file/storage failed: " in text
