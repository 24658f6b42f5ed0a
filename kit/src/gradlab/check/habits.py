"""What people write who come from another system, and what would do here.

Promises: advice names the key, action or form that does on Gradient what was meant; where nothing
is known it is empty. Other systems' spellings (`dockerImage`, `docker_image`) are one here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

Path = tuple[str | int, ...]

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

_MACHINE = "write `resources: {instance-type: C5}` in the job, or in `defaults`"
_LOGIN = (
    "store the login as a container registry in the team's settings, and name that: "
    "`defaults: {resources: {container-registries: [NAME]}}`"
)
_SECRETS = "give each to `env`: `NAME: secret:NAME`"
_SCRIPT = "write `uses: script@v1` and `with: {image: IMAGE, script: COMMANDS}`"
_TRIGGER = 'write `"on": {github: {branches: {only: main}}}`'
_DEFAULTS = "move it below `defaults:`"
_OF_A_JOB = "it belongs to a job: move it below `jobs: NAME:`"
_KUBERNETES = "remove it; it is a key of Kubernetes or Argo, and Gradient makes that of this file"

# What a key is called elsewhere (in words with `-`), and here, by the place where it stands.
_RENAMED = {
    "job": {
        "needs": "need depends-on depends dependencies depend dependson after requires wait-for",
        "env": "envs environment environments environment-variables env-vars variables vars",
        "uses": "use action actions template task plugin operator",
        "with": "parameters params arguments options configuration settings",
        "inputs": "input in volumes mounts volume-mounts datasets",
        "outputs": "output out artifacts artifact results",
        "resources": "resource requirements",
        "timeout": "timeout-minutes timeout-in-minutes time-limit active-deadline-seconds",
    },
    "script@v1": {
        "script": "run runs scripts command commands cmd code shell bash entrypoint",
        "image": "container docker docker-image container-image base-image runtime",
    },
    "container@v1": {
        "command": "entrypoint cmd run script program",
        "args": "arguments arg params parameters",
        "image": "container docker docker-image container-image base-image runtime",
    },
    "git-checkout@v1": {
        "url": "repo repository git git-url repo-url repository-url uri remote source",
        "ref": "branch tag commit sha revision version commit-sha git-ref reference",
        "path": "dest destination target output dir directory folder working-directory",
        "username": "user login git-username",
        "password": "token pat access-token github-token git-password auth-token ssh-key secret",
    },
    "s3-download@v1": {
        "url": "uri bucket s3 s3-url source src from key",
        "access-key": "access-key-id aws-access-key-id aws-access-key key-id s3-access-key",
        "secret-access-key": "secret-key aws-secret-access-key aws-secret-key secret s3-secret-key",
        "region": "aws-region s3-region aws-default-region",
        "endpoint": "endpoint-url s3-endpoint host",
        "path": "dest destination target output dir directory folder to",
    },
    "create-model@v1": {
        "name": "model-name title",
        "type": "model-type framework kind format",
    },
    "resources": {
        "instance-type": "instance machine machine-type type vm vm-type gpu node gpu-type",
        "container-registries": "container-registry registries registry image-pull-secrets",
    },
    "values": {
        "ref": "dataset dataset-id dataset-ref name path uri url reference",
        "value": "default text content string",
    },
    "root": {
        "on": "trigger triggers when event events",
        "jobs": "job tasks stages steps pipeline workflow workflows services",
        "defaults": "default globals global",
        "inputs": "input params parameters arguments variables-in",
    },
    "defaults": {"env": "envs environment environment-variables env-vars variables vars"},
}
# What has no other name, but another way.
_OTHERWISE = {
    "root": {
        "env environment variables vars env-vars resources cluster-id": _DEFAULTS,
        "instance-type machine machine-type": _MACHINE,
        "image script run command before-script": _OF_A_JOB,
        "api-version kind metadata spec": _KUBERNETES,
        "workflow-dispatch workflow-call repository-dispatch": "remove it: any workflow can be "
        "run by hand",
        "secrets": _SECRETS,
        "version": "remove it; a workflow has no version",
        "container-registries": _LOGIN,
        "permissions concurrency": "remove it; Gradient has nothing of the kind",
    },
    "job": {
        "instance-type instance machine machine-type gpu gpus vm node-selector pool": _MACHINE,
        "container docker docker-image": "write `with: {image: IMAGE}`",
        "commands cmd entrypoint before-script after-script shell": _SCRIPT,
        "secrets": _SECRETS,
        "when rules only except condition": "remove it, and decide in the script",
        "matrix parallel replicas": "remove it, and write a job for each case",
        "stage": "remove it; `needs` says what a job waits for",
        "services ports expose": "remove it; a job is one container that runs to its end",
        "working-directory workdir working-dir": "begin the script with `cd FOLDER`",
        "retry retries restart continue-on-error allow-failure": "remove it, and write the "
        "repetition into the script",
        "cache": "remove it; what is to be kept is an output of the type dataset",
        "container-registries registry credentials image-pull-secrets docker-credentials "
        "registry-credentials": _LOGIN,
        "description": "make it a comment: `# ...`",
        "type": "write `uses` with an action, such as script@v1",
    },
    "with": {
        "registry registry-url registry-username registry-password username password user login "
        "credentials auth docker-username docker-password server image-pull-secrets pull-secret "
        "image-pull-secret container-registries registry-auth registry-login docker-credentials "
        "registry-credentials container-credentials": _LOGIN,
        "instance-type machine machine-type gpu": _MACHINE,
        "secrets": _SECRETS,
        "name": "remove it; a job gets its name by its key",
        "steps": "make each step a job, or a line of `script`",
        "working-directory workdir working-dir cwd": "begin the script with `cd FOLDER`",
        "dockerfile context build build-args": "remove it: build the image elsewhere, push it to "
        "a registry, and name it in `image`",
        "ports expose volumes mounts": "remove it; a job has /inputs and /outputs, and no ports",
        "environment variables vars envs env-vars": "move it out of `with`, as `env` of the job",
    },
    "script@v1": {
        "args arguments arg": "write them behind the command in `script`; container@v1 has `args`",
    },
    "git-checkout@v1": {
        "submodules lfs fetch-depth depth recursive": "remove it; fetch what else you need in a "
        "script",
    },
    "create-model@v1": {
        "model model-id dataset path ref model-path": "make it an input of the job: "
        "`inputs: {model: JOB.outputs.NAME}`",
        "version model-version": "remove it; each registration is a new version",
    },
    "port": {
        "ref id value": "move it below `with:`",
        "name dataset dataset-id": "name a dataset by `with: {ref: NAME}`",
        "default": "write `with: {value: TEXT}`, or `with: {ref: NAME}` for a dataset",
        "from source": "write JOB.outputs.NAME in the place of the mapping",
        "required": "remove it; what is not `optional: true` is required",
        "path mount-path target": "remove it; it is the folder /inputs/NAME or /outputs/NAME",
        "description": "make it a comment: `# ...`",
    },
    "values": {"version tag": "write it into `ref`: NAME:VERSION or NAME:TAG"},
    "resources": {
        "cpu cpus memory ram disk limits requests gpus": "remove it; the machine that "
        "`instance-type` names decides",
    },
}
_ACTIONS = (  # a part of what people take for an action, and what would do
    (r"^actions/(upload|download)-artifact", "declare the folder in `outputs` of a job"),
    (r"^actions/cache", "write what is to be kept to an output of the type dataset"),
    (r"^actions/setup-", "take an `image` that has it, or install it in the script"),
    (r"^(docker|aws-actions|azure|google-github-actions)/", "do it in a script: `script@v1`"),
    (r"^docker://", "write `container@v1` and `with: {image: IMAGE}`"),
    (r"check-?out|clone|^git", "write `git-checkout@v1`"),
    (r"s3|aws", "write `s3-download@v1`"),
    (r"model", "write `create-model@v1`"),
    (r"docker|container|^image", "write `container@v1`"),
    (r"script|bash|^sh|shell|run|python|command|exec|notebook|train", "write `script@v1`"),
)
_PORT_TYPES = {
    "dataset": "data datasets data-set persistent artifact bucket s3 model models storage",
    "volume": "volumes folder directory dir tmp temp cache mount workspace",
    "string": "str text number int integer float bool boolean value file json env",
}
_MODEL_TYPES = ("pytorch", "torch", "jax", "flax", "sklearn", "scikit", "xgboost", "hugging", "pkl")


_CANDIDATES = 100  # jobs that are looked at for an output's name


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
    for name, others in _RENAMED.get(at, {}).items():
        if word in others.split():
            return f"it is called `{name}` here"
    for place in (at, "with") if at in _PARAMETERS else (at,):
        for words, advice in _OTHERWISE.get(place, {}).items():
            if word in words.split():
                return advice
    return _belongs(word, value, at)


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
        return _OF_A_JOB
    return ""


def action_advice(action: str) -> str:
    """Say which action does what is meant by one that does not exist."""
    name = action.lower().strip()
    known = [each for each in _PARAMETERS if each.partition("@")[0] == name.partition("@")[0]]
    if known:
        return f"write `{known[0]}`"
    found = (advice for pattern, advice in _ACTIONS if re.search(pattern, name))
    return next(found, "")


def reference_advice(value: str, jobs: Mapping[str, Any], inputs: Any) -> str:
    """Write what is meant for another job's output as it is written here.

    `jobs` gives each job's outputs, `inputs` are the workflow's; empty where neither is named.
    """
    words = re.findall(r"[A-Za-z0-9_-]+", value[:400])
    job = next((word for word in words if word in jobs), "")
    if not job and (name := next((word for word in words if word in inputs), "")):
        return f"write `workflow.inputs.{name}`"
    makers = [job] if job else list(islice(jobs, _CANDIDATES))
    found = [(each, word) for each in makers for word in words if word in jobs[each]]
    if not found and job and len(jobs[job]) == 1:
        found = [(job, next(iter(jobs[job])))]
    return f"write `{found[0][0]}.outputs.{found[0][1]}`" if found else ""


def port_type_advice(name: str, allowed: Any) -> str:
    """Say which type of an input or output does what is meant by one that does not exist."""
    found = (kind for kind, others in _PORT_TYPES.items() if plain(name) in others.split())
    kind = next(found, "")
    return f"write `{kind}`" if kind in allowed else ""


def model_type_advice(name: str) -> str:
    """Say what type a model has of whose framework the service knows nothing."""
    return "write `Custom`" if any(each in name.lower() for each in _MODEL_TYPES) else ""


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
