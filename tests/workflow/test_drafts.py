"""What a job that failed has left: whose it is, whether it is whole, and where it leads."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Project, wait_for

TEXT = """
    inputs:
      word: {type: string, with: {value: one}}
    jobs:
      code:
        outputs: {repo: {type: volume}}
        uses: git-checkout@v1
        with: {url: context.event.github.url}
      data:
        outputs: {data: {type: dataset, with: {ref: data}}}
        uses: script@v1
        with: {image: "bash:5", script: "echo 1 > /outputs/data/x"}
      make:
        needs: [code, data]
        inputs: {word: workflow.inputs.word, repo: code.outputs.repo, data: data.outputs.data}
        outputs: {made: {type: dataset, with: {ref: made}}}
        env: {VARIABLE: "1", TOKEN: "secret:TOKEN"}
        uses: script@v1
        with:
          image: bash:5
          script: |
            echo found $(ls /outputs/made)
            cat /inputs/word > /outputs/made/$(cat /inputs/word)
            test -e STOP && exit 3
            true
"""
BEGINS = "begins anew: what it had written before"


class Left:
    """A project whose last job has failed and left a file."""

    def __init__(self, project: Project) -> None:
        self.project, self.stop = project, project.root / "ignored"
        self.text = TEXT.replace("STOP", str(self.stop))
        self.code = {"main.py": '"""Doc."""\nx = 1\n', "README.md": "Page.\n"}
        (project.root / ".gitignore").write_text("ignored\nstorage\n.gradient\n")
        self.stop.touch()
        self.run()

    def run(
        self, *options: str, text: tuple[str, str] = ("", ""), code: int = 1, **files: str
    ) -> str:
        self.project.workflow(self.text.replace(*text) if text[0] else self.text)
        secret = files.pop("TOKEN", "t0ken-1")
        for name, content in (self.code | files).items():
            (self.project.root / name).write_text(content)
        done = self.project.run("run", "train", "--engine", "paths", *options, TOKEN=secret)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def left(project: Project) -> Left:
    return Left(project)


def text(old: str, new: str) -> Callable[[Left], str]:
    return lambda left: left.run(text=(old, new))


IN = " " * 10
OTHERS: dict[str, tuple[Callable[[Left], str], str]] = {
    "an input of the workflow": (lambda left: left.run("--input", "word=two"), "input 'word'"),
    "the script": (text("echo found", "echo again found"), "its text"),
    "the environment": (text('VARIABLE: "1"', 'VARIABLE: "2"'), "its text"),
    "another parameter": (text(f"bash:5\n{IN}script: |", f"bash:6\n{IN}script: |"), "its text"),
    "what an output becomes": (text("ref: made", "ref: more"), "its text"),
    "what another job has made": (text("echo 1 >", "echo 2 >"), "input 'data'"),
    "the code": (lambda left: left.run(**{"main.py": "x = 2\n"}), "input 'repo'"),
    "a table of the code": (lambda left: left.run(**{"table.csv": "1\n"}), "input 'repo'"),
}  # fmt: skip
SAME: dict[str, Callable[[Left], str]] = {
    "nothing": lambda left: left.run(),
    "a comment and a page": lambda left: left.run(**{"main.py": "x = 1  # one\n", "README.md": ""}),
    "a secret's value": lambda left: left.run(TOKEN="t0ken-2"),
    "an engine": lambda left: left.run("--engine", "auto"),
}


def test_a_draft_belongs_to_the_same_text_inputs_and_code(left: Left) -> None:
    for name, again in SAME.items():
        output = again(left)
        assert "[make] found one" in output and BEGINS not in output, (name, output)
    for name, (other, says) in OTHERS.items():
        output = other(left)
        (left.project.root / "table.csv").unlink(missing_ok=True)
        assert "found \n" in output.replace("found\n", "found \n"), (name, output)
        assert f"{BEGINS} ({says} changed since) is set aside" in output, (name, output)
        output = left.run()
        assert "[make] found one" in output and "had been set aside" in output, (name, output)


def test_what_is_set_aside_is_taken_up_where_changes_are_accepted(left: Left) -> None:
    edit = {"main.py": "x = 3\n"}
    assert BEGINS in left.run("--input", "word=two", **edit)
    output = left.run("--input", "word=two", "--accept-changes", **edit)
    assert "[make] found one\n" in output and "had been set aside" in output
    assert "[make] found one two\n" in left.run("--input", "word=two", "--accept-changes", **edit)
    left.stop.unlink()
    left.run("--input", "word=two", code=0, **edit)
    assert not [p for p in (left.project.storage / "drafts").rglob("*") if p.is_file()]


def test_a_draft_whose_job_cannot_be_told_is_not_taken_up(left: Left) -> None:
    (left.project.storage / "drafts/train/make/draft.json").unlink()
    assert f"{BEGINS} (whose job can't be told)" in left.run()
    assert (left.project.storage / "drafts/train/make/aside/outputs/made/one").exists()


# Links

VICTIM = {"sub/precious": "precious\n", "x": "x\n"}


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    for name, content in VICTIM.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def check(victim: Path) -> None:
    found = {str(p.relative_to(victim)): p.read_text() for p in victim.rglob("*") if p.is_file()}
    assert found == VICTIM


def job(uses: str) -> str:
    return f"""
        jobs:
          job:
            outputs: {{v: {{type: volume}}, id: {{type: string}}}}
            {uses}
    """


CHECKOUT = "uses: git-checkout@v1\n            with: {{path: {}, url: context.event.github.url}}"


@pytest.mark.parametrize("path", ["/outputs/v/out/sub", "/outputs/v/out", "/outputs/v"])
@pytest.mark.parametrize("accept", [False, True])
def test_no_checkout_is_written_through_a_link_of_a_draft(
    project: Project, victim: Path, path: str, accept: bool
) -> None:
    leaves = f"ln -s {victim} /outputs/v/out; exit 3"
    project.workflow(job(f"uses: script@v1\n            with: {{image: a, script: '{leaves}'}}"))
    project.fails(1, "run", "train", "--engine", "paths")
    project.workflow(job(CHECKOUT.format(path)).replace(", id: {type: string}", ""))
    (project.root / "code.py").write_text("")
    options = ["--accept-changes"] if accept else []
    done = project.run("run", "train", "--engine", "paths", *options)
    check(victim)
    fails = accept and path != "/outputs/v"
    assert done.returncode == int(fails), done.stdout
    if fails:
        assert f"/outputs/v/out is a link to {victim}, left by an earlier try" in done.stdout


def test_no_folder_of_a_job_is_followed_where_it_is_a_link(project: Project, victim: Path) -> None:
    model = "uses: create-model@v1\n            inputs: {model: {type: dataset, with: {ref: m}}}"
    (project.root / "m").mkdir()
    (project.root / "m/x").touch()
    project.ok("datasets", "add", "m", "m")
    script = (
        "uses: script@v1\n            with: {image: a, script: 'echo 1 > /outputs/v/x; exit 3'}"
    )
    for uses in (script, f"{model}\n            with: {{name: m, type: Custom}}"):
        project.workflow(job(uses))
        project.run("run", "train", "--engine", "paths")
        for name in ("inputs", "outputs", "tmp", "commit", "mirror", "aside"):
            place = project.storage / "drafts/train/job" / name
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(victim)
        project.run("run", "train", "--engine", "paths")
        project.run("run", "train", "--engine", "paths", "--fresh")
        check(victim)


# Damage

WRITES = """
    jobs:
      job:
        outputs: {made: {type: dataset, with: {ref: made}}, s: {type: string}}
        uses: script@v1
        with:
          image: bash:5
          script: |
            echo found $(cat /outputs/made/a)
            [ -e /outputs/made/a ] || echo aaaaaaaa > /outputs/made/a
            mkdir -p /outputs/made/sub; [ -e /outputs/made/sub/b ] || seq 9 > /outputs/made/sub/b
            ln -sf a /outputs/made/link; printf s > /outputs/s; WAIT
"""


def flip(path: Path, moments: random.Random) -> None:
    """Turn one bit of a file, as a disk does: its times stay."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[moments.randrange(len(data))] ^= 1 << moments.randrange(8)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("killed", [False, True])
def test_a_flipped_bit_in_a_draft_is_named_and_not_used(project: Project, killed: bool) -> None:
    seed = random.randrange(1 << 32)
    moments = random.Random(seed)
    often = {"GRADLAB_MIRROR_MINUTES": "0.001"}
    project.workflow(WRITES.replace("WAIT", "echo waits; sleep 600" if killed else "exit 3"))
    draft = project.storage / "drafts/train/job"
    for name in ("made/a", "made/sub/b", "s", None):
        if killed:
            runner = project.start("run", "train", "--engine", "paths", **often)
            wait_for(runner, "[job] waits")
            time.sleep(0.5)
            os.killpg(runner.pid, signal.SIGKILL)
            runner.wait()
        else:
            project.fails(1, "run", "train", "--engine", "paths")
        flip(draft / "outputs" / name if name else draft / "draft.json", moments)
        if killed:
            runner = project.start("run", "train", "--engine", "paths", **often)
            assert runner.stdout
            lines: list[str] = []
            while not lines or "[job] waits" not in lines[-1]:
                lines.append(runner.stdout.readline())
                assert lines[-1], lines
            output = "".join(lines)
            os.killpg(runner.pid, signal.SIGKILL)
            runner.wait()
        else:
            output = project.fails(1, "run", "train", "--engine", "paths")
        says = f"damaged in what it had written: {name}; set aside" if name else "can't be told"
        assert says in output, f"seed {seed}: {output}"
        assert "[job] found\n" in output, f"seed {seed}: {output}"
        project.run("run", "train", "--engine", "paths") if not killed else None


# Generations

COUNTS = """
    jobs:
      count:
        outputs: {n: {type: dataset, with: {ref: n}}}
        uses: script@v1
        env: {HERE: ROOT}
        with:
          image: bash:5
          script: |
            for i in $(seq $(cat $HERE/steps)); do echo step >> /outputs/n/lines; done
            echo has $(wc -l < /outputs/n/lines)
            test -e $HERE/done
"""


def test_an_old_draft_gives_way_to_what_another_machine_has_done_since(
    project: Project, tmp_path: Path
) -> None:
    project.workflow(COUNTS.replace("ROOT", str(project.root)))

    def run(machine: str, steps: int, code: int = 1) -> str:
        (project.root / "steps").write_text(str(steps))
        slow = {"GRADLAB_STORAGE_SLOW": "1", "GRADLAB_SCRATCH": str(tmp_path / machine)}
        done = project.run("run", "train", "--engine", "paths", **slow)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    assert "[count] has 10\n" in run("a", 10)
    assert "[count] has 90\n" in run("b", 80)
    output = run("a", 1)
    assert "[count] has 91\n" in output and "carries on with the copy" in output
    output = run("a", 1)
    assert "[count] has 92\n" in output and "on with the copy" not in output, "its own is newest"
    shutil.rmtree(project.storage / "drafts")  # not uploaded
    assert "[count] has 93\n" in run("a", 1)
    (project.root / "done").touch()
    assert "[count] has 94\n" in run("b", 1, code=0)
