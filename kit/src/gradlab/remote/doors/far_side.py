"""Begins a hop on the other side: gets the code, installs it, and runs it there.

It is sent as text, with CONFIG filled in, and run by a service's Python. Promises: needs the
standard library only. Secrets are read by the door's own means and go to the run's environment;
their file is removed. What can't be done is one line that begins with MARK.
"""

import base64
import glob
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

CONFIG: Any = {}  # filled in by bootstrap.py
MARK = "gradlab: the run could not begin: "
LINES = 30  # of a command that fails
WAIT = 60.0  # seconds for what arrives late


class CannotBegin(Exception):
    """Why not."""


def main() -> int:
    """Do the hop; give the exit code of the run."""
    try:
        env = environment(bag())
        folder = code(env)
        install(folder, env)
    except CannotBegin as error:
        print(MARK + str(error), flush=True)
        return 1
    return run(folder, env)


def bag() -> Any:
    """Read the secrets; raises CannotBegin where they are not there."""
    if "GRADLAB_BAG" in os.environ:
        return json.loads(os.environ.pop("GRADLAB_BAG"))
    end = time.monotonic() + WAIT
    while CONFIG["bag"]:
        for path in glob.glob(CONFIG["bag"], recursive=True):
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
            with suppress(OSError):  # where it is read-only, the door removes it
                os.unlink(path)
            return found
        if time.monotonic() > end:
            raise CannotBegin(f"its secrets are not here: no file {CONFIG['bag']}")
        time.sleep(0.5)
    return {}


def environment(secrets: Any) -> dict[str, str]:
    """Give the environment of the run."""
    env = {**os.environ, **secrets.get("env", {})}
    for name, text in secrets.get("files", {}).items():
        handle, env[name] = tempfile.mkstemp(prefix="gradlab-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    env.update(CONFIG["env"], PYTHONUNBUFFERED="1", GIT_TERMINAL_PROMPT="0")
    env["GRADLAB_HOP_ENDS"] = str(time.time() + CONFIG["seconds"])
    return env


def code(env: dict[str, str]) -> str:
    """Get the commit into a folder of its own; give the folder."""
    folder = os.path.join(place(), "code")
    url, commit = CONFIG["url"], CONFIG["commit"]
    do(["git", "init", "--quiet", folder], env)
    access = dict(env)
    token = env.pop("GRADLAB_GIT_TOKEN", "")
    access.pop("GRADLAB_GIT_TOKEN", None)
    if token:
        site = urlsplit(url)
        login = base64.b64encode(("x-access-token:" + token).encode()).decode()
        access["GIT_CONFIG_COUNT"] = "1"
        access["GIT_CONFIG_KEY_0"] = f"http.{site.scheme}://{site.netloc}/.extraHeader"
        access["GIT_CONFIG_VALUE_0"] = "Authorization: Basic " + login
    do(["git", "-C", folder, "fetch", "--quiet", "--depth=1", "--", url, commit], access)
    do(["git", "-C", folder, "checkout", "--quiet", "--detach", "FETCH_HEAD"], env)
    do(["git", "-C", folder, "remote", "add", "origin", url], env)
    return os.path.join(folder, str(CONFIG["below"]))


def place() -> str:
    """Make the folder of this hop, on a disk that is not kept."""
    for top in CONFIG["folders"]:
        if os.path.isdir(top) and os.access(top, os.W_OK):
            folder = os.path.join(top, str(CONFIG["env"]["GRADLAB_HOP"]))
            os.makedirs(folder, exist_ok=True)
            return folder
    return tempfile.mkdtemp(prefix="gradlab-")


def install(folder: str, env: dict[str, str]) -> None:
    """Install the project beside what is there, and the client of the storage."""
    if not CONFIG["install"]:
        return
    wheels = sorted(glob.glob(os.path.join(folder, "vendor", "gradlab-*.whl")))
    if not wheels:
        raise CannotBegin("the commit has no vendor/gradlab-*.whl: commit the kit's wheel there")
    own = {**env, "PYTHONPATH": wheels[-1]}
    do([sys.executable, "-m", "gradlab.notebook.install"], own, folder)
    if CONFIG["extra"]:
        target = "gradlab[" + CONFIG["extra"] + "]"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input"]
        do([*pip, "--find-links", "vendor", target], env, folder)


def run(folder: str, env: dict[str, str]) -> int:
    """Run the workflow, and pass on what it prints; give its exit code."""
    command = [sys.executable, "-m", "gradlab.remote.doors.hop", CONFIG["workflow"]]
    with subprocess.Popen(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            print(line, end="", flush=True)
    return process.returncode


def do(command: list[str], env: dict[str, str], folder: str = "/") -> None:
    """Run a command; raises CannotBegin with the end of what it says."""
    done = subprocess.run(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    if done.returncode:
        said = "\n".join(done.stdout.strip().splitlines()[-LINES:])
        print(said, flush=True)
        last = said.splitlines()[-1] if said else "nothing"
        raise CannotBegin(f"{' '.join(command[:3])} ended with {done.returncode}: {last}")


if __name__ == "__main__":
    sys.exit(main())
