"""What is wrong in a workflow's texts: paths that no input or output stands for, and `secret:`.

Promises: a path that holds a variable or a pattern, or that is a part of another path, is no
finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..spec.credentials import name_of
from ..spec.document import Document, Problem
from ..spec.spec import Job, Port, Spec
from .shell import Keys, Texts, all_texts, calls_program, run_texts, runs_local_code
from .structure import close, where

_PATTERN = r"[$*?{\[`\\%<]"  # after it, a name is known only when the script runs
# What comes before belongs to another path: repo/inputs, $HOME/inputs, "$ROOT"/inputs, ../inputs.
_PATH = re.compile(
    r"(?<![\w.~$%@*}/)\]-])(?<![\w})][\"'])"
    rf"/(inputs|outputs)/([\w.-]++)(?!{_PATTERN})"
)
_OPEN_PATH = re.compile(rf"/(inputs|outputs)(?:(?:/\.?)?(?![\w./-])|/[\w.-]*{_PATTERN})")
_COMMENT = re.compile(r"(?:^|\s)#.*", re.MULTILINE)

_SECRET_PARAMETERS = ("password", "secret-access-key")
_MENTION = re.compile(r"(?<![\w.-])secret:[A-Za-z][\w-]+")
_SECRET = re.compile(r"(?<![\w.-])secret:(?=\S)|^secret:")
_MISSPELLED = re.compile(r"\s*(?:secrets:|S(?i:ecrets?):|secrets?\.(?=[A-Z]))([\w.-]+)\s*")
_BEGIN = re.compile(r"\A\s*secret:")


def paths(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find folders that a script uses but no input or output declares, and the reverse."""
    for job in spec.jobs.values():
        run = run_texts(job)
        for keys, text in run + _paths_in_env(job, run, document):
            for folder, name in _used(text):
                if name not in (job.inputs if folder == "inputs" else job.outputs):
                    message = f"job `{job.name}` uses /{folder}/{name}, which it does not declare"
                    advice = _declare(spec, job, folder, name)
                    pattern = re.compile(rf"/{folder}/{re.escape(name)}(?![\w-])")
                    mark = document.find(pattern, *keys)
                    yield Problem(mark, "undeclared-path", message, advice)
        if job.uses == "script@v1":  # other actions use what they are given by themselves
            yield from _unused(spec, job, [text for _, text in run])


def _used(text: str) -> set[tuple[str, str]]:
    """Give the folders (inputs or outputs, name) that a script uses for certain."""
    found = _PATH.findall(_COMMENT.sub("", text))
    return {(folder, name.rstrip(".")) for folder, name in found if name.strip(".")}


def _declare(spec: Spec, job: Job, folder: str, name: str) -> str:
    ports = job.inputs if folder == "inputs" else job.outputs
    makers = [
        other.name for other in spec.jobs.values() if name in other.outputs and other is not job
    ]
    if name in (job.outputs if folder == "inputs" else job.inputs):
        return f"write /{'outputs' if folder == 'inputs' else 'inputs'}/{name}"
    handed = [port.name for port in job.inputs.values() if port.source and port.source[0] == name]
    if folder == "inputs" and handed:
        return f"write /inputs/{handed[0]}: the folder has the input's name, not the job's"
    if near := close(name, ports):
        return near
    if folder == "outputs":
        return f"add `{name}: {{type: volume}}` to its `outputs`, or a dataset"
    if makers:
        maker = makers[0]
        return f"add `{name}: {maker}.outputs.{name}` to its `inputs`, and `{maker}` to `needs`"
    return f"add `{name}` to its `inputs`"


def _paths_in_env(job: Job, run: Texts, document: Document) -> Texts:
    """Give the job's own variables that its script uses."""
    whole = "\n".join(text for _, text in run)
    own = all_texts(document.get("jobs", job.name, "env"), ("jobs", job.name, "env"))
    return [each for each in own if re.search(rf"\$\{{?{re.escape(str(each[0][-1]))}\b", whole)]


def _unused(spec: Spec, job: Job, run: list[str]) -> Iterator[Problem]:
    """Find folders that nothing can use: the script does not name them, and calls no program."""
    script = "\n".join(run)
    text = "\n".join([script, *job.env.values()])
    open_ended = set(_OPEN_PATH.findall(text))
    for folder, ports in (("inputs", job.inputs), ("outputs", job.outputs)):
        for port in ports.values():
            if folder in open_ended or f"{folder}/{port.name}" in text:
                continue
            message = f"the script of job `{job.name}` does not name /{folder}/{port.name}"
            if not calls_program(script):
                yield Problem(port.mark, f"unused-{folder[:-1]}", message, "remove it, or use it")
            elif folder == "inputs" and _is_code(spec, port) and runs_local_code(script):
                advice = f"begin it with `cd /inputs/{port.name}`: it runs a file of that folder"
                yield Problem(port.mark, "unused-input", message, advice)


def _is_code(spec: Spec, port: Port) -> bool:
    """Tell whether an input is what a git-checkout put out."""
    origin = port.source[0] if port.source else ""
    return origin in spec.jobs and spec.jobs[origin].uses == "git-checkout@v1"


def secrets(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find `secret:` where the service does not replace it."""
    for keys, text in all_texts(document.data, ()):
        name, variable = str(keys[-1]), len(keys) > 1 and keys[-2] == "env"
        if found := _MISSPELLED.fullmatch(text) if variable or name in _SECRET_PARAMETERS else None:
            message = f"{where(keys)} is written like a secret, and nothing replaces it"
            advice = f"write `secret:{found[1]}`"
            yield Problem(document.mark(*keys), "secret-not-whole", message, advice)
        pattern = _SECRET if variable or name in _SECRET_PARAMETERS else _MENTION
        pattern = pattern if pattern.search(text) else _BEGIN
        if pattern.search(text) and not (name_of(text) and _is_replaced(keys)):
            yield Problem(
                document.find(pattern, *keys), "secret-not-whole", *_no_effect(keys, text)
            )


def _is_replaced(keys: Keys) -> bool:
    """Tell whether the service puts a secret in the place of `secret:NAME` here."""
    match keys:
        case ("defaults", "env", _) | ("jobs", _, "env" | "with", _):
            return True
    return False


def _no_effect(keys: Keys, text: str) -> tuple[str, str]:
    message = f"`secret:` has no effect in {where(keys)}"
    advice = "give the secret a variable of its own in `env`, and use that: $NAME"
    if name_of(text):
        return f"{message}, where no secret is filled in", advice
    if _BEGIN.search(text) and _is_replaced(keys) and "\n" not in text.strip():
        advice = "write `secret:NAME` and nothing else, NAME of letters, digits, `_`, `.` and `-`"
        return f"{message}, for that is no secret's name", advice
    return f"{message}, for it is not the whole value", advice
