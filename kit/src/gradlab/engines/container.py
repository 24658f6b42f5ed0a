"""The engine `container`: docker or podman, in the job's own image."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ..base.errors import GradlabError
from . import own_root
from .environment import common, offline
from .local import Launch, Local
from .own_root import OWN, ROOT
from .protocol import Task, problem_of

STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What docker and podman heed themselves. HOME is where the user's logins and images are.
CLIENTS_OWN = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|XDG_\w+|(DOCKER|CONTAINERS?|PODMAN|BUILDAH|STORAGE)_\w+"
    r"|REGISTR\w+|LD_\w+|GO\w+|SSL_CERT_\w+|DBUS_\w+|NOTIFY_SOCKET|LISTEN_\w+|SSH_\w+|_\w+"
    r"|(?i:\w*_proxy)|MALLOC_\w+|GCONV_PATH|LOCPATH"
)


# The first process of a container takes no signal that it doesn't catch: the script would go on
# with its next command. As its child it ends; who catches the signal has time to save, and who
# reads from a pipe to pass on what is in it.
START = """\
set -m
trap told=1 HUP INT TERM
bash {own}/job.sh &
job=$!
while :; do wait $job; status=$?; kill -0 $job || break; done 2>/dev/null
others() { set -- /proc/[0-9]*; [ $# -gt 1 ]; }
readers() {
  for each in /proc/[0-9]*; do
    case $(readlink $each/fd/0) in pipe:*) return 0;; esac
  done
  return 1
}
for each in {1..100}; do
  if [ "$told" ]; then others; else readers; fi || break
  sleep 0.1
done 2>/dev/null
exit $status
"""


class Container(Local):
    """The job's own image, by docker or podman."""

    name, parallel, read_only, caveat = "container", True, True, ""

    def __init__(self, program: str) -> None:
        self.program = shutil.which(program) or program

    @classmethod
    def find(cls, images: Sequence[str], pull: bool) -> Container | str:
        """Give a working engine that has the images, or may pull them; else what is wrong."""
        problem = "neither docker nor podman is installed"
        for program in filter(shutil.which, ("docker", "podman")):
            engine = cls(program)
            problem = problem_of([program, "version"]) or ("" if pull else engine._lacks(images))
            if not problem:
                return engine
        return problem

    def _lacks(self, images: Sequence[str]) -> str:
        """Say which image is not here or can't be run, or nothing."""
        for image in images:
            if problem_of([self.program, "image", "inspect", image]):
                return f"{image} isn't on this machine (--engine container pulls it)"
        probe = [self.program, "run", "--rm", *self._options(), "--entrypoint=sh"]
        return problem_of([*probe, images[0], "-c", "exit 0"]) if images else ""

    @contextmanager
    def launch(self, task: Task) -> Iterator[Launch]:
        name = "gradlab-" + hashlib.sha256(task.mark.encode()).hexdigest()[:16]
        remove = [self.program, "rm", "--force", name]
        subprocess.run(remove, capture_output=True)
        own_root.discard(task.folder)
        program = _started(task)
        env = {"HOME": "/tmp/home", **common(task, time.time()), **task.env}
        if "PATH" in env:  # bash is to be found all the same
            env["PATH"] += f":{STANDARD_PATH}"
        given, client = _apart(env)
        options = [f"--name={name}", "--workdir=/tmp", *(f"--env={name}" for name in client)]
        command = (self.program, "run", "--rm", *options, *self._options(), *_mounts(task))
        if task.script is not None or task.program:
            command += (f"--entrypoint={program[0]}",)
            program = program[1:]

        def tell(number: int) -> None:
            # All processes: a shell that waits for its child would not pass the signal on.
            kill = ["exec", name, "sh", "-c", f"kill -{number} 1 -1"]
            subprocess.run([self.program, *kill], capture_output=True)

        try:
            with _env_file(given) as file:
                command += (f"--env-file={file}", task.image, *program)
                yield Launch(command, {**os.environ, **client}, tell)
        finally:
            subprocess.run(remove, capture_output=True)
            own_root.discard(task.folder)

    def _options(self) -> list[str]:
        options = ["--security-opt=label=disable", "--security-opt=no-new-privileges"]
        options += ["--cap-drop=ALL", *(f"--cap-add={name}" for name in own_root.CAPABILITIES)]
        # Workers of torch's own loader hand on batches in shared memory; 64 MiB are the default.
        options += [f"--shm-size={_half_of_memory()}"] + ["--network=none"] * offline()
        if os.getuid():  # outputs are to belong to the user, not to root
            user = f"--user={os.getuid()}:{os.getgid()}"
            options.append(
                "--userns=keep-id" if os.path.basename(self.program) == "podman" else user
            )
        if shutil.which("nvidia-smi"):
            podman = os.path.basename(self.program) == "podman"
            options.append("--device=nvidia.com/gpu=all" if podman else "--gpus=all")
        return options


def _mounts(task: Task) -> Iterator[str]:
    if task.script is not None:
        own = task.folder / ROOT / OWN
        yield f"--mount=type=bind,source={own},target=/{OWN},readonly"
    for place in ("tmp", "outputs"):
        yield f"--mount=type=bind,source={task.folder / place},target=/{place}"
    for name, source in task.inputs.items():
        yield f"--mount=type=bind,source={source},target=/inputs/{name},readonly"


def _started(task: Task) -> tuple[str, ...]:
    """Give the command line of a task in a container."""
    program = task.command(f"/{OWN}")
    if task.script is None:
        return program
    start = START.replace("{own}", f"/{OWN}")
    (task.folder / ROOT / OWN / "start.sh").write_text(start, "utf-8")
    return ("bash", f"/{OWN}/start.sh")


def _apart(env: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Part a job's environment into what would change the client's own work, and the rest."""
    given = {name: value for name, value in env.items() if CLIENTS_OWN.fullmatch(name)}
    for name, value in given.items():
        if "\n" in value:
            raise GradlabError(f"the variable {name} has several lines, which no container takes")
    return given, {name: value for name, value in env.items() if name not in given}


@contextmanager
def _env_file(env: Mapping[str, str]) -> Iterator[str]:
    """Give a file of variables that is on no disk, for values may be secrets."""
    text = "".join(f"{name}={value}\n" for name, value in env.items())
    if not hasattr(os, "memfd_create"):  # a Mac
        with tempfile.NamedTemporaryFile("w", prefix="gradlab-") as named:
            named.write(text)
            named.flush()
            yield named.name
        return
    with os.fdopen(os.memfd_create("env"), "w") as file:
        file.write(text)
        file.flush()
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
