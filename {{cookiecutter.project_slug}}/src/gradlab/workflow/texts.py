"""What is wrong in a workflow's texts: paths that no input or output stands for, and secrets.

Promises: a path that holds a variable or a pattern, or that is a part of another path, is no
finding. A finding never shows a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .credentials import name_of
from .document import Document, Problem
from .spec import Job, Spec
from .structure import close, where

Keys = tuple[str | int, ...]

_RUN = ("script", "command", "args", "path")  # the parameters that hold paths
_PATTERN = r"[$*?{\[`\\%<]"  # after it, a name is known only when the script runs
# What comes before belongs to another path: repo/inputs, $HOME/inputs, "$ROOT"/inputs, ../inputs.
_PATH = re.compile(
    r"(?<![\w.~$%@*}/)\]-])(?<![\w})][\"'])"
    rf"/(inputs|outputs)/([\w.-]++)(?!{_PATTERN})"
)
_OPEN_PATH = re.compile(rf"/(inputs|outputs)(?:(?:/\.?)?(?![\w./-])|/[\w.-]*{_PATTERN})")
_COMMENT = re.compile(r"(?:^|\s)#.*", re.MULTILINE)

_SECRET_PARAMETERS = ("password", "secret-access-key")
_SECRET_NAME = re.compile(
    r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|PRIVATE_KEY)(?![A-Z])"
    r"(?!_(?:ID|NAME|FILE|PATH|DIR|URL|TYPE|LIMIT|LENGTH|LEN|SIZE|COUNT)\b)",
    re.IGNORECASE,
)
_MODEL_TOKEN = re.compile(  # a token of a tokenizer, or of DreamBooth and its like
    r"(?:PAD|EOS|BOS|CLS|SEP|UNK|MASK|STOP|CLASS|INSTANCE|PLACEHOLDER|INITIALIZER|TRIGGER)_TOKEN",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(
    r"|true|false|yes|no|on|off|none|null|\d{1,4}|/.*|\$.*|<.*>|secret:.*|workflow\.inputs\..*",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"\b(?:gh[pousr]_\w{36,}|github_pat_\w{22,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,}"
    r"|AKIA[0-9A-Z]{16}\b|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{35})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|wandb login (?:--relogin )?[0-9a-f]{40}"
    r"|://[^/\s:@$<{%]+:[^/\s:@$<{%][^/\s:@]*@"
)
_MENTION = re.compile(r"(?<![\w.-])secret:[A-Z][A-Z0-9_]+\b")
_SECRET = re.compile(r"(?<![\w.-])secret:(?=\S)|^secret:")
_BEGIN = re.compile(r"\A\s*secret:")


def paths(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find folders that a script uses but no input or output declares, and the reverse."""
    for job in spec.jobs.values():
        run = [
            (("jobs", job.name, "with", *keys), text)
            for name in _RUN
            for keys, text in _texts(job.parameters.get(name), (name,))
        ]
        for keys, text in run:
            for folder, name in _used(text):
                if name not in (job.inputs if folder == "inputs" else job.outputs):
                    message = f"job `{job.name}` uses /{folder}/{name}, which it does not declare"
                    advice = _declare(spec, job, folder, name)
                    pattern = re.compile(rf"/{folder}/{re.escape(name)}(?![\w-])")
                    mark = document.find(pattern, *keys)
                    yield Problem(mark, "undeclared-path", message, advice)
        if job.uses == "script@v1":  # other actions use what they are given by themselves
            yield from _unused(job, [text for _, text in run] + list(job.env.values()))


def _used(text: str) -> set[tuple[str, str]]:
    """Give the folders (inputs or outputs, name) that a script uses for certain."""
    found = _PATH.findall(_COMMENT.sub("", text))
    return {(folder, name.rstrip(".")) for folder, name in found if name.strip(".")}


def _declare(spec: Spec, job: Job, folder: str, name: str) -> str:
    ports = job.inputs if folder == "inputs" else job.outputs
    makers = [
        other.name for other in spec.jobs.values() if name in other.outputs and other is not job
    ]
    if near := close(name, ports):
        return near
    if folder == "outputs":
        return f"add `{name}: {{type: volume}}` to its `outputs`, or a dataset"
    if makers:
        maker = makers[0]
        return f"add `{name}: {maker}.outputs.{name}` to its `inputs`, and `{maker}` to `needs`"
    return f"add `{name}` to its `inputs`"


def _unused(job: Job, texts: list[str]) -> Iterator[Problem]:
    text = "\n".join(texts)
    open_ended = set(_OPEN_PATH.findall(text))
    for folder, ports in (("inputs", job.inputs), ("outputs", job.outputs)):
        for port in ports.values():
            if folder not in open_ended and f"{folder}/{port.name}" not in text:
                message = f"the script of job `{job.name}` does not name /{folder}/{port.name}"
                advice = "remove it, unless a program that the script calls uses it"
                yield Problem(port.mark, f"unused-{folder[:-1]}", message, advice)


def secrets(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find secrets written in clear, and `secret:` where the service does not replace it."""
    for keys, text in _texts(document.data, ()):
        name, parent = str(keys[-1]), keys[-2] if len(keys) > 1 else ""
        variable = parent == "env"
        if _in_clear(name, text, variable, parent == "with"):
            message = f"{where(keys)} holds a secret in clear"
            secret = name.upper().replace("-", "_")
            advice = f"store it as a secret of the service, and write `secret:{secret}`"
            yield Problem(document.mark(*keys), "secret-in-clear", message, advice)
        elif _TOKEN.search(text) and name != "access-key":
            message = f"{where(keys)} holds a token, key or password in clear"
            advice = "revoke it, store a new one as a secret, and give it as `secret:NAME` in `env`"
            yield Problem(document.find(_TOKEN, *keys), "secret-in-clear", message, advice)
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


def _in_clear(name: str, text: str, variable: bool, parameter: bool) -> bool:
    if parameter and name in _SECRET_PARAMETERS:
        return not text.startswith(("secret:", "workflow.inputs."))
    secret = variable and _SECRET_NAME.search(name) and not _MODEL_TOKEN.search(name)
    return bool(secret) and not _NO_SECRET.fullmatch(text)


def _texts(data: Any, keys: Keys) -> Iterator[tuple[Keys, str]]:
    """Give all texts in the data with the keys that lead to them."""
    match data:
        case str():
            yield keys, data
        case list():
            for place, item in enumerate(data):
                yield from _texts(item, (*keys, place))
        case dict():
            for key, item in data.items():
                yield from _texts(item, (*keys, key))
