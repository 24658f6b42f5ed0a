"""What is wrong with a document's structure, by the JSON Schema, in a user's words.

Promises: the schema alone says what a workflow may look like. Its keyword `x-check` names the rule,
message and advice for the violation of another keyword where the general words would not do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import TYPE_CHECKING, Any

from .. import spec
from ..base import names
from ..spec.document import Document, Problem, kind
from . import habits

if TYPE_CHECKING:
    from jsonschema import Draft7Validator

Path = tuple[str | int, ...]

_CANDIDATES = 100  # words to compare with, so that a large file is checked in linear time

# What jsonschema has for URLs and durations.
_FORMATS = {"rfc3987", "rfc3987_syntax", "rfc3986_validator", "isoduration"}

_RULES = {
    "type": "type",
    "required": "missing-key",
    "additionalProperties": "unknown-key",
    "exclusiveMinimum": "type",
}
_TYPES = {
    "string": "text",
    "object": "a mapping",
    "array": "a list",
    "number": "a number",
    "boolean": "true or false",
}
_TRIGGER = 'write `"on": {github: {branches: {only: main}}}`'
_GITHUB_ACTIONS = {
    "name": "remove it; a workflow gets its name on the service, a job by its key",
    "steps": "make each step a job, or a line of `with.script`",
    "runs-on": "write `resources: {instance-type: C5}`",
    "run": "write `uses: script@v1` and `with: {image: IMAGE, script: COMMANDS}`",
    "if": "remove it, and decide in the script",
    "strategy": "remove it, and write a job for each case",
    "schedule": "remove it, and start the runs from outside",
    "push": _TRIGGER,
    "pull_request": _TRIGGER,
    "paths": "remove it; every push to the branch runs the workflow",
}


def structure(document: Document) -> Iterator[Problem]:
    """Give what the schema finds wrong."""
    for error in _validator().iter_errors(document.data):
        path: Path = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            yield from _extra_keys(document, path, error)
        else:
            yield _problem(document, path, error)


@cache
def _validator() -> Draft7Validator:
    with _without_formats():
        from jsonschema import Draft7Validator, FormatChecker

    checker = FormatChecker(formats=())
    for name, grammar in names.FORMATS.items():
        checker.checks(name)(_takes(grammar))
    schema = json.loads(files(spec).joinpath("schema.json").read_text())
    return Draft7Validator(schema, format_checker=checker)


@contextmanager
def _without_formats() -> Iterator[None]:
    """Keep jsonschema from the formats that it would load where Jupyter is, and no file needs.

    They take two seconds, at every command.
    """
    hidden = _FORMATS - sys.modules.keys()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _takes(grammar: names.Grammar) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, str) or grammar.takes(value)


def where(path: Path) -> str:
    """Say which part of a workflow a path leads to."""
    job = ""
    if path[:1] == ("jobs",) and len(path) > 1:
        job, path = f"job `{path[1]}`", path[2:]
    keys = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    part = f"`{keys[1:]}`" if keys else ""
    return " of ".join(filter(None, (part, job))) or "the workflow"


def close(word: str, words: Any) -> str:
    """Ask whether the most similar of the words was meant, if one is similar."""
    lower = {each.lower(): each for each in islice(words, _CANDIDATES)}
    near = get_close_matches(word.lower(), lower, 1, 0.65)
    return f"did you mean `{lower[near[0]]}`?" if near else ""


def _problem(document: Document, path: Path, error: Any) -> Problem:
    value, keyword = error.instance, str(error.validator)
    rule = "non-string" if error.validator_value == "string" else _RULES.get(keyword, "type")
    match keyword:
        case "type":
            message, advice = _type(document, path, error)
        case "required":
            missing = [key for key in error.validator_value if key not in value]
            message = f"{where(path)} lacks {_join(missing)}"
            advice = f"add {_join(missing)}"
            if habits.is_misplaced(path, value):
                deeper = habits.type_advice(path, value)
                return Problem(document.mark(*path), "no-uses", message, deeper)
        case "enum":
            known = _join(error.validator_value, "or")
            message = f"{where(path)} can't be `{value}`"
            advice = _choice(path, str(value), error.validator_value) or f"write {known}"
        case "format":
            grammar = names.FORMATS[str(error.validator_value)]
            message, advice = f"`{value}` can't be {grammar.what}", grammar.near(value)
            if "propertyNames" not in error.absolute_schema_path:
                message = f"{where(path)} is `{value}`, which can't be {grammar.what}"
        case "minProperties":
            message, advice = f"{where(path)} is empty", "fill it or remove it"
        case _:
            message, advice = f"{where(path)} can't be `{value}`", "write a number above 0"
    words = error.schema.get("x-check", {}).get(keyword, {})
    if path[:1] == ("on",):
        rule, advice = "on-shape", _TRIGGER
    if rule == "type" and keyword == "pattern" and isinstance(value, str):
        jobs = {name: _mapping(job, "outputs") for name, job in _items(document.data, "jobs")}
        meant = habits.reference_advice(value, jobs, _mapping(document.data, "inputs"))
        if meant:
            words = {key: text for key, text in words.items() if key != "advice"}
            advice = meant
    given = {"where": where(path), "value": value}
    # A key is checked by itself: its place is not on the error's path.
    keys = (*path, value) if "propertyNames" in error.absolute_schema_path else path
    return Problem(
        document.mark(*keys),
        words.get("rule", rule),
        words["message"].format(**given) if "message" in words else message,
        words["advice"].format(**given) if "advice" in words and value is not None else advice,
    )


def _mapping(data: Any, key: str) -> dict[str, Any]:
    """Give the mapping at a key, empty where there is none."""
    found = data.get(key) if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def _items(data: Any, key: str) -> Iterator[tuple[str, Any]]:
    return islice(_mapping(data, key).items(), _CANDIDATES)


def _choice(path: Path, value: str, known: Any) -> str:
    """Advise one of the known words in the place of another."""
    near = close(value, known)
    match path:
        case ("jobs", _, "uses"):
            return habits.action_advice(value) or near
        case (*_, "inputs" | "outputs", _, "type"):
            return habits.port_type_advice(value, known) or near
    return habits.model_type_advice(value) or near


def _type(document: Document, path: Path, error: Any) -> tuple[str, str]:
    value, written, wanted = error.instance, document.written(*path), error.validator_value
    types = [wanted] if isinstance(wanted, str) else wanted
    expected = " or ".join(_TYPES[name] for name in types)
    if value is None or not written or isinstance(value, str):
        message = f"{where(path)} must be {expected}, but it is {kind(value)}"
    else:
        message = f"{where(path)} must be {expected}, but YAML reads `{written}` as {kind(value)}"
    match value:
        case [None]:
            advice = 'quote the dash: "-"'
        case {"secret": name}:
            advice = f"write it without a space: secret:{name}"
        case _ if advice := habits.type_advice(path, value):
            pass
        case None:
            advice = "give it a value, or remove it"
        case _ if written and "string" in types:
            advice = f'quote it: "{written}"'
        case _:
            advice = f"make it {expected}"
    return message, advice


def _extra_keys(document: Document, path: Path, error: Any) -> Iterator[Problem]:
    known = error.schema["properties"]
    words = error.schema.get("x-check", {}).get("additionalProperties", {})
    if habits.is_misplaced(path, error.instance):
        return  # it is no job, but a job's key that is not indented, which is reported
    at = habits.level(path, str(document.get(*path[:-1], "uses") if path else ""))
    for key in error.instance.keys() - known.keys():
        mark, message = document.mark(*path, key), f"{where(path)} has no key `{key}`"
        advice = habits.key_advice(key, error.instance[key], at, known)
        advice = (
            advice
            or (_TRIGGER if path[:1] == ("on",) else "")
            or close(key, known)
            or f"remove it; known are {_join(known)}"
        )
        if key in _GITHUB_ACTIONS and (at in ("root", "job") or path[:1] == ("on",)):
            message = f"`{key}` is a key of GitHub Actions, which fails on Gradient"
            yield Problem(mark, "github-actions-key", message, _GITHUB_ACTIONS[key])
        else:
            yield Problem(mark, words.get("rule", "unknown-key"), message, advice)


def _join(words: Any, last: str = "and") -> str:
    *most, end = (f"`{word}`" for word in words)
    return f"{', '.join(most)} {last} {end}" if most else end
