"""Signals to a run, to whomever and however often, and processes that would outlive it."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gradlab.base import processes
from gradlab.base.stop import GRACE, Stop
from gradlab.notebook import live

from ..lab import descendants
from ..services.processes import ENDING, fresh_signals, until
from .conftest import HAS_BUBBLEWRAP, Project, wait_for
from .test_run import MADE, script

# What a training does: the first signal counts, those within a moment of it are the same.
SAVER = """
import os, signal, sys, time
def save(number, _):
    for each in (1, 2, 15):
        signal.signal(each, signal.SIG_IGN)
    print("is saving", flush=True)
    time.sleep(1)
    print("saved after", number, file=open(sys.argv[1], "a"), flush=True)
    os._exit(3)
for each in (1, 2, 15):
    signal.signal(each, save)
print("started", flush=True)
if sys.argv[2:] == ["stopped"]:
    os.kill(os.getpid(), signal.SIGSTOP)
while True:
    time.sleep(0.1)  # a signal just before one long sleep would be seen after it only
"""
# Ways in which a script runs a training.
SHELLS = {
    "plain": "python -c {saver} /outputs/made/log; echo went on >> /outputs/made/log",
    "exec": "exec python -c {saver} /outputs/made/log",
    "trap": "trap 'exit 9' HUP INT TERM; python -c {saver} /outputs/made/log & wait",
    "tee": "exec > >(tee /tmp/log) 2>&1; python -c {saver} /outputs/made/log",
    "pipe": "python -c {saver} /outputs/made/log | grep --line-buffered . | cat",
    "hidden": "env -i $(which python) -c {saver} /outputs/made/log",
    "stopped": "python -c {saver} /outputs/made/log stopped",
}
# Processes that are hard to find or to end, each with TOKEN among its arguments.
ERASING = """
import ctypes, time
names, number = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ"), 0
texts = ctypes.cast(names, ctypes.POINTER(ctypes.c_void_p))
while names[number]:
    ctypes.memset(texts[number], 0, len(names[number]))
    number += 1
time.sleep(90)
"""
HOPPING = "import os, time\nwhile True:\n if os.fork(): os._exit(0)\n time.sleep(0.0005)"
HIDDEN = {
    "no environment": "setsid env -i $(which sleep) 90.TOKEN &",
    "orphan that prints": "(setsid env -i sh -c 'while :; do echo x; sleep 0.1; done' TOKEN &)",
    "title": f"python -c {shlex.quote(ERASING)} TOKEN &",
    "stopped": "sleep 91.TOKEN & kill -STOP $!",
    "ignoring": "(trap '' HUP INT TERM; exec sleep 92.TOKEN) &",
    "forking": f"python -c {shlex.quote(HOPPING)} TOKEN &",
}
# Ways in which the end of a script's output is still on its way when its shell ends.
DRAINS = {
    "tee": "exec > >(tee log)",
    "chain": "exec > >(sed s/^/x/ | tee log | cat)",
    "shell": "exec > >(while read -r line; do echo $line; done)",
    "late": "exec > >(sleep 1; cat)",
    "fifo": "mkfifo fifo; tee log < fifo & exec > fifo",
    "with a daemon": "exec > >(tee log); (setsid sleep 90 &)",
}


@pytest.fixture(params=["bubblewrap", "machine", "paths"])
def engine(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name == "bubblewrap" and not HAS_BUBBLEWRAP:
        pytest.skip("bubblewrap is not installed")
    if name == "machine":
        needs_a_machine()
    return name


def needs_a_machine() -> None:
    if os.getuid() or (os.path.isdir("/inputs") and not os.path.islink("/inputs")):
        pytest.skip("needs the user root and a machine without /inputs")


@pytest.fixture
def token() -> Iterator[str]:
    """Give a number that marks processes, none of which may be left at the end."""
    number = str(random.randrange(1 << 40))
    yield number
    left = carrying(number)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def carrying(token: str) -> list[int]:
    """List the processes that have a text among their arguments and have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            arguments, state = (path / "cmdline").read_bytes(), (path / "stat").read_text()
        except OSError:
            continue
        if token.encode() in arguments and ") Z " not in state:
            found.append(int(path.name))
    return found


def to_process(runner: subprocess.Popen[str], number: int) -> None:
    runner.send_signal(number)


def twice(runner: subprocess.Popen[str], number: int) -> None:
    runner.send_signal(number)
    time.sleep(0.3)
    runner.send_signal(signal.SIGTERM)


def to_group(runner: subprocess.Popen[str], number: int) -> None:
    os.killpg(runner.pid, number)


def to_everyone(runner: subprocess.Popen[str], number: int) -> None:
    for pid in [runner.pid, *descendants(runner.pid)]:
        os.kill(pid, number)


def to_everyone_from_the_last(runner: subprocess.Popen[str], number: int) -> None:
    for pid in [runner.pid, *descendants(runner.pid)][::-1]:
        os.kill(pid, number)


Send = Callable[[subprocess.Popen[str], int], None]


def training(project: Project, token: str, seconds: int = 1) -> None:
    """Write a workflow whose job trains until it is told to save, which takes so many seconds."""
    saver = f"{SAVER}# {token}".replace("sleep(1)", f"sleep({seconds})")
    text = SHELLS["plain"].format(saver=shlex.quote(saver))
    project.workflow(script(text, outputs=MADE))


def supervise(
    text: str, folder: Path, take: Callable[[bytes], object], stop: Stop | None = None
) -> int:
    """Run a script as a job's, in a folder, and give its status."""
    env = {**os.environ, processes.MARK: str(folder)}
    path = folder / "job.sh"
    path.write_text(text)
    command = processes.supervised(["bash", str(path)])
    return processes.run(command, env, folder, lambda data: take(data) and None, stop or Stop())


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Take signals, also where the tests as a whole ignore them."""
    with fresh_signals():
        yield


def rest(runner: subprocess.Popen[str]) -> str:
    """Read what a runner still prints, up to its end."""
    assert runner.stdout
    output = runner.stdout.read()
    runner.wait(30)
    return output


def saved(project: Project) -> str:
    """Read what the job has written to its draft."""
    path = project.storage / "drafts/train/job/outputs/made/log"
    return path.read_text() if path.exists() else "nothing"


@pytest.mark.parametrize(
    ("send", "number"),
    [
        (to_process, signal.SIGHUP),
        (twice, signal.SIGINT),
        (to_group, signal.SIGTERM),
        (to_everyone, signal.SIGTERM),
        (to_everyone_from_the_last, signal.SIGHUP),
    ],
)
def test_the_first_signal_to_whomever_saves(
    project: Project, engine: str, token: str, send: Send, number: signal.Signals
) -> None:
    training(project, token)
    runner = project.start("run", "train", "--engine", engine)
    wait_for(runner, "[job] started")
    send(runner, number)
    output = rest(runner)
    assert runner.returncode == 128 + number, output
    assert saved(project).startswith("saved after"), output
    assert project.states(output)["job"] == "stopped"


@pytest.mark.parametrize("engine", ["bubblewrap", "paths"], indirect=True)
def test_a_second_signal_later_ends_at_once(project: Project, engine: str, token: str) -> None:
    training(project, token, seconds=60)
    runner = project.start("run", "train", "--engine", engine)
    wait_for(runner, "[job] started")
    began = time.monotonic()
    runner.send_signal(signal.SIGTERM)
    wait_for(runner, "[job] is saving")
    time.sleep(2.1)
    runner.send_signal(signal.SIGTERM)
    output = rest(runner)
    assert runner.returncode == 128 + signal.SIGTERM, output
    assert time.monotonic() - began < GRACE


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_training_saves_in_whatever_way_a_script_runs_it(
    tmp_path: Path, token: str, shell: str, number: signal.Signals
) -> None:
    output, stop = list[bytes](), Stop()
    stop.raises = False

    def take(data: bytes) -> None:
        output.append(data)
        if b"started" in b"".join(output) and not stop.signal:
            time.sleep(0.2)
            stop(number)

    text = SHELLS[shell].format(saver=shlex.quote(f"{SAVER}# {token}"))
    supervise(text.replace("/outputs/made", str(tmp_path)), tmp_path, take, stop)
    # bash itself goes on after a Ctrl-C that its program has dealt with.
    went_on = "went on\n" * (shell == "plain" and number == signal.SIGINT)
    assert (tmp_path / "log").read_text() == f"saved after {number:d}\n{went_on}", output
    assert b"is saving" in b"".join(output)


def test_what_ignores_the_signal_is_killed_after_a_while(tmp_path: Path, token: str) -> None:
    stop = Stop()
    stop.raises = False
    began = time.monotonic()
    text = f"trap '' TERM; sleep 90.{token} & echo; while :; do sleep 1; done"
    status = supervise(text, tmp_path, lambda data: stop.signal or stop(15), stop)
    assert status == -signal.SIGKILL
    assert GRACE <= time.monotonic() - began < 3 * GRACE


def test_what_starts_beside_each_job_loads_next_to_nothing() -> None:
    python, *rest = processes.supervised(["true"])
    reader, wire = os.pipe()
    done = subprocess.run(
        [python, "-X", "importtime", *rest], stdin=reader, capture_output=True, text=True
    )
    os.close(reader)
    os.close(wire)
    loaded = set(re.findall(r"\| +(\S+)$", done.stderr, re.M))
    assert "supervisor" in loaded and done.returncode == 0, done.stderr
    assert not loaded & {"site", "signal", "enum", "contextlib", "collections", "typing", "re"}


@pytest.mark.parametrize("end", ["by itself", "by a signal", "with the runner"])
@pytest.mark.parametrize("engine", ["bubblewrap", "paths"], indirect=True)
def test_nothing_outlives_its_run_however_it_hides(
    project: Project, engine: str, token: str, end: str
) -> None:
    text = "\n".join(HIDDEN.values()).replace("TOKEN", token)
    last = "sleep 5" if end == "by itself" else "sleep 90"
    project.workflow(script(f"{text}\necho started; {last}"))
    runner = project.start("run", "train", "--engine", engine)
    wait_for(runner, "[job] started")
    until(lambda: len(carrying(token)) >= len(HIDDEN) - 1, 20, "their start")  # one hops
    if end == "with the runner":
        runner.kill()
        until(lambda: not carrying(token), 20, "the end of its processes")
    elif end == "by a signal":
        runner.send_signal(signal.SIGTERM)
    output = rest(runner)
    expected = {"by itself": 0, "by a signal": 143, "with the runner": -9}
    assert runner.returncode == expected[end], output


@pytest.mark.parametrize("way", DRAINS)
def test_the_end_of_the_output_arrives_whole(tmp_path: Path, way: str) -> None:
    output: list[bytes] = []
    began = time.monotonic()
    assert supervise(f"{DRAINS[way]}; seq 20001", tmp_path, output.append) == 0
    assert b"".join(output).replace(b"x", b"").split() == [b"%d" % n for n in range(1, 20002)]
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "daemon", ["", "< <(sleep 90)", "| cat", "> >(cat)"], ids=["alone", "fed", "piped", "drained"]
)
def test_a_daemon_that_prints_for_ever_does_not_hold_the_run(
    tmp_path: Path, token: str, daemon: str
) -> None:
    loop = f"setsid env -i bash -c 'while :; do echo x; done' {token} {daemon} &"
    began = time.monotonic()
    assert supervise(f"{loop} sleep 0.3", tmp_path, lambda data: None) == 0
    assert time.monotonic() - began < 2 * GRACE


def test_a_signal_that_is_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        output: list[bytes] = []
        supervise("kill -HUP $$; echo goes on", tmp_path, output.append)
    finally:
        signal.signal(signal.SIGHUP, ignored)
    assert output == [b"goes on\n"]


# While the runner itself is at work


@pytest.fixture
def silent() -> Iterator[str]:
    """Give the address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_is_heeded_while_outputs_are_hashed(
    project: Project, number: signal.Signals
) -> None:
    text = "truncate -s 60G /outputs/made/big; echo x > /outputs/made/small; echo written"
    project.workflow(script(text, outputs=MADE))
    check_is_heeded(project, "[job] written", number)
    assert (project.storage / "drafts/train/job/outputs/made/small").read_text() == "x\n"
    assert not project.versions("made")


@pytest.mark.parametrize("uses", ["git-checkout@v1", "s3-download@v1"])
def test_a_signal_is_heeded_while_a_server_does_not_answer(
    project: Project, silent: str, uses: str
) -> None:
    options = {
        "git-checkout@v1": f"url: 'http://{silent}/x.git', ref: main",
        "s3-download@v1": f"url: s3://bucket/x, endpoint: 'http://{silent}', "
        "access-key: me, secret-access-key: 'secret:S3_KEY', region: us-east-1",
    }
    if uses == "s3-download@v1":
        pytest.importorskip("boto3", reason="boto3 is not installed")
    project.workflow(
        f"""
        jobs:
          first: {{uses: script@v1, with: {{image: 'bash:5', script: echo done}}}}
          job:
            needs: [first]
            outputs: {{made: {{type: volume}}}}
            uses: {uses}
            with: {{{options[uses]}}}
        """
    )
    check_is_heeded(project, "[first] done", signal.SIGTERM)


def test_a_signal_is_heeded_while_another_run_has_the_lock(project: Project, token: str) -> None:
    project.workflow(script(f"echo started; sleep 60; : {token}"))
    first = project.start("run", "train", "--engine", "paths")
    wait_for(first, "[job] started")
    check_is_heeded(project, "waiting for its end", signal.SIGINT)
    first.send_signal(signal.SIGTERM)
    assert "stopped" in rest(first)


def test_a_signal_is_heeded_while_another_project_has_the_machine(
    make_project: Callable[[str], Project], token: str
) -> None:
    needs_a_machine()
    first, second = make_project("first"), make_project("second")
    first.workflow(script(f"echo started; sleep 60; : {token}"))
    second.workflow(script("echo started"))
    holder = first.start("run", "train", "--engine", "machine")
    wait_for(holder, "[job] started")
    check_is_heeded(second, "engine machine", signal.SIGTERM, "machine")
    holder.send_signal(signal.SIGTERM)
    assert "stopped" in rest(holder)


def test_a_signal_is_heeded_while_a_copy_to_the_storage_hangs(
    project: Project, tmp_path: Path
) -> None:
    # Opening a pipe that nobody reads takes for ever, as a call to a storage may that hangs.
    name = hashlib.sha256(b"x\n").hexdigest()
    folder = project.storage / "drafts/train/job/files" / name[:2]
    folder.mkdir(parents=True)
    os.mkfifo(folder / name)
    project.workflow(script("echo x > /outputs/made/log; echo started; sleep 60", outputs=MADE))
    slow = {
        "GRADLAB_STORAGE_SLOW": "1",
        "GRADLAB_SCRATCH": str(tmp_path / "scratch"),
        "GRADLAB_MIRROR_MINUTES": "0.001",
    }
    output = check_is_heeded(project, "[job] started", signal.SIGTERM, seconds=GRACE + 8, **slow)
    assert "this machine has more of its outputs than the storage" in output
    (left,) = (tmp_path / "scratch").glob("*/drafts/train/job/outputs/made/log")
    assert left.read_text() == "x\n"


def test_a_stop_in_the_notebook_reaches_the_command_at_any_moment(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stops = iter([True])

    def meanwhile() -> None:
        if next(stops, False):
            until((tmp_path / "started").exists)
            signal.raise_signal(signal.SIGINT)

    text = "trap 'echo > saved; exit 5' INT; echo > started; while :; do sleep 0.1; done"
    assert live.show(["bash", "-c", text], tmp_path, os.environ, meanwhile) == 5
    assert (tmp_path / "saved").exists()


def check_is_heeded(
    project: Project,
    line: str,
    number: signal.Signals,
    engine: str = "paths",
    seconds: float = 8,
    **env: str,
) -> str:
    """Run, send a signal a moment after a line, and see the run end soon and in order."""
    runner = project.start("run", "train", "--engine", engine, S3_KEY="s3-k3y", **env)
    wait_for(runner, line)
    time.sleep(1)
    began = time.monotonic()
    runner.send_signal(number)
    output = rest(runner)
    assert runner.returncode == 128 + number, output
    assert time.monotonic() - began < seconds, output
    assert "Traceback" not in output
    assert "carries on from here" in output
    return output
