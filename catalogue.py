"""What the templates can ask for: runtimes/, workflows/ and ways to write an answer down.

Promises: an answer written with `quote` means what was typed in TOML, YAML and JSON, with
`markdown` in Markdown; a mistake in a catalogue file is an error that names file and line.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import (
    Environment,
    FileSystemLoader,
    Template,
    TemplateError,
    UndefinedError,
    pass_context,
)
from jinja2.ext import Extension
from jinja2.runtime import Context

HERE = Path(__file__).parent
QUESTIONS: dict[str, Any] = json.loads((HERE / "cookiecutter.json").read_text("utf-8"))
ASKED = {name for name in QUESTIONS if not name.startswith("_")}
FOLDER = "{{cookiecutter.project_slug}}"
# Raw in JSON strings, but refused by TOML or YAML, or read as a line's end.
UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


class CatalogueError(UndefinedError):
    """A catalogue file that is missing or can't be read.

    Of an UndefinedError, cookiecutter prints the message and removes the half-made project.
    """


class Catalogue(Extension):
    """Offers runtime(), workflow(), quote, markdown and package_name to the templates."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        # An update generates the old and the new project in one process, each with its own.
        sys.modules.pop(__name__, None)
        environment.globals.update(runtime=runtime, workflow=workflow)
        environment.filters.update(quote=quote, markdown=markdown, package_name=package_name)
        compiler = environment.from_string
        # The only way in: cookiecutter renders an answer given on the command line, in a
        # configuration or by an update, so that {{ 7 * 7 }} would arrive as 49.
        setattr(environment, "from_string", lambda source: Source(source, compiler))  # noqa: B010


@dataclass(frozen=True)
class Source:
    """A text that cookiecutter is about to render; an answer stays as it was typed."""

    text: str
    compiler: Callable[[str], Template]

    def render(self, **context: Any) -> str:
        """Render the text, unless it is an answer."""
        answers = context["cookiecutter"]
        if not answers.keys() >= ASKED and self.text not in QUESTIONS.values():
            return self.text
        if self.text == FOLDER and not re.fullmatch(r"[\w-]{1,100}", answers["project_slug"], re.A):
            # What can't be a folder is for the hook to refuse, which runs in the folder.
            return ".refused"
        return self.compiler(self.text).render(**context)


def quote(value: object) -> str:
    """Write a text as a double-quoted string that TOML, YAML and JSON read alike."""
    text = json.dumps(str(value), ensure_ascii=False)
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def markdown(value: object) -> str:
    """Escape a text so that Markdown shows it as it was typed."""
    text = str(value).strip(" ").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", text)
    return re.sub(r"^([0-9]+)\.", r"\1\.", text)


def package_name(value: object) -> str:
    """Make a package's name of a project's: lower case, underscores, no digit in front."""
    name = re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_").lstrip("0123456789_")
    return name[:50].rstrip("_") or "my_model"


def runtime(name: str) -> dict[str, Any]:
    """Read runtimes/<name>.yaml."""
    path = _find("runtimes", name)
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CatalogueError(f"{path}:{line}: {error.problem}") from error
    if not isinstance(content, dict):
        raise CatalogueError(f"{path}:1: a runtime is a mapping, such as  framework: PyTorch")
    return content


@pass_context
def workflow(context: Context, name: str) -> str:
    """Render workflows/<name>.yaml with the answers."""
    path = _find("workflows", name)
    templates = context.environment.overlay(loader=FileSystemLoader(path.parent))
    try:
        return templates.get_template(path.name).render(context.get_all()).rstrip("\n")
    except TemplateError as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next(f.lineno for f in reversed(frames) if f.filename == str(path))
        raise CatalogueError(f"{path}:{line}: {error.message}") from error


def _find(folder: str, name: str) -> Path:
    path = HERE / folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise CatalogueError(f"There is no {path}: {folder}/ holds {known}.")
    return path
