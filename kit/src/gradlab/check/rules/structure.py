"""Rules on a document's structure: those of the JSON Schema, in a user's words.

Promises: the schema alone says what a workflow may look like. Its keyword `x-check` names the rule,
message and advice for the violation of another keyword where the general words would not do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import TYPE_CHECKING, Any

from ... import spec
from ...base import names
from ...spec.document import Document, Problem, kind
from .. import habits
from ..registry import declare
from ..words import CANDIDATES, Path, close, join, where

if TYPE_CHECKING:
    from jsonschema import Draft7Validator

declare("type", "error", "a value is of the wrong type")
declare("non-string", "error", "YAML reads a value that must be text as something else")
declare("missing-key", "error", "a key that is required is missing")
declare("unknown-key", "warning", "a key is not part of a workflow")
declare("github-actions-key", "error", "a key of GitHub Actions, which fails on Gradient")
declare("on-shape", "error", "`on` is not of the one form that works")
declare("needs-list", "error", "`needs` is no list")
declare("no-uses", "error", "a job does not say which action it uses")
declare("unknown-action", "error", "no such action exists")
declare("missing-parameter", "error", "an action lacks a parameter in `with`")
declare("unknown-parameter", "warning", "an action does not know a parameter in `with`")
declare("missing-port", "error", "an action lacks the input or output that it works on")
declare("model-type", "warning", "create-model does not know the model's type")
declare("port-type", "error", "an input or output is of an unknown type")
declare("dataset-without-ref", "error", "a dataset does not say which one it is")
declare("input-reference", "error", "an input is neither JOB.outputs.NAME nor workflow.inputs.NAME")

# What jsonschema has for URLs and durations.
_FORMATS = {"rfc3987", "rfc3987_syntax", "rfc3986_validator", "isoduration"}
_TYPES = {
    "string": "text",
    "object": "a mapping",
    "array": "a list",
    "number": "a number",
    "boolean": "true or false",
}


def structure(document: Document) -> Iterator[Problem]:
    """Give what the schema finds wrong."""
    for error in _validator().iter_errors(document.data):
        path: Path = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            yield from _extra_keys(document, path, error)
        elif error.validator == "required" and habits.is_misplaced(path, error.instance):
            advice = habits.type_advice(path, error.instance)
            yield Problem(document.mark(*path), "no-uses", _required(path, error)[0], advice)
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


def _problem(document: Document, path: Path, error: Any) -> Problem:
    value, keyword = error.instance, str(error.validator)
    words = error.schema.get("x-check", {}).get(keyword, {})
    rule, message, advice = _general(document, path, error)
    given = {"where": where(path), "value": value}
    if "message" in words:
        message = words["message"].format(**given)
    if "advice" in words and value is not None:
        advice = words["advice"].format(**given)
    if keyword == "pattern" and isinstance(value, str) and rule != "on-shape":
        advice = _reference(document, value) or advice
    # A key is checked by itself: its place is not on the error's path.
    keys = (*path, value) if "propertyNames" in error.absolute_schema_path else path
    return Problem(document.mark(*keys), words.get("rule", rule), message, advice)


def _general(document: Document, path: Path, error: Any) -> tuple[str, str, str]:
    """Give rule, message and advice as for any part of a workflow."""
    keyword = str(error.validator)
    rule = "missing-key" if keyword == "required" else "type"
    match keyword:
        case "type":
            message, advice = _type(document, path, error)
        case "required":
            message, advice = _required(path, error)
        case "enum":
            message = f"{where(path)} can't be `{error.instance}`"
            advice = _choice(path, str(error.instance), error.validator_value)
        case "format":
            message, advice = _format(path, error)
        case "minProperties":
            message, advice = f"{where(path)} is empty", "fill it or remove it"
        case _:
            message, advice = f"{where(path)} can't be `{error.instance}`", "write a number above 0"
    if path[:1] == ("on",):
        return "on-shape", message, habits.TRIGGER
    return "non-string" if error.validator_value == "string" else rule, message, advice


def _type(document: Document, path: Path, error: Any) -> tuple[str, str]:
    value, written, wanted = error.instance, document.written(*path), error.validator_value
    types = [wanted] if isinstance(wanted, str) else wanted
    expected = " or ".join(_TYPES[name] for name in types)
    message = f"{where(path)} must be {expected}, but "
    if value is None or not written or isinstance(value, str):
        message += f"it is {kind(value)}"
    else:
        message += f"YAML reads `{written}` as {kind(value)}"
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


def _required(path: Path, error: Any) -> tuple[str, str]:
    missing = join(key for key in error.validator_value if key not in error.instance)
    return f"{where(path)} lacks {missing}", f"add {missing}"


def _choice(path: Path, value: str, known: Any) -> str:
    """Advise one of the known words in the place of another."""
    match path:
        case ("jobs", _, "uses"):
            advice = habits.action_advice(value)
        case (*_, "inputs" | "outputs", _, "type"):
            advice = habits.port_type_advice(value, known)
        case _:
            advice = habits.model_type_advice(value)
    return advice or close(value, known) or f"write {join(known, 'or')}"


def _format(path: Path, error: Any) -> tuple[str, str]:
    value, grammar = error.instance, names.FORMATS[str(error.validator_value)]
    what = "" if "propertyNames" in error.absolute_schema_path else f"{where(path)} is "
    comma = ", which" if what else ""
    return f"{what}`{value}`{comma} can't be {grammar.what}", grammar.near(value)


def _reference(document: Document, value: str) -> str:
    """Advise what is meant by what is no reference to another job's output."""
    jobs = islice(_mapping(document.data, "jobs").items(), CANDIDATES)
    outputs = {name: _mapping(job, "outputs") for name, job in jobs}
    return habits.reference_advice(value, outputs, _mapping(document.data, "inputs"))


def _mapping(data: Any, key: str) -> dict[str, Any]:
    """Give the mapping at a key, empty where there is none."""
    found = data.get(key) if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def _extra_keys(document: Document, path: Path, error: Any) -> Iterator[Problem]:
    known = error.schema["properties"]
    words = error.schema.get("x-check", {}).get("additionalProperties", {})
    if habits.is_misplaced(path, error.instance):
        return  # it is no job, but a job's key that is not indented, which is reported
    at = habits.level(path, str(document.get(*path[:-1], "uses") if path else ""))
    for key in error.instance.keys() - known.keys():
        mark, message = document.mark(*path, key), f"{where(path)} has no key `{key}`"
        if advice := habits.github_advice(key, path, at):
            message = f"`{key}` is a key of GitHub Actions, which fails on Gradient"
            yield Problem(mark, "github-actions-key", message, advice)
            continue
        advice = habits.key_advice(key, error.instance[key], at, known)
        if not advice and path[:1] == ("on",):
            advice = habits.TRIGGER
        advice = advice or close(key, known) or f"remove it; known are {join(known)}"
        yield Problem(mark, words.get("rule", "unknown-key"), message, advice)
