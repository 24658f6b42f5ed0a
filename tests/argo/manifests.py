"""What is wrong with a manifest by Argo's own schema, taken strictly, and by hera's models."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator

SCHEMA = Path(__file__).with_name("schema.json.gz")
WORKFLOW = "#/definitions/io.argoproj.workflow.v1alpha1.Workflow"


@cache
def validator() -> Draft7Validator:
    """Give the schema with unknown keys forbidden: the server would drop them without a word."""
    definitions = json.loads(gzip.decompress(SCHEMA.read_bytes()))["definitions"]
    close(definitions)
    return Draft7Validator({"$ref": WORKFLOW, "definitions": definitions})


def close(node: Any) -> None:
    """Forbid keys that a schema does not name, wherever it names any."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict) and node.get("type") == "object":
            node.setdefault("additionalProperties", False)
        for value in node.values():
            close(value)
    elif isinstance(node, list):
        for value in node:
            close(value)


def refused(data: Any) -> list[str]:
    """List what the schema refuses, and what hera refuses or ignores."""
    return [*by_schema(data), *by_hera(data)]


def by_schema(data: Any) -> Iterator[str]:
    for error in validator().iter_errors(data):
        yield f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"


def by_hera(data: Any) -> Iterator[str]:
    from hera.workflows.models import Workflow
    from pydantic import ValidationError

    try:
        model = Workflow.model_validate(data)
    except ValidationError as error:
        yield str(error)
        return
    back = json.loads(model.model_dump_json(by_alias=True, exclude_none=True))
    yield from lost(data, back, "")


def lost(given: Any, back: Any, path: str) -> Iterator[str]:
    """Name what did not come back, or came back otherwise."""
    if isinstance(given, dict) and isinstance(back, dict):
        for key, value in given.items():
            yield from lost(value, back.get(key), f"{path}/{key}")
    elif isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        for number, (one, other) in enumerate(zip(given, back, strict=True)):
            yield from lost(one, other, f"{path}/{number}")
    elif given != back:
        yield f"{path}: {given!r} became {back!r}"
