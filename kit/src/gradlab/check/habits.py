"""What people write who come from another system, and what would do here.

Promises: advice names the key, action or form that does on Gradient what was meant; where nothing
is known it is empty. Other systems' spellings (`dockerImage`, `docker_image`) are one here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from .words import CANDIDATES, Path, load

# What stands where; the parameters of an action stand in its job's `with`.
_JOB = ("needs", "inputs", "outputs", "env", "resources", "timeout", "uses", "with")
_ROOT = ("on", "jobs", "defaults", "context")
_PARAMETERS = {
    "script@v1": "image script",
    "container@v1": "image command args",
    "git-checkout@v1": "url ref path username password",
    "s3-download@v1": "url access-key secret-access-key region endpoint path",
    "create-model@v1": "name type",
}
_ALL_PARAMETERS = {word for words in _PARAMETERS.values() for word in words.split()}

_TABLES = load("habits")
_SHARED = _TABLES["shared"]
TRIGGER = _SHARED["@trigger"]


def plain(key: str) -> str:
    """Write a key as Gradient spells: `instanceType` and `INSTANCE_TYPE` as `instance-type`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", key)
    return re.sub(r"[\s_.-]+", "-", words).strip("-").lower()


def level(path: Path, action: str) -> str:
    """Say what kind of mapping a path leads to; `action` is what the path's job uses."""
    match path:
        case ():
            return "root"
        case ("defaults",):
            return "defaults"
        case ("jobs", _):
            return "job"
        case ("jobs", _, "with"):
            return action
        case (*_, "resources"):
            return "resources"
        case (*_, "inputs" | "outputs", _):
            return "port"
        case (*_, "inputs" | "outputs", _, "with"):
            return "values"
    return ""


def key_advice(key: str, value: Any, at: str, known: Any) -> str:
    """Say what to write in the place of a key that is not known `at` a level."""
    word = plain(key)
    if word in known:
        return f"write `{word}`"
    if name := _named(word, _TABLES["renamed"].get(at, {})):
        return f"it is called `{name}` here"
    for place in (at, "with") if at in _PARAMETERS else (at,):
        for words, advice in _TABLES["otherwise"].get(place, {}).items():
            if word in words.split():
                return str(_SHARED.get(advice, advice))
    return _belongs(word, value, at)


def _named(word: str, table: Mapping[str, str]) -> str:
    """Give the name that a word of another system has here, by a table of such words."""
    return next((name for name, others in table.items() if word in others.split()), "")


def github_advice(key: str, path: Path, at: str) -> str:
    """Say what to write in the place of a key of GitHub Actions, where that makes the file fail."""
    advice = _TABLES["github-actions"].get(key, "")
    return _SHARED.get(advice, advice) if at in ("root", "job") or path[:1] == ("on",) else ""


def _belongs(word: str, value: Any, at: str) -> str:
    """Say where a key belongs that is right at another level."""
    if at in _PARAMETERS and word in _JOB:
        return f"move it out of `with`: `{word}` stands beside `uses`"
    if at == "job" and word in _ALL_PARAMETERS:
        return f"move it below `with:`: `with: {{{word}: ...}}`"
    if at in ("job", "defaults") and word in _ROOT:
        return "move it to the top of the file, without indentation"
    if at == "root" and _is_job(value):
        return "it is a job: move it below `jobs:`"
    if at == "job" and _is_job(value):
        return "it is a job: write it beside this one, indented as this one"
    if at == "root" and word in _JOB:
        return str(_SHARED["@of-a-job"])
    return ""


def action_advice(action: str) -> str:
    """Say which action does what is meant by one that does not exist."""
    name = action.lower().strip()
    known = [each for each in _PARAMETERS if each.partition("@")[0] == name.partition("@")[0]]
    if known:
        return f"write `{known[0]}`"
    actions = _TABLES["actions"].items()
    return next((advice for pattern, advice in actions if re.search(pattern, name)), "")


def reference_advice(value: str, jobs: Mapping[str, Any], inputs: Any) -> str:
    """Write what is meant for another job's output as it is written here.

    `jobs` gives each job's outputs, `inputs` are the workflow's; empty where neither is named.
    """
    words = re.findall(r"[A-Za-z0-9_-]+", value[:400])
    job = next((word for word in words if word in jobs), "")
    if not job and (name := next((word for word in words if word in inputs), "")):
        return f"write `workflow.inputs.{name}`"
    makers = [job] if job else list(islice(jobs, CANDIDATES))
    found = [(each, word) for each in makers for word in words if word in jobs[each]]
    if not found and job and len(jobs[job]) == 1:
        found = [(job, next(iter(jobs[job])))]
    return f"write `{found[0][0]}.outputs.{found[0][1]}`" if found else ""


def port_type_advice(name: str, allowed: Any) -> str:
    """Say which type of an input or output does what is meant by one that does not exist."""
    kind = _named(plain(name), _TABLES["port-types"])
    return f"write `{kind}`" if kind in allowed else ""


def model_type_advice(name: str) -> str:
    """Say what type a model has of whose framework the service knows nothing."""
    known = any(each in name.lower() for each in _TABLES["model-types"].split())
    return "write `Custom`" if known else ""


def type_advice(path: Path, value: Any) -> str:
    """Say how to write a value that has the wrong shape."""
    key = path[-1] if path else ""
    match path:
        case _ if is_misplaced(path, value):
            return "indent it deeper: it is a key of the job above it"
        case ("jobs", _) if value is None:
            return "indent its keys deeper than its name"
        case (*_, "inputs" | "outputs", _) if value is None:
            return "indent its keys deeper than its name, such as `{type: volume}`"
        case (*_, "env", _) if isinstance(value, list | dict):
            return "write a text; a secret is `secret:NAME`"
    return _shape(str(key), value)


def is_misplaced(path: Path, value: Any) -> bool:
    """Tell whether what stands among the jobs is a key of one, indented too little."""
    return len(path) == 2 and path[0] == "jobs" and path[1] in _JOB and not _is_job(value)


def _is_job(value: Any) -> bool:
    return isinstance(value, dict) and "uses" in value


def _shape(key: str, value: Any) -> str:
    if key == "script":
        return "write one text, with each command on a line of its own below `script: |-`"
    if key == "env" and isinstance(value, list):
        return 'write `NAME: "value"` on a line for each, without dashes'
    if key in ("jobs", "inputs", "outputs") and isinstance(value, list):
        return "write `NAME:` for each, and its keys below it, without dashes"
    if key == "with" and isinstance(value, list):
        return "write `PARAMETER: value` on a line for each, without dashes"
    if key == "resources":
        machine = value if isinstance(value, str) and value.isprintable() else "C5"
        return f"write `resources: {{instance-type: {machine}}}`"
    if key == "args" and isinstance(value, str):
        return 'write a list: `args: [bash, -c, "COMMANDS"]`'
    if key == "container-registries":
        return "write a list: `container-registries: [NAME]`"
    if key == "timeout":
        return "write a number, without quotes and without a unit"
    if key == "image" and isinstance(value, dict | list):
        return "write the image's name alone: `image: NAME:TAG`"
    if key == "uses":
        return "write one action; a job uses one"
    return ""
