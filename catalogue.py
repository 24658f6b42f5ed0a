"""What the templates can ask for: runtimes/, workflows/, services and ways to write answers down.

Promises: an answer written with `quote` means what was typed in TOML, YAML and JSON, with
`markdown` in Markdown; a mistake in a catalogue file is an error that names file and line.
"""

from __future__ import annotations

import json
import re
import shlex
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

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
MACHINES = HERE / "kit/src/gradlab/check/machines.json"
# libyaml's, where PyYAML was built with it, is ten times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Raw in JSON strings, but refused by TOML or YAML, or read as a line's end.
UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
# A cell of notebooks/*.py: its kind, its id and its text.
CELL = re.compile(r"^# %%( \[markdown\])? ([\w-]+)\n(.*?)(?=^# %%|\Z)", re.MULTILINE | re.DOTALL)


class CatalogueError(UndefinedError):
    """A catalogue file that is missing or can't be read.

    Of an UndefinedError, cookiecutter prints the message and removes the half-made project.
    """


class Catalogue(Extension):
    """Offers the functions and filters of this module to the templates."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        functions = (
            *(runtime, workflow, gradient_notebook, notebook, comparison, license),
            *(framework_file, install),
        )
        environment.globals.update({each.__name__: each for each in functions})
        filters = (quote, markdown, package_name, arguments, shell, hexadecimal)
        environment.filters.update({each.__name__: each for each in filters})
        compiler = environment.from_string
        # The only way in: cookiecutter renders an answer given on the command line, in a
        # configuration or by an update, so that {{ 7 * 7 }} would arrive as 49.
        setattr(environment, "from_string", lambda source: Source(source, compiler))  # noqa: B010


class Source(NamedTuple):
    """A text that cookiecutter is about to render; an answer stays as it was typed."""

    text: str
    compiler: Callable[[str], Template]

    def render(self, **context: Any) -> str:
        """Render the text, unless it is an answer."""
        if "{" not in self.text:
            return self.text  # as most paths: compiling them would take longer than all else
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


def hexadecimal(value: object) -> str:
    """Write a text as the hexadecimal digits of its bytes in UTF-8."""
    return str(value).encode("utf-8", "surrogatepass").hex()


def shell(words: list[str]) -> str:
    """Write words as a shell takes them."""
    return shlex.join(words)


def arguments(value: object) -> str:
    """Write a shell command as the list of its arguments, in JSON."""
    return json.dumps(shlex.split(str(value)))


@pass_context
def runtime(context: Context) -> dict[str, Any]:
    """Read runtimes/<framework>.yaml of the framework that was chosen."""
    return _runtime(context["cookiecutter"]["framework"])


def _runtime(framework: str) -> dict[str, Any]:
    return mapping(
        _find("runtimes", framework), "a runtime is a mapping, such as  framework: PyTorch"
    )


def machine(kind: str, answers: dict[str, str]) -> str:
    """Choose Gradient's machine of a kind: gpu (one), multi-gpu or cpu.

    The one that was chosen where it is of that kind, or its like with several GPUs; else the
    machine that runtimes/<framework>.yaml names for the kind.
    """
    gpus = _gpus()
    wanted = {"cpu": range(1), "gpu": range(1, 2), "multi-gpu": range(2, 100)}[kind]
    chosen = re.escape(answers["gradient_machine"])
    likes = [name for name in gpus if re.fullmatch(rf"{chosen}(x\d+)?", name)]
    fits = [name for name in likes if gpus[name] in wanted]
    others = _runtime(answers["framework"])["gradient"]["machines"]
    return str(fits[0] if fits else others[kind])


@cache
def _gpus() -> dict[str, int]:
    """Give how many GPUs each machine of Gradient has."""
    machines = json.loads(MACHINES.read_text("utf-8"))["machines"]
    return {machine["name"]: machine["gpus"] for machine in machines}


@pass_context
def gradient_notebook(context: Context, name: str, title: str, free: str = "") -> str:
    """Define a notebook on Gradient's free machine of that name, else on one of the kind `name`."""
    chosen = free or machine(name, context["cookiecutter"])
    values = {"name": name, "title": title, "machine": chosen, **runtime(context)}
    return _render(context, HERE / "runtimes" / "notebook.jinja", values)


@pass_context
def license(context: Context, name: str) -> str:
    """Write the licence of that name."""
    return _render(context, HERE / "licenses" / name, {})


@pass_context
def install(context: Context) -> str:
    """Write how a job installs what the project requires, beside what its image brings."""
    lines = ["python -m pip install --quiet --requirement /inputs/repo/requirements.txt"]
    if overlay := runtime(context)["gradient"]["overlay"]:
        image = "if python -c 'import sys; sys.exit(sys.prefix != sys.base_prefix)'; then"
        venv = "  python -m venv --system-site-packages --without-pip /tmp/overlay"
        here = f"  PATH=/tmp/overlay/bin:$PATH; overlay=({shell(overlay)})"
        why = "# In an image, what is added lies beside what that brings, which stays as it is."
        lines = [why, image, venv, here, "fi", f'{lines[0]} "${{overlay[@]}}"']
    return "\n".join(lines)


@pass_context
def framework_file(context: Context, name: str) -> str:
    """Give a file of frameworks/<framework>, as it is."""
    path: Path = HERE / "frameworks" / context["cookiecutter"]["framework"] / name
    return path.read_text("utf-8").rstrip("\n")


def comparison() -> str:
    """Give services.md: the services side by side, with sources and dates."""
    return (HERE / "services.md").read_text("utf-8").rstrip("\n")


@cache
def mapping(path: Path, otherwise: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping."""
    try:
        content = yaml.load(path.read_text("utf-8"), LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CatalogueError(f"{path}:{line}: {error.problem}") from error
    if not isinstance(content, dict):
        raise CatalogueError(f"{path}:1: {otherwise}")
    return content


@pass_context
def workflow(context: Context, name: str) -> str:
    """Render workflows/<name>.yaml with the answers."""
    return _render(context, _find("workflows", name), {})


@pass_context
def notebook(context: Context, name: str, **values: str) -> str:
    """Write notebooks/<name>.py, cells in the percent format, as a notebook for Jupyter and Colab.

    In it @NAME@ is replaced by the value of that name. Colab is asked for the GPU that the machine
    of Gradient has, where Colab offers it, else for its free one; for none where that has none.
    """
    text = _find("notebooks", name, "py").read_text("utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key.upper()}@", value)
    cells = [_cell(bool(kind), id, body.strip("\n")) for kind, id, body in CELL.findall(text)]
    metadata: dict[str, Any] = {
        "colab": {"provenance": [], "toc_visible": True},
        "kernelspec": {"display_name": "Python 3", "name": "python3"},
        "language_info": {"name": "python"},
    }
    answer, colab = context["cookiecutter"]["gradient_machine"], runtime(context)["colab"]
    if _gpus()[answer]:
        metadata["accelerator"] = colab["accelerators"][0]
        alike = answer.split("-")[0]
        metadata["colab"]["gpuType"] = alike if alike in colab["gpus"] else colab["gpus"][0]
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)


def _cell(is_markdown: bool, id: str, text: str) -> dict[str, Any]:
    """Make a cell of a notebook; a Markdown cell's lines are comments in the percent format."""
    if is_markdown:
        lines = [line.removeprefix("#").removeprefix(" ") for line in text.splitlines()]
        source = "\n".join(lines).splitlines(keepends=True)
        return {"cell_type": "markdown", "id": id, "metadata": {}, "source": source}
    code = {"execution_count": None, "outputs": [], "source": text.splitlines(keepends=True)}
    metadata: dict[str, Any] = {"cellView": "form"} if text.startswith("#@title") else {}
    if "#@param" not in text:
        # Nothing to choose, so nothing to see: in Colab the form hides it, in JupyterLab this.
        metadata["jupyter"] = {"source_hidden": True}
    return {"cell_type": "code", "id": id, "metadata": metadata, **code}


@cache
def _templates(environment: Environment, folder: Path) -> Environment:
    """Look for templates in a folder; each is compiled once, which takes longer than rendering."""
    return environment.overlay(loader=FileSystemLoader(folder))


def _render(context: Context, path: Path, values: dict[str, Any]) -> str:
    """Render a file of the catalogue with the answers and some values."""
    templates = _templates(context.environment, path.parent)
    try:
        text = templates.get_template(path.name).render({**context.get_all(), **values})
    except TemplateError as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next(f.lineno for f in reversed(frames) if f.filename == str(path))
        raise CatalogueError(f"{path}:{line}: {error.message}") from error
    return text.rstrip("\n")


def _find(folder: str, name: str, suffix: str = "yaml") -> Path:
    path = HERE / folder / f"{name}.{suffix}"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob(f"*.{suffix}")))
        raise CatalogueError(f"There is no {path}: {folder}/ holds {known}.")
    return path
