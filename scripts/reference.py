"""Write docs/reference.md from the code: what --help prints, and the rules of gradlab check.

Promises: the same code gives the same page, whatever the terminal and the version of Python.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
KIT = ROOT / "kit" / "src"
PACKAGE = ROOT / "{{cookiecutter.project_slug}}" / "src" / "{{cookiecutter.project_slug}}"
PAGE = ROOT / "docs" / "reference.md"
COLUMNS = "92"
INTRODUCTION = """\
# Reference

What `--help` prints for each command, and what `gradlab check` can find. Made from the code by
`make docs`; a test compares the two. `<package>` stands for the name of your project's package.
"""
RULES_INTRODUCTION = """\
## Findings of `gradlab check`

An error is what fails at the service, a warning what probably is a mistake. Only errors change
the exit code.

| rule | severity | what is wrong |
|---|---|---|"""

sys.path.insert(0, str(KIT))

from gradlab import __main__ as kit  # noqa: E402
from gradlab.check.check import RULES  # noqa: E402
from gradlab.cli import Command, main, name_of  # noqa: E402


def programs() -> dict[str, Sequence[Command]]:
    """Give the commands of each program, in the order of its help."""
    return {"gradlab": kit.commands(), "python -m <package>": _package_commands()}


def _package_commands() -> list[Command]:
    # No import statement can name the package: it has braces and a dot where a name will be.
    spec = importlib.util.spec_from_file_location(
        "package", PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
    )
    assert spec
    sys.modules["package"] = importlib.util.module_from_spec(spec)
    module = importlib.import_module("package.__main__")
    functions = [each for _, each in inspect.getmembers(module, inspect.isfunction)]
    own = [each for each in functions if each.__module__ == module.__name__]
    return sorted(own, key=lambda function: function.__code__.co_firstlineno)


def help_of(program: str, commands: Sequence[Command], *names: str) -> str:
    """Give what a program, or the command of it that is named, prints for --help."""
    # With an encoding, for the frames are drawn in ASCII where it is unknown.
    screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with (
        patch.dict(os.environ, {"COLUMNS": COLUMNS}),
        redirect_stdout(screen),
        suppress(SystemExit),
    ):
        main(program, commands, [*names, "--help"])
    screen.seek(0)
    return screen.read().strip()


def page() -> str:
    """Give the whole page."""
    return "\n".join([INTRODUCTION, *_commands(), RULES_INTRODUCTION, *_rules(), ""])


def _commands() -> Iterator[str]:
    for program, commands in programs().items():
        yield f"## `{program}`\n"
        yield f"```text\n{help_of(program, commands)}\n```\n"
        for command in commands:
            name = name_of(command)
            yield f"### `{program} {name}`\n"
            yield f"```text\n{help_of(program, commands, name)}\n```\n"


def _rules() -> Iterator[str]:
    for name, rule in RULES.items():
        yield f"| `{name}` | {rule.severity} | {rule.text} |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
