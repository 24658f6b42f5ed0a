"""What the templates can ask for: runtimes/, workflows/ and ways to write an answer down.

Promises: an answer written with `quote` means what was typed in TOML, YAML and JSON, with
`markdown` in Markdown; a mistake in a catalogue file is an error that names file and line.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from cookiecutter.exceptions import CookiecutterException
from jinja2 import Environment, TemplateError, pass_context
from jinja2.ext import Extension
from jinja2.runtime import Context

HERE = Path(__file__).parent
# Raw in JSON strings, but refused by TOML or read as a line's end by YAML.
UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")


class CatalogueError(CookiecutterException):  # type: ignore[misc]
    """A catalogue file that is missing or can't be read."""


class Catalogue(Extension):
    """Offers runtime(), workflow(), quote, markdown and package_name to the templates."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.globals.update(runtime=runtime, workflow=workflow)
        environment.filters.update(quote=quote, markdown=markdown, package_name=package_name)


def quote(value: object) -> str:
    """Write a text as a double-quoted string that TOML, YAML and JSON read alike."""
    text = json.dumps(str(value), ensure_ascii=False)
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def markdown(value: object) -> str:
    """Escape a text so that Markdown shows it as it was typed."""
    text = str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", text)


def package_name(value: object) -> str:
    """Make a package's name of a project's: lower case, underscores, no digit in front."""
    name = re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_").lstrip("0123456789_")
    return name or "my_model"


def runtime(name: str) -> dict[str, Any]:
    """Read runtimes/<name>.yaml."""
    path = _find("runtimes", name)
    try:
        return dict(yaml.safe_load(path.read_text("utf-8")))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise CatalogueError(f"{path} is not a YAML mapping: {error}") from error


@pass_context
def workflow(context: Context, name: str) -> str:
    """Render workflows/<name>.yaml with the answers."""
    path = _find("workflows", name)
    try:
        template = context.environment.from_string(path.read_text("utf-8"))
        return template.render(context.get_all())
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        place = f"{path}:{line}" if line else str(path)
        raise CatalogueError(f"{place}: {error}") from error


def _find(folder: str, name: str) -> Path:
    path = HERE / folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise CatalogueError(f"There is no {path}: {folder}/ holds {known}.")
    return path
