"""Enough of Kubernetes and Argo to run an exported workflow: its pods, in containers of podman.

Promises, as docs/retries.md, docs/enhanced-depends-logic.md and workflow/controller/operator.go of
Argo v4.1 have them: parameters are replaced in a template's text, variables in its commands;
init containers come first; `depends` says when a task may begin; `retryStrategy` says whether a pod
is tried again, by its exit code, status and message; a mutex lets one workflow run at a time. All
pods have one image in the place of theirs. Pauses between two tries are left out.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..kit import environment

# This Python's own library, for that of the image would be compiled anew in each pod.
LIBRARY = f"/usr/local/lib/python{sys.version_info[0]}.{sys.version_info[1]}"
# What the image of the tests lacks of git, and of what torch is linked with.
SYSTEM = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/git-core", "/usr/share/git-core")
OVER = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted")
WORD = re.compile(r"[A-Za-z][\w-]*(?:\.[A-Z]\w+)?")

Kill = Callable[[str], None]  # KILL, TERM, or DELETE of the pod
Watch = Callable[["Pod", Kill], None]


@dataclass
class Pod:
    """One try of a task, and how it ended."""

    task: str
    attempt: int
    status: str = "Running"
    code: int = -1  # of its main container
    message: str = ""
    log: str = field(default="", repr=False)


@dataclass
class Cluster:
    """A namespace: claims are folders, secrets are values by name and key."""

    folder: Path
    image: str
    claims: Mapping[str, Path] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)  # as if the image had them
    mutexes: dict[str, threading.Lock] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        environment(self.folder / "python")
        # What images of frameworks bring: the packages of this Python, but for the kit.
        self.packages = self.folder / "python" / "base"
        here = {str(path.resolve().parent) for path in self.packages.iterdir()}
        self.mounts = [f"{path}:{path}:ro" for path in sorted({*SYSTEM, *here})]
        self.mounts.append(f"{sysconfig.get_path('stdlib')}:{LIBRARY}:ro")

    def submit(self, text: str, watch: Watch | None = None, **given: str) -> Workflow:
        """Run a manifest to its end; `watch` is called with each pod's main container."""
        workflow = Workflow(self, yaml.safe_load(text), watch, given)
        names = [each["name"] for each in workflow.spec["synchronization"]["mutexes"]]
        (lock,) = (self.mutexes.setdefault(name, threading.Lock()) for name in names)
        with lock:
            workflow.run()
        return workflow


class Workflow:
    """One run of a manifest."""

    def __init__(
        self, cluster: Cluster, data: Any, watch: Watch | None, given: Mapping[str, str]
    ) -> None:
        self.cluster, self.spec, self.watch = cluster, data["spec"], watch
        self.uid = str(uuid.uuid4())
        self.values = {"workflow.uid": self.uid}
        for each in self.spec["arguments"]["parameters"]:
            value = given.get(each["name"], each.get("value"))
            assert value is not None, f"the parameter {each['name']} has no value"
            self.values[f"workflow.parameters.{each['name']}"] = value
        self.templates = {each["name"]: self.filled(each) for each in self.spec["templates"]}
        self.states: dict[str, str] = {}
        self.pods: list[Pod] = []
        self.most = self.now = 0  # pods at once
        self.lock = threading.Lock()

    def filled(self, template: Any) -> Any:
        """Replace parameters in a template's text; what is unknown is an error, as in Argo."""

        def value(match: re.Match[str]) -> str:
            return json.dumps(self.values[match[1]])[1:-1]

        return json.loads(re.sub(r"\{\{([^{}]+)\}\}", value, json.dumps(template)))

    @property
    def succeeded(self) -> bool:
        return set(self.states.values()) == {"Succeeded"}

    def codes(self, task: str) -> list[int]:
        """Give the exit codes of a task's tries, in their order."""
        return [pod.code for pod in self.pods if pod.task == task]

    def said(self) -> str:
        """Give all that the pods have printed."""
        return "\n".join(f"{pod}\n{pod.log}" for pod in self.pods)

    def run(self) -> None:
        graph = self.templates[self.spec["entrypoint"]]
        # Else the whole of it would be done again after any failure.
        assert "retryStrategy" not in graph and "templateDefaults" not in self.spec
        tasks = {task["name"]: task for task in graph["dag"]["tasks"]}
        running: dict[Any, str] = {}
        with ThreadPoolExecutor(8) as pool:
            while len(self.states) < len(tasks) or running:
                for name, task in tasks.items():
                    if name in self.states or name in running.values():
                        continue
                    ready = self.may_begin(task.get("depends", ""))
                    if ready:
                        template = self.templates[task["template"]]
                        running[pool.submit(self.tried, name, template)] = name
                    elif ready is False:
                        self.states[name] = "Omitted"
                for future in wait(running, 1, FIRST_COMPLETED).done:
                    self.states[running.pop(future)] = future.result()

    def may_begin(self, depends: str) -> bool | None:
        """Tell whether a task may begin, None while what it waits for goes on."""
        words = {word.partition(".")[0] for word in WORD.findall(depends)}
        if not words <= self.states.keys():
            return None

        def value(match: re.Match[str]) -> str:
            name, _, state = match[0].partition(".")
            return str(self.states[name] in ((state,) if state else ("Succeeded", "Skipped")))

        text = WORD.sub(value, depends).replace("&&", " and ").replace("||", " or ")
        return bool(eval(text.replace("!", " not "))) if text else True

    def tried(self, name: str, template: Any) -> str:
        """Run pods of a task until one succeeds or its retryStrategy says no; give its state."""
        strategy = template["retryStrategy"]
        assert strategy["retryPolicy"] == "Always"
        for attempt in itertools.count():
            pod = Pod(name, attempt)
            with self.lock:
                self.pods.append(pod)
                self.now += 1
                self.most = max(self.most, self.now)
            self.run_pod(pod, template)
            with self.lock:
                self.now -= 1
            if pod.status == "Succeeded":
                return "Succeeded"
            if attempt >= int(strategy["limit"]) or not retried(strategy["expression"], pod):
                return "Failed" if pod.status == "Failed" else "Errored"
        raise AssertionError

    def run_pod(self, pod: Pod, template: Any) -> None:
        folder = self.cluster.folder / f"{self.uid[:8]}-{pod.task}-{pod.attempt}"
        name, deleted = f"gradlab-{folder.name}", threading.Event()
        volumes = {each["name"]: self.volume(each, folder) for each in self.spec["volumes"]}
        for container in template.get("initContainers", []):
            code, _ = self.container(f"{name}-init", container, volumes, pod)
            if code:
                pod.status = "Failed"
                pod.message = f"{container['name']}: Error (exit code {code})"
                if code in (137, 143):
                    pod.message = "pod failed: neither main nor wait container completed"
                return

        def kill(how: str) -> None:
            if how == "DELETE":
                deleted.set()
            number = "KILL" if how == "DELETE" else how
            subprocess.run(["podman", "kill", "-s", number, name], capture_output=True)

        over = threading.Event()
        if self.watch:
            watcher = threading.Thread(target=self.watch, args=(pod, kill), daemon=True)
            watcher.start()
        pod.code, out_of_memory = self.container(name, template["container"], volumes, pod)
        over.set()
        reason = "OOMKilled" if out_of_memory else "Error"
        pod.status = "Failed" if pod.code else "Succeeded"
        pod.message = f"main: {reason} (exit code {pod.code})" if pod.code else ""
        if deleted.is_set() and pod.code:
            pod.status, pod.code, pod.message = "Error", -1, "pod deleted"

    def volume(self, volume: Any, folder: Path) -> Path:
        """Give the folder that is mounted as a volume."""
        if "persistentVolumeClaim" in volume:
            return self.cluster.claims[volume["persistentVolumeClaim"]["claimName"]]
        assert "emptyDir" in volume, volume
        place = folder / str(volume["name"])
        place.mkdir(parents=True)
        return place

    def container(
        self, name: str, container: Any, volumes: Mapping[str, Path], pod: Pod
    ) -> tuple[int, bool]:
        """Run a container to its end; give its exit code, and whether memory was too little."""
        env = dict(self.cluster.env)
        for each in container.get("env", []):
            if (value := self.value(each, env)) is not None:
                env[each["name"]] = value
        file = self.cluster.folder / f"{name}.env"
        file.write_text("".join(f"{key}={value}\n" for key, value in env.items()))
        words = [*container["command"], *container.get("args", [])]
        program, *rest = (expanded(word, env) for word in words)
        command = ["podman", "run", f"--name={name}", "--network=host", "--pull=never"]
        command += [f"--env-file={file}", f"--entrypoint={program}"]
        command += [f"--volume={mount}" for mount in self.cluster.mounts]
        own = shutil.copytree(self.cluster.packages, self.cluster.folder / name, symlinks=True)
        command.append(f"--volume={own}:{LIBRARY}/site-packages")
        for mount in container.get("volumeMounts", []):
            if mount["mountPath"] != "/dev/shm":  # podman has its own
                command.append(f"--volume={volumes[mount['name']]}:{mount['mountPath']}")
        if "workingDir" in container:
            command.append(f"--workdir={container['workingDir']}")
        command += [self.cluster.image, *rest]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        pod.log += done.stdout
        look = ["podman", "inspect", "--format={{.State.OOMKilled}}", name]
        oom = subprocess.run(look, capture_output=True, text=True).stdout.strip()
        subprocess.run(["podman", "rm", "--force", name], capture_output=True)
        return done.returncode, oom == "true"

    def value(self, each: Any, env: Mapping[str, str]) -> str | None:
        """Give a variable's value, None for an optional one that the secret lacks."""
        if "value" in each:
            return expanded(each["value"], env)
        reference = each["valueFrom"]["secretKeyRef"]
        found = self.cluster.secrets.get(reference["name"], {}).get(reference["key"])
        assert found is not None or reference.get("optional"), f"no secret {reference}"
        return found


def expanded(text: str, env: Mapping[str, str]) -> str:
    """Replace $(NAME) as Kubernetes does in commands and variables, where NAME is known."""
    return re.sub(
        r"\$(\$|\(([^()]*)\))",
        lambda m: "$" if m[1] == "$" else env.get(m[2], m[0]),
        text,
    )


def retried(expression: str, pod: Pod) -> bool:
    """Judge a pod by a retryStrategy's expression."""
    text = re.sub(r"lastRetry\.message contains ('[^']*')", r"\1 in message", expression)
    text = text.replace("lastRetry.status", "status").replace("lastRetry.exitCode", "code")
    names = {"status": pod.status, "code": str(pod.code), "message": pod.message, "asInt": int}
    return bool(eval(text, {"__builtins__": {}}, names))
