"""What a job finds in each engine, and what it leaves: nothing but its outputs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradlab.engines import mapping

from .conftest import IMAGE, Project

CHECKOUT = {
    "outputs": {"repo": {"type": "volume"}},
    "uses": "git-checkout@v1",
    "with": {"url": "context.event.github.url"},
}
needs_root = pytest.mark.skipif(bool(os.getuid()), reason="what only root could do")


def workflow(project: Project, jobs: Mapping[str, dict[str, Any]]) -> None:
    """Write a workflow of jobs."""
    project.workflow(yaml.safe_dump({"jobs": jobs}, sort_keys=False))


def script(text: str, **more: Any) -> dict[str, Any]:
    """Give a job that runs a script, which ends where a command of it fails."""
    text = "set -e\n" + textwrap.dedent(text)
    return {"uses": "script@v1", **more, "with": {"image": "bash:5", "script": text}}


def says(text: str, **more: Any) -> dict[str, Any]:
    """Give such a job with a string, `said`, that it has to write."""
    return script(text, outputs={"said": {"type": "string"}}, **more)


def with_code(project: Project, texts: Mapping[str, str]) -> None:
    """Write a workflow of jobs that find this project's files in /inputs/repo."""
    reads: dict[str, Any] = {"needs": ["checkout"], "inputs": {"repo": "checkout.outputs.repo"}}
    jobs = {name: says(text, **reads) for name, text in texts.items()}
    workflow(project, {"checkout": CHECKOUT, **jobs})


def said(output: str) -> dict[str, str]:
    """Read what each job has said from the table at a run's end."""
    rows = [line.split() for line in output.rpartition("\n-----")[2].splitlines()]
    return {row[0]: row[-1].partition("said=")[2] for row in rows if row and "said=" in row[-1]}


# Where people's scripts copy their code to, and how.
COPIES = {
    "tmp": "cp -R /inputs/repo /tmp/code; cd /tmp/code",
    "root": "cp -R /inputs/repo /gradlab-a; cd /gradlab-a",
    "deeper": "mkdir -p /gradlab-b/a && cp -R /inputs/repo/. /gradlab-b/a/\ncd '/gradlab-b/a'",
    "variable": 'CODE=/gradlab-c\ncp -R /inputs/repo "$CODE"\ncd "${CODE}"',
    "option": "mkdir /gradlab-d; tar c -C /inputs/repo . | tar x -C /gradlab-d\ncd /gradlab-d",
    "up": "cp -R /inputs/repo /; cd /repo",
    "stay": "cd / && cp -R inputs/repo gradlab-e && cd gradlab-e",
    "home": "cp -R /inputs/repo ~/code; cd $HOME/code",
    "here": "cp -R /inputs/repo code; cd code",
    "line": "cp -R \\\n  /inputs/repo \\\n  /gradlab-f\ncd /gradlab-f",
    "temporary": 'd=$(mktemp -d); cp -R /inputs/repo/. "$d"; cd "$d"',
}


def test_code_that_is_copied_somewhere_is_never_that_of_an_earlier_run(
    project: Project, engine: str
) -> None:
    before = set(os.listdir("/"))
    run = "; python hello.py | tee /tmp/said > /outputs/said; cmp /tmp/said /outputs/said"
    with_code(project, {name: text + run for name, text in COPIES.items()})
    for word in ("first", "second"):
        (project.root / "hello.py").write_text(f"print('{word}')\n")
        assert said(project.ok("run", "train", "--engine", engine)) == dict.fromkeys(COPIES, word)
    assert set(os.listdir("/")) <= before | {"inputs", "outputs"}
    assert not [path for path in (project.storage / "drafts").rglob("*") if path.is_file()]


def test_jobs_that_run_at_once_share_no_folder(project: Project, engine: str) -> None:
    text = """
        mkdir -p /gradlab-g
        for place in /tmp ~ /gradlab-g .; do echo NAME >> $place/x; done
        touch /tmp/began; sleep 0.7
        cat /tmp/x ~/x /gradlab-g/x x | sort -u > /outputs/said
    """
    names = ("a", "b")
    workflow(project, {name: says(text.replace("NAME", name)) for name in names})
    assert said(project.ok("run", "train", "--engine", engine)) == {"a": "a", "b": "b"}


@pytest.mark.parametrize("deep", ["deep" * 20, "with a blank"])
def test_a_job_can_make_a_socket_however_deep_the_storage_lies(
    project: Project, engine: str, deep: str
) -> None:
    listener = "multiprocessing.connection.Listener(family='AF_UNIX')"
    text = f'python -c "import multiprocessing.connection; {listener}" && echo made > /outputs/said'
    workflow(project, {"job": says(text)})
    storage = str(project.root / deep)
    output = project.ok("run", "train", "--engine", engine, GRADLAB_STORAGE=storage)
    assert said(output) == {"job": "made"}


# What a script makes at the root, and what only looks like it.
MADE_THERE = {
    "git clone https://example.com/a/b /b; cd /b": {"b"},
    "mkdir -p {/work1,/work2}; cd /work2": {"work1", "work2"},
    "for d in a b; do mkdir -p /stuff/$d; done": {"stuff"},
    "OUT=/result; python train.py --output-dir $OUT; cp -r $OUT /outputs/r": {"result"},
    "python train.py --output_dir /result/x; ls /result": {"result"},
    "cat <<EOF > /cfg/a.yaml\nroot: /cfg/data\nEOF": {"cfg"},
    "rm -rf /code; cp -a /inputs/repo/. /code/; export PYTHONPATH=/code:/inputs/repo/src": {"code"},
    "mv /inputs/repo /m1 || true\nunzip -q a.zip -d /m2": {"m1", "m2"},
    "install -d /s2; rsync -a /inputs/repo/ /s3/; touch /s4": {"s2", "s3", "s4"},
    "curl -sL http://x/y -o /dl/file; wget -O /dl2/f http://a/b/c": {"dl", "dl2"},
    "ln -s /inputs/data /data; ls /data/train": {"data"},
    "sed 's/ /x/' a | awk '/pattern/ {print}' > /outputs/x/y": set(),
    "pip install /wheels/x.whl; mkdir -p /etc/x /usr/local/y /tmp/z ~/w ./v": set(),
    "echo a 2> /dev/null; test -e /proc/1 && ls /elsewhere": set(),
}


@pytest.mark.parametrize("script", MADE_THERE)
def test_the_folders_that_a_script_makes_at_the_root_are_found(script: str) -> None:
    names = mapping.made_at_root(script, {}, ["/home/me/project"])
    assert names == MADE_THERE[script]
    real = mapping.replacer({name: f"/job/{name}" for name in names}, "/job", [])
    assert not [name for name in names if f" /{name}" in real(script)]
    assert names or real(script) == script


def wheel(folder: Path, name: str, version: str) -> None:
    """Write a wheel with one module and one program, both of which tell its version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"def main():\n    print('{version}')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}-program = {name}:main\n",
    }
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
        archive.writestr(f"{info}/RECORD", record)


# fqdn is installed here, and no test needs it: a job may have another version of it.
INSTALLS = {
    "one": ("pip install {} gradlab_tiny==1.0", "gradlab_tiny", "1.0"),
    "two": ("pip3 install --user {} gradlab_tiny==2.0", "gradlab_tiny", "2.0"),
    "newer": ("python -m pip install --upgrade {} fqdn", "fqdn", "99.0"),
}


def test_what_a_job_installs_is_its_own_and_gone_with_it(project: Project, engine: str) -> None:
    for name, version in (("gradlab_tiny", "1.0"), ("gradlab_tiny", "2.0"), ("fqdn", "99.0")):
        wheel(project.root / "wheels", name, version)
    texts = {"none": "! python -c 'import gradlab_tiny'; echo none > /outputs/said"}
    for name, (command, module, _) in INSTALLS.items():
        install = command.format("--quiet --no-index --find-links /inputs/repo/wheels")
        run = f"python -c 'import {module}; {module}.main()' > /outputs/said"
        program = f'PATH=~/.local/bin:$PATH\ntest "$({module}-program)" = "$(cat /outputs/said)"'
        texts[name] = f"{install}\n{run}\n{program}"
    with_code(project, texts)
    expected = {name: version for name, (_, _, version) in INSTALLS.items()} | {"none": "none"}
    assert said(project.ok("run", "train", "--engine", engine)) == expected
    here = "import fqdn, importlib.util; print(importlib.util.find_spec('gradlab_tiny'))"
    check = subprocess.run([sys.executable, "-c", here], capture_output=True, text=True, check=True)
    assert check.stdout == "None\n"


# An image has its own.
@pytest.mark.parametrize("engine", ["bubblewrap", "machine", "paths"], indirect=True)
def test_the_packages_and_programs_of_this_python_are_there_for_a_job(
    project: Project, engine: str
) -> None:
    text = """
        python -c 'import numpy, sys; print(sys.version_info[1])' > /outputs/said
        test "$(python3 -c 'import yaml, sys; print(sys.executable)')" = "$(which python3)"
        pytest --version
    """
    workflow(project, {"a": says(text)})
    output = project.ok("run", "train", "--engine", engine)
    assert said(output) == {"a": str(sys.version_info[1])}


@needs_root
@pytest.mark.parametrize("engine", ["bubblewrap", "container"], indirect=True)
def test_root_changes_the_system_for_its_job_alone(project: Project, engine: str) -> None:
    places = ("/etc/gradlab-x", "/usr/bin/gradlab-x", "/var/lib/gradlab-x", "/root/gradlab-x")
    text = f"""
        for place in {" ".join(places)} /gradlab-x; do
          test ! -e $place; echo 'echo new' > $place; chmod +x $place
        done
        chown 1234:1234 /etc/gradlab-x
        rm /usr/bin/seq; gradlab-x > /outputs/said; test ! -e /usr/bin/seq
    """
    workflow(project, {"a": says(text), "b": says(text)})
    assert said(project.ok("run", "train", "--engine", engine)) == {"a": "new", "b": "new"}
    assert not [place for place in places if os.path.lexists(place)]
    assert os.path.exists("/usr/bin/seq")


def test_a_job_that_dies_of_a_signal_fails_and_says_which(project: Project, engine: str) -> None:
    workflow(project, {"job": script("exec bash -c 'kill -SEGV $$'")})
    output = project.run("run", "train", "--engine", engine).stdout
    assert re.search(r"job failed: (ended by signal 11|its exit status is 139)\b", output), output


# What root could do to what it reads, or to the machine, if it had all of its powers.
ATTACKS = """
    echo x >> /inputs/d/x
    mount -o remount,rw,bind /inputs/d && echo x >> /inputs/d/x
    mount -o remount,rw /inputs/d && echo x >> /inputs/d/x
    mount -t tmpfs none /inputs/d
    umount /inputs/d
    unshare -m true
    unshare -rm mount -o remount,rw,bind /inputs/d
    unshare -rm umount /inputs/d
    rm /inputs/d/x
    mv /inputs/d /inputs/d/d
    touch /inputs/d/new
    chmod 777 /inputs/d/x
    chown 1234 /inputs/d/x
    touch /inputs/d/x
    truncate -s 0 /inputs/d/x
    ln /inputs/d/x /tmp/x
    mknod /tmp/disk b 254 0
    mknod /tmp/memory c 1 1
    : > /proc/sysrq-trigger
    panic=$(cat /proc/sys/kernel/panic); echo $panic > /proc/sys/kernel/panic
    name=$(cat /proc/sys/kernel/core_pattern); echo "$name" > /proc/sys/kernel/core_pattern
    mkdir /sys/fs/cgroup/memory/gradlab-x
    run=$(cat /sys/kernel/mm/ksm/run); echo $run > /sys/kernel/mm/ksm/run
    date -s "$(date)"
    test -e /run/docker.sock
    test -e /run/podman/podman.sock
    test -e /dev/vda
    test -e /dev/kmsg
"""


@needs_root
@pytest.mark.parametrize("engine", ["bubblewrap", "container"], indirect=True)
def test_root_in_a_job_can_change_no_version_and_no_machine(project: Project, engine: str) -> None:
    tries = [line.strip() for line in ATTACKS.strip().splitlines()]
    text = "".join(f"if ( {t} ) 2>/dev/null; then echo DONE {shlex.quote(t)}; fi\n" for t in tries)
    made = {"d": {"type": "dataset", "with": {"ref": "d"}}}
    reads: dict[str, Any] = {"needs": ["make"], "inputs": {"d": "make.outputs.d"}}
    make = script("echo good > /outputs/d/x", outputs=made)
    workflow(project, {"make": make, "spoil": script(text, **reads)})
    output = project.ok("run", "train", "--engine", engine)
    assert "DONE" not in output
    (version,) = project.versions("d")
    assert (version / "data" / "x").read_text() == "good\n"
    assert "ok" in project.ok("datasets", "verify")


# container@v1

ACTIONS: dict[str, dict[str, Any]] = {
    "args": {"args": ["python", "-c", "open('/outputs/said', 'w').write('yes')"]},
    "shell": {"args": ["bash", "-c", "echo yes > /outputs/said"]},
    "path": {"args": ["/bin/sh", "-c", "echo yes > /outputs/said"]},
    "both": {"command": "bash", "args": ["-c", "printf yes > /outputs/said"]},
    "list": {"command": ["bash", "-c"], "args": ["echo yes | tee /outputs/said"]},
}


def container(outputs: Mapping[str, Any], image: str = "bash:5", **more: Any) -> dict[str, Any]:
    """Give a job of container@v1."""
    return {"uses": "container@v1", "outputs": outputs, "with": {"image": image, **more}}


def test_a_container_action_runs_the_program_that_its_arguments_begin_with(
    project: Project, engine: str
) -> None:
    string = {"said": {"type": "string"}}
    workflow(project, {name: container(string, **what) for name, what in ACTIONS.items()})
    output = project.ok("run", "train", "--engine", engine)
    assert said(output) == dict.fromkeys(ACTIONS, "yes")


def test_an_image_with_a_program_of_its_own_gets_the_arguments(project: Project) -> None:
    if not IMAGE:
        pytest.skip("no image for it (GRADLAB_TEST_IMAGE; tests/image.py makes one)")
    workflow(project, {"a": container({}, image=f"{IMAGE}-seq", args=["7", "8"])})
    assert "[a] 7\n[a] 8\n" in project.ok("run", "train", "--engine", "container")


@pytest.mark.parametrize("what", [{}, {"args": ["--epochs=3"]}, {"command": "no-such-program"}])
def test_a_container_action_whose_program_is_not_here_is_refused_before_anything_runs(
    project: Project, what: dict[str, Any]
) -> None:
    workflow(project, {"first": script("echo began"), "job": container({}, **what)})
    text = project.fails(2, "run", "train", "--engine", "paths")
    assert "job 'job': container@v1 needs " in text and "--engine container" in text
    assert "began" not in text


# The job's own environment

VARIABLES = {
    "PATH": "/opt/conda/bin:/nowhere",
    "HOME": "/tmp/elsewhere",
    "TMPDIR": "/tmp",
    "XDG_RUNTIME_DIR": "/nowhere",
    "DOCKER_HOST": "tcp://127.0.0.1:1",
    "CONTAINER_HOST": "tcp://127.0.0.1:1",
    "CONTAINERS_CONF": "/nowhere/containers.conf",
    "LD_LIBRARY_PATH": "/nowhere",
    "GREETING": "hello, world = $HOME #1",
}


def test_a_jobs_environment_is_the_jobs_and_not_the_engines(project: Project, engine: str) -> None:
    # A podman that tells with which HOME and PATH it is called.
    told, programs = project.root / "told", project.root / "programs"
    programs.mkdir()
    podman = shutil.which("podman") or "/bin/false"
    (programs / "podman").write_text(
        f'#!/bin/bash\necho "$HOME $PATH" >> {told}\nexec {podman} "$@"\n'
    )
    (programs / "podman").chmod(0o755)
    text = """
        printf '%s\\n' "$GREETING"; echo "home ${HOME##*/}; docker $DOCKER_HOST"
        case ":$PATH:" in *:/opt/conda/bin:/nowhere:*) echo path;; esac
        python -c 'print("python")' > /outputs/said
    """
    workflow(project, {"job": says(text, env=VARIABLES)})
    path = f"{programs}:{project.env['PATH']}"
    output = project.ok("run", "train", "--engine", engine, PATH=path, HOME="/root")
    assert said(output) == {"job": "python"}
    assert f"[job] {VARIABLES['GREETING']}\n" in output
    assert "[job] home elsewhere; docker tcp://127.0.0.1:1\n[job] path\n" in output
    calls = told.read_text().splitlines() if told.exists() else []
    assert set(calls) == ({f"/root {path}"} if engine == "container" else set())


def test_shared_memory_is_as_large_as_a_loaders_workers_need(project: Project, engine: str) -> None:
    text = "df --output=size /dev/shm | tail -n 1 > /outputs/said"
    workflow(project, {"job": says(text)})
    (size,) = said(project.ok("run", "train", "--engine", engine)).values()
    assert int(size) > 1 << 19, "KiB"
