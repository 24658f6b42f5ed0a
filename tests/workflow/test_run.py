"""`gradlab run`: a workflow with the meaning that it has at the service, on this machine."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gradlab.base.supervisor import GRACE

from .conftest import Project, needs_bubblewrap, wait_for

CHAIN = """
    inputs:
      who: {type: string, with: {value: world}}
    jobs:
      make:
        inputs: {who: workflow.inputs.who}
        outputs:
          numbers: {type: dataset, with: {ref: numbers}}
          notes: {type: volume}
          count: {type: string}
        uses: script@v1
        with:
          image: bash:5
          script: |
            set -e
            echo "hello $(cat /inputs/who)"
            seq 3 > /outputs/numbers/list
            echo draft > /outputs/notes/a
            printf 3 > /outputs/count
      use:
        needs: [make]
        inputs:
          numbers: make.outputs.numbers
          notes: make.outputs.notes
          count: make.outputs.count
        outputs:
          sum: {type: dataset, with: {ref: sum}}
        env: {FACTOR: "7"}
        uses: script@v1
        with:
          image: bash:5
          script: |
            set -e
            cat /inputs/notes/a /inputs/count
            awk -v f=$FACTOR '{s += $1 * f} END {print s}' /inputs/numbers/list > /outputs/sum/total
"""


def steps(marker: Path) -> str:
    """Give a workflow of two jobs, the second of which fails while a file is missing."""
    return f"""
        jobs:
          first:
            outputs: {{made: {{type: dataset, with: {{ref: made}}}}, kept: {{type: volume}}}}
            uses: script@v1
            with:
              image: bash:5
              script: |
                echo one > /outputs/made/file
                echo two > /outputs/kept/file
          second:
            needs: [first]
            inputs: {{made: first.outputs.made, kept: first.outputs.kept}}
            outputs: {{log: {{type: dataset, with: {{ref: log}}}}}}
            uses: script@v1
            with:
              image: bash:5
              script: |
                echo line >> /outputs/log/lines
                wc -l < /outputs/log/lines
                test -e {marker}
    """


MADE = "{made: {type: dataset, with: {ref: made}}}"


def script(text: str, outputs: str = "{}", extra: str = "") -> str:
    """Give a workflow of one job."""
    body = "\n".join(f"{'':14}{line}" for line in text.strip().splitlines())
    return f"""
        jobs:
          job:
            outputs: {outputs}
            uses: script@v1
            {extra}
            with:
              image: bash:5
              script: |
{body.replace(" " * 14, " " * 16)}
    """


def test_one_text_gives_the_same_datasets_in_every_engine(project: Project, engine: str) -> None:
    project.workflow(CHAIN)
    output = project.ok("run", "train", "--engine", engine)
    assert "[make] hello world" in output
    assert project.states(output) == {"make": "ran", "use": "ran"}
    (version,) = project.versions("sum")
    assert (version / "data" / "total").read_text() == "42\n"
    assert f"sum:{version.name}" in output
    # Another test may have the machine by now.
    assert str(project.root) not in os.path.realpath("/inputs") + os.path.realpath("/outputs")


def test_a_path_with_spaces_and_quotes_is_as_good_as_any(
    make_project: Callable[[str], Project], engine: str
) -> None:
    project = make_project("it's $HOME; a `demo` & more")
    project.workflow(CHAIN)
    project.ok("run", "train", "--engine", engine)
    assert (project.versions("sum")[0] / "data" / "total").read_text() == "42\n"


def test_an_input_of_the_workflow_is_given_on_the_command_line(project: Project) -> None:
    project.workflow(CHAIN)
    assert "[make] hello you" in project.ok("run", "train", "--input", "who=you")
    text = project.fails(2, "run", "train", "--input", "whom=you")
    assert "has no input 'whom'; its inputs: who" in text
    assert "write NAME=VALUE" in project.fails(2, "run", "train", "--input", "who")


def test_an_optional_input_without_a_value_is_empty(project: Project) -> None:
    project.workflow("""
        inputs:
          text: {type: string, optional: true}
          data: {type: dataset, optional: true, with: {ref: data}}
        jobs:
          job:
            inputs: {text: workflow.inputs.text, data: workflow.inputs.data}
            uses: script@v1
            with: {image: "bash:5", script: "ls -A /inputs /inputs/data; wc -c < /inputs/text"}
    """)
    assert "[job] 0\n" in project.ok("run", "train")
    assert "[job] 3\n" in project.ok("run", "train", "--input", "text=abc")


def test_an_input_of_the_workflow_without_a_value_is_an_error(project: Project) -> None:
    project.workflow(CHAIN.replace(", with: {value: world}", ""))
    text = project.fails(2, "run", "train")
    assert "the input 'who' has no value: gradlab run train --input who=VALUE" in text


def test_independent_jobs_run_at_once(project: Project) -> None:
    job = """
          {0}:
            outputs: {{times: {{type: dataset, with: {{ref: "{0}"}}}}}}
            uses: script@v1
            with:
              image: bash:5
              script: |
                date +%s.%N > /outputs/times/t; sleep 1; date +%s.%N >> /outputs/times/t
    """
    project.workflow("    jobs:" + job.format("a") + job.format("b"))
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor: one job at a time")
    project.ok("run", "train")
    times = [
        [float(t) for t in (project.versions(name)[0] / "data" / "t").read_text().split()]
        for name in "ab"
    ]
    assert max(start for start, _ in times) < min(end for _, end in times)


def test_a_failed_job_stops_only_those_that_need_it(project: Project) -> None:
    job = "{{needs: [{1}], uses: script@v1, with: {{image: 'bash:5', script: '{0}'}}}}"
    lines = {
        "bad": job.format("for i in 1 2 3; do echo step $i; done; exit 3", ""),
        "after": job.format("echo never", "bad"),
        "other": job.format("echo fine", ""),
        "last": job.format("echo fine too", "other"),
    }
    project.workflow("jobs:\n" + "".join(f"  {name}: {text}\n" for name, text in lines.items()))
    output = project.fails(1, "run", "train")
    states = {"bad": "failed", "after": "skipped", "other": "ran", "last": "ran"}
    assert project.states(output.partition("\n\nbad failed")[0]) == states
    ending = output.partition("\n\nbad failed: ")[2]
    assert ending.startswith("its exit status is 3. Its last lines:\nstep 1\nstep 2\nstep 3\n")
    log = Path(re.search(r"all of them: (.*)", ending)[1])
    assert log.read_text().startswith("step 1\nstep 2\nstep 3\n")


def test_after_a_failure_the_same_command_carries_on(project: Project, tmp_path: Path) -> None:
    marker = tmp_path / "mended"
    project.workflow(steps(marker))
    project.fails(1, "run", "train", "--engine", "paths")
    marker.touch()
    output = project.ok("run", "train", "--engine", "paths")
    assert project.states(output) == {"first": "reused", "second": "ran"}
    assert "[second] 2" in output, "the draft of the job that failed was not there"
    assert len(project.versions("made")) == 1
    assert not list((project.storage / "drafts").rglob("lines"))


def test_a_run_that_completed_starts_anew(project: Project, tmp_path: Path) -> None:
    project.workflow(steps(tmp_path))
    for number in (1, 2):
        output = project.ok("run", "train", "--engine", "paths")
        assert project.states(output) == {"first": "ran", "second": "ran"}
        assert "[second] 1" in output
        assert len(project.versions("made")) == number
    assert not (project.storage / "volumes" / "train").exists()


def test_fresh_runs_all_and_forgets_drafts(project: Project, tmp_path: Path) -> None:
    project.workflow(steps(tmp_path / "never"))
    project.fails(1, "run", "train", "--engine", "paths")
    output = project.fails(1, "run", "train", "--engine", "paths", "--fresh")
    assert project.states(output.partition("\n\nsecond failed")[0])["first"] == "ran"
    assert "[second] 1" in output


def test_a_job_runs_again_when_what_it_depends_on_has_changed(
    project: Project, tmp_path: Path
) -> None:
    text = steps(tmp_path / "never")
    project.workflow(text)
    project.fails(1, "run", "train", "--engine", "paths")
    for old, new in {"echo one": "echo 1", "image: bash:5": "image: bash:4"}.items():
        project.workflow(text.replace(old, new, 1))
        output = project.fails(1, "run", "train", "--engine", "paths").partition("\n\nsecond")[0]
        assert project.states(output)["first"] == "ran", new
    output = project.fails(1, "run", "train", "--engine", "paths").partition("\n\nsecond")[0]
    assert project.states(output)["first"] == "reused"


def test_one_job_runs_with_what_it_needs(project: Project) -> None:
    project.workflow(CHAIN)
    assert project.states(project.ok("run", "train", "--job", "make")) == {"make": "ran"}
    assert project.states(project.ok("run", "train", "--job", "use"))["make"] == "ran"
    assert "has no job 'nothing'; its jobs are make, use" in project.fails(
        2, "run", "train", "--job", "nothing"
    )


def test_dry_run_shows_the_plan_and_writes_nothing(project: Project, tmp_path: Path) -> None:
    project.workflow(CHAIN)
    output = project.ok("run", "train", "--dry-run")
    assert re.search(r"use +script@v1 +.*numbers \(of make\).*sum \(sum\) +run", output)
    assert not project.storage.exists()
    project.workflow(steps(tmp_path / "never"))
    project.fails(1, "run", "train", "--engine", "paths")
    output = project.ok("run", "train", "--engine", "paths", "--dry-run")
    assert re.search(r"first .* reused\n.*second .* run$", output, re.DOTALL | re.MULTILINE)


def test_a_job_goes_on_with_its_own_dataset(project: Project) -> None:
    text = """
        jobs:
          train:
            inputs: {checkpoint: {type: dataset, with: {ref: checkpoint}}}
            outputs: {checkpoint: {type: dataset, with: {ref: checkpoint}}}
            uses: script@v1
            with:
              image: bash:5
              script: |
                set -e
                cp -r /inputs/checkpoint/. /outputs/checkpoint/
                echo epoch >> /outputs/checkpoint/epochs
    """
    project.workflow(text)
    assert "nothing yet: job 'train' finds an empty folder" in project.ok("run", "train")
    assert "dataset checkpoint is checkpoint:v1-" in project.ok("run", "train")
    lines = [len((v / "data/epochs").read_text().split()) for v in project.versions("checkpoint")]
    assert lines == [1, 2]


def test_a_dataset_without_a_version_is_an_error_with_the_way_to_make_one(
    project: Project,
) -> None:
    extra = "inputs: {digits: {type: dataset, with: {ref: digits}}}"
    project.workflow(script("cat /inputs/digits/a", extra=extra))
    text = project.fails(2, "run", "train")
    assert "job 'job': the dataset 'digits' has no version" in text
    assert "gradlab datasets add digits FOLDER" in text
    (project.root / "files").mkdir()
    (project.root / "files" / "a").write_text("found it")
    project.ok("datasets", "add", "digits", "files")
    assert "[job] found it" in project.ok("run", "train")


def test_an_interrupted_run_keeps_the_versions_that_it_began_with(
    project: Project, tmp_path: Path
) -> None:
    (project.root / "files").mkdir()
    (project.root / "files" / "a").write_text("first")
    project.ok("datasets", "add", "digits", "files")
    extra = "inputs: {digits: {type: dataset, with: {ref: digits}}}"
    project.workflow(script(f"cat /inputs/digits/a; test -e {tmp_path}/mended", extra=extra))
    project.fails(1, "run", "train", "--engine", "paths")
    (project.root / "files" / "a").write_text("second")
    project.ok("datasets", "add", "digits", "files")
    (tmp_path / "mended").touch()
    output = project.ok("run", "train", "--engine", "paths")
    assert "[job] first" in output and "has come since" in output
    assert "[job] second" in project.ok("run", "train", "--engine", "paths")


def test_a_model_is_registered_with_its_version_and_metrics(project: Project) -> None:
    project.workflow("""
        jobs:
          train:
            outputs: {model: {type: dataset, with: {ref: model}}}
            uses: script@v1
            with:
              image: bash:5
              script: |
                echo weights > /outputs/model/model.pt
                echo '{"accuracy": 0.9}' > /outputs/model/metrics.json
          register:
            needs: [train]
            inputs: {model: train.outputs.model}
            outputs: {model-id: {type: string}}
            uses: create-model@v1
            with: {name: digits, type: Custom}
          deploy:
            needs: [register]
            inputs: {id: register.outputs.model-id}
            uses: script@v1
            with: {image: "bash:5", script: "echo deploys $(cat /inputs/id)"}
    """)
    output = project.ok("run", "train")
    (entry,) = (project.storage / "models" / "digits").iterdir()
    model = json.loads(entry.read_text())
    (version,) = project.versions("model")
    assert model["model"] == f"dataset model:{version.name}"
    assert model["metrics"] == {"accuracy": 0.9}
    assert model["type"] == "Custom"
    assert f"[deploy] deploys {model['id']}" in output


# Secrets


def test_a_secret_reaches_the_job_and_nothing_else(project: Project) -> None:
    value = "s3cr3t-w0rd/with=signs"
    project.workflow(
        script(
            "echo token is $TOKEN end; [ ${#TOKEN} = 22 ] && echo length fits\n"
            "printf s3cr3t; sleep 0.3; printf -- '-w0rd/with=si'; sleep 0.3; echo gns\n"
            "echo s3cr3t-w0rd%2Fwith%3Dsigns; echo $TOKEN > /outputs/made/file; exit 1",
            outputs=MADE,
            extra="env: {TOKEN: 'secret:API_TOKEN'}",
        )
    )
    output = project.fails(1, "run", "train", API_TOKEN=value)
    assert "token is *** end" in output and "length fits" in output
    assert output.count("***") >= 3
    assert "s3cr3t" not in output
    for path in project.storage.rglob("*"):
        if path.is_file() and "outputs" not in path.parts:
            assert value.encode() not in path.read_bytes(), path


def test_a_missing_secret_is_an_error_before_anything_runs(project: Project) -> None:
    project.workflow(script("echo ran", extra="env: {TOKEN: 'secret:API_TOKEN'}"))
    text = project.fails(2, "run", "train")
    assert "the secret API_TOKEN is missing: set an environment variable" in text
    assert "[job]" not in text


def test_the_environment_is_clean_but_for_what_the_job_declares(project: Project) -> None:
    project.workflow(
        script("env; python -c 'import sys; print(sys.base_prefix)'", extra="env: {A: b}")
    )
    output = project.ok("run", "train", PRIVATE="hidden", PIP_NO_INDEX="1")
    assert "[job] A=b" in output and "[job] PIP_NO_INDEX=1" in output
    assert "hidden" not in output
    assert f"[job] {sys.base_prefix}" in output


# git-checkout

CHECKOUT = """
    "on": {{github: {{branches: {{only: main}}}}}}
    jobs:
      checkout:
        outputs: {{repo: {{type: volume}}}}
        uses: git-checkout@v1
        with: {{{0}}}
      list:
        needs: [checkout]
        inputs: {{repo: checkout.outputs.repo}}
        uses: script@v1
        with:
          image: bash:5
          script: |
            cd /inputs/repo && find . -path ./.git -prune -o -type f -print | sort && cat code.py
"""


def git(folder: Path, *arguments: str) -> None:
    settings = ("user.name=A", "user.email=a@example.org", "init.defaultBranch=main")
    options = [part for setting in settings for part in ("-c", setting)]
    subprocess.run(
        ["git", "-C", str(folder), *options, *arguments], check=True, capture_output=True
    )


@pytest.fixture
def repository(project: Project) -> Project:
    (project.root / "code.py").write_text("committed\n")
    (project.root / ".gitignore").write_text("ignored\nstorage\n")
    (project.root / "ignored").write_text("")
    git(project.root, "init")
    git(project.root, "add", ".")
    git(project.root, "commit", "-m", "first")
    return project


OWN = "url: context.event.github.url, ref: context.event.github.ref"


def test_this_repository_is_taken_as_it_is_on_the_disk(repository: Project) -> None:
    repository.workflow(CHECKOUT.format(OWN))
    (repository.root / "code.py").write_text("edited\n")
    (repository.root / "new.py").write_text("")
    output = repository.ok("run", "train")
    assert "[list] edited" in output
    assert "[list] ./new.py" in output
    assert "ignored" not in output.replace(".gitignore", "")


def test_an_edit_runs_again_what_reads_the_code_and_nothing_else(repository: Project) -> None:
    bad = "\n      bad: {needs: [list], uses: script@v1, with: {image: 'bash:5', script: exit 1}}\n"
    repository.workflow(CHECKOUT.format(OWN).rstrip() + bad)
    repository.fails(1, "run", "train")
    output = repository.fails(1, "run", "train").partition("\n\nbad failed")[0]
    assert repository.states(output) == {"checkout": "reused", "list": "reused", "bad": "failed"}
    (repository.root / "code.py").write_text("edited\n")
    output = repository.fails(1, "run", "train").partition("\n\nbad failed")[0]
    assert repository.states(output) == {"checkout": "ran", "list": "ran", "bad": "failed"}


def test_without_git_the_files_are_taken_without_the_usual_junk(project: Project) -> None:
    (project.root / "code.py").write_text("plain\n")
    for junk in (".venv/lib", "__pycache__", "storage/old"):
        (project.root / junk).mkdir(parents=True)
        (project.root / junk / "junk.bin").write_text("")
    project.workflow(CHECKOUT.format(OWN))
    output = project.ok("run", "train")
    assert "[list] plain" in output and "junk" not in output


def test_a_branch_of_this_repository_is_taken_from_its_commit(repository: Project) -> None:
    git(repository.root, "remote", "add", "origin", "git@github.com:someone/demo.git")
    git(repository.root, "tag", "v1")
    (repository.root / "code.py").write_text("edited\n")
    repository.workflow(CHECKOUT.format("url: 'https://github.com/someone/demo', ref: v1"))
    assert "[list] committed" in repository.ok("run", "train")
    repository.workflow(CHECKOUT.format("url: 'https://github.com/someone/demo'"))
    assert "[list] edited" in repository.ok("run", "train")


def test_another_repository_is_cloned_at_the_ref_asked_for(
    repository: Project, make_project: Callable[[str], Project]
) -> None:
    git(repository.root, "branch", "old")
    (repository.root / "code.py").write_text("newer\n")
    git(repository.root, "commit", "-am", "second")
    other = make_project("other")
    url = f"url: 'file://{repository.root}'"
    head = subprocess.check_output(["git", "-C", repository.root, "rev-parse", "old"], text=True)
    for where, content in {
        url: "newer",
        f"{url}, ref: old": "committed",
        f"{url}, ref: '{head.strip()}'": "committed",
        f"{url}, ref: '{head[:9]}'": "committed",
        f"{url}, path: /outputs/repo/.": "newer",
    }.items():
        other.workflow(CHECKOUT.format(where))
        assert f"[list] {content}" in other.ok("run", "train"), where
    other.workflow(CHECKOUT.format(f"{url}, ref: nowhere"))
    assert f"could not get file://{repository.root} at nowhere" in other.fails(1, "run", "train")


SERVER = """
import base64, functools, http.server, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        want = "Basic " + base64.b64encode(b"me:p4ss-w0rd").decode()
        if self.headers.get("Authorization") == want:
            return super().do_GET()
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.end_headers()
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=sys.argv[1]))
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_a_private_repository_is_cloned_and_its_password_stays_secret(
    repository: Project, make_project: Callable[[str], Project]
) -> None:
    git(repository.root, "update-server-info")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(repository.root / ".git")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/"
        other = make_project("other")
        other.workflow(
            CHECKOUT.format(f"url: '{url}', ref: main, username: me, password: 'secret:GIT_TOKEN'")
        )
        output = other.fails(1, "run", "train", GIT_TOKEN="wrong")
        assert f"could not get {url}" in output and "wrong" not in output
        output = other.ok("run", "train", GIT_TOKEN="p4ss-w0rd")
        assert "[list] committed" in output
        assert "p4ss" not in output
        for path in other.storage.rglob("*"):
            assert not path.is_file() or b"p4ss" not in path.read_bytes(), path
    finally:
        server.kill()


# Engines


@needs_bubblewrap
def test_bubblewrap_without_a_network_has_none(project: Project) -> None:
    project.workflow(script("cat /proc/net/dev | grep -c : "))
    assert "[job] 1" in project.ok("run", "train", "--engine", "bubblewrap", GRADLAB_NETWORK="off")


def test_paths_are_replaced_where_they_are_whole_paths(project: Project) -> None:
    project.workflow(
        script(
            "ROOT=/somewhere; echo $ROOT/inputs /inputs-old /a/inputs /inputsx ${ROOT}/outputs/b\n"
            'echo --data=/outputs/made "$(ls -d /outputs)"; echo $WHERE; echo x > /outputs/made/x\n'
            "test -d $GRADLAB_OUTPUTS/made",
            outputs=MADE,
            extra="env: {WHERE: /outputs/made}",
        )
    )
    output = project.ok("run", "train", "--engine", "paths")
    assert "[job] /somewhere/inputs /inputs-old /a/inputs /inputsx /somewhere/outputs/b" in output
    assert re.search(r"\[job\] --data=/\S+/outputs/made /\S+/outputs\n", output)
    assert re.search(r"\[job\] /\S+/outputs/made\n", output)
    assert "/outputs are replaced by real folders in scripts" in output


def test_a_job_that_writes_to_its_inputs_alters_no_version(project: Project, engine: str) -> None:
    project.workflow("""
        jobs:
          make:
            outputs: {made: {type: dataset, with: {ref: made}}}
            uses: script@v1
            with: {image: "bash:5", script: "echo good > /outputs/made/file"}
          spoil:
            needs: [make]
            inputs: {made: make.outputs.made}
            uses: script@v1
            with:
              image: bash:5
              script: echo bad > /inputs/made/file; touch /inputs/made/new; true
    """)
    project.ok("run", "train", "--engine", engine)
    (version,) = project.versions("made")
    assert (version / "data" / "file").read_text() == "good\n"
    assert "ok" in project.ok("datasets", "verify")


def test_an_engine_that_does_not_work_here_is_an_error_that_says_why(project: Project) -> None:
    project.workflow(script("true"))
    text = project.fails(2, "run", "train", "--engine", "container", PATH="/nowhere")
    assert "the engine container: neither docker nor podman is installed" in text


# Signals and processes


def test_a_shell_that_knows_no_signals_lets_its_program_save_and_goes_no_further(
    project: Project, engine: str
) -> None:
    saver = (
        "import signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(1)\n"
        "    print('saved', file=open('/outputs/made/log', 'a'))\n"
        "    sys.exit(3)\n"
        "for number in (1, 2, 15): signal.signal(number, save)\n"
        "print('started', flush=True)\n"
        "time.sleep(30)\n"
    )
    if engine == "paths":
        saver = saver.replace("'/outputs/made/log'", "sys.argv[1]")
    project.workflow(
        script(
            "[ -e /outputs/made/log ] && cat /outputs/made/log && exit\n"
            f"python -c {shlex.quote(saver)} /outputs/made/log\n"
            "echo went on >> /outputs/made/log",
            outputs=MADE,
        )
    )
    runner = project.start("run", "train", "--engine", engine)
    wait_for(runner, "[job] started")
    runner.send_signal(signal.SIGTERM)
    output = runner.stdout.read()
    assert runner.wait(20) == 128 + signal.SIGTERM, output
    assert project.states(output)["job"] == "stopped"
    output = project.ok("run", "train", "--engine", engine)
    assert "[job] saved" in output
    assert "went on" not in output


def processes(project: Project) -> list[str]:
    """List the processes of the project's jobs that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment, state = (path / "environ").read_bytes(), (path / "stat").read_text()
        except OSError:
            continue
        if f"GRADLAB_JOB={project.root}".encode() in environment and ") Z " not in state:
            found.append((path / "cmdline").read_text())
    return found


def test_nothing_that_a_job_started_outlives_it(project: Project, engine: str) -> None:
    project.workflow(
        script("(setsid sleep 4321; echo) & (while :; do echo x; sleep 0.01; done) &\ntrue")
    )
    began = time.monotonic()
    project.ok("run", "train", "--engine", engine)
    assert time.monotonic() - began < 60
    assert not processes(project)


def test_what_a_killed_runner_left_running_is_ended_by_the_next(
    project: Project, engine: str
) -> None:
    project.workflow(
        script(
            "ls /outputs/made/begun && exit\ntouch /outputs/made/begun; echo started; sleep 4322",
            outputs=MADE,
        )
    )
    runner = project.start("run", "train", "--engine", engine)
    wait_for(runner, "[job] started")
    runner.kill()  # the runner alone
    runner.wait()
    project.ok("run", "train", "--engine", engine)
    assert not processes(project)


@pytest.mark.slow
def test_two_runs_of_one_workflow_keep_out_of_each_others_way(project: Project) -> None:
    project.workflow(script("echo started; sleep 30"))
    first = project.start("run", "train")
    wait_for(first, "[job] started")
    text = project.fails(2, "run", "train")
    assert "another gradlab run of 'train' is at work on" in text
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()


@pytest.mark.slow
def test_a_run_waits_for_one_that_is_about_to_end_as_long_as_that_takes(project: Project) -> None:
    project.workflow(
        script(
            """
            trap 'while [ ! -e /outputs/data/go ]; do sleep 0.1; done; exit 1' HUP
            [ -e /outputs/data/mark ] && exit
            touch /outputs/data/mark
            echo started
            sleep 30 & wait
            """,
            outputs="{data: {type: dataset, with: {ref: data}}}",
        )
    )
    first = project.start("run", "train")
    wait_for(first, "[job] started")
    second = project.start("run", "train")
    wait_for(second, "another run of 'train' is at work: waiting for its end")
    time.sleep(GRACE - 2)  # then it waits for less than the other takes
    first.send_signal(signal.SIGHUP)
    time.sleep(4)
    (project.storage / "drafts/train/job/outputs/data/go").touch()
    assert second.stdout
    assert "data:v1-" in second.stdout.read()
    assert (first.wait(20), second.wait(20)) == (129, 0)


# Output


def test_a_progress_bar_is_one_line_in_the_log_and_few_on_the_screen(project: Project) -> None:
    project.workflow(
        script(r"for i in $(seq 50); do printf '\r%d%%' $i; sleep 0.02; done; echo; echo done")
    )
    output = project.ok("run", "train")
    assert (project.storage / "workflows/train/logs/job.log").read_text() == "50%\ndone\n"
    assert "[job] 50%\n[job] done\n" in output
    assert output.count("%") < 6


def test_output_that_is_no_text_or_one_long_line_is_shown_all_the_same(project: Project) -> None:
    project.workflow(script(r"printf '\xff\xfe ok\n'; head -c 300000 /dev/zero | tr '\0' x; echo"))
    output = project.ok("run", "train")
    assert " ok\n" in output
    assert output.count("x") > 299000


def test_a_reader_that_goes_away_does_not_end_the_run(project: Project) -> None:
    project.workflow(script("seq 20000; echo x > /outputs/made/x", outputs=MADE))
    runner = project.start("run", "train")
    assert runner.stdout
    runner.stdout.readline()
    runner.stdout.close()
    assert runner.wait(30) == 0
    assert len(project.versions("made")) == 1


def test_a_run_under_nohup_goes_on_after_a_hangup(project: Project) -> None:
    project.workflow(script("echo started; sleep 1; echo ended"))
    runner = project.start("run", "train", nohup=True)
    wait_for(runner, "[job] started")
    runner.send_signal(signal.SIGHUP)
    assert "[job] ended" in runner.stdout.read()
    assert runner.wait(20) == 0


# Slow storage, such as Google Drive
