"""What `gradlab check` has found, and the forms in which it says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ..base.terminal import printable
from ..spec.document import Problem
from .registry import RULES, Severity

Format = Literal["text", "github", "json"]


@dataclass(frozen=True, order=True)
class Finding:
    """One thing wrong in a workflow file; `str` gives it as a line."""

    path: Path
    line: int
    column: int
    rule: str
    severity: Severity
    message: str
    advice: str

    def __str__(self) -> str:
        place = f"{printable(str(self.path))}:{self.line}:{self.column}"
        return f"{place}: {self.severity} [{self.rule}] {self.message}; {self.advice}"


def finding(path: Path, problem: Problem) -> Finding:
    """Make a finding of a problem."""
    mark, severity = problem.mark, RULES[problem.rule].severity
    return Finding(
        path, mark.line, mark.column, problem.rule, severity, problem.message, problem.advice
    )


def render(findings: Sequence[Finding], files: int, form: Format) -> str:
    """Give the findings as text for a terminal, as commands for GitHub's runner, or as JSON."""
    if form == "json":
        return json.dumps([asdict(each) | {"path": str(each.path)} for each in findings], indent=2)
    if form == "github":
        return "\n".join(_github(each) for each in findings)
    errors = sum(each.severity == "error" for each in findings)
    warnings = len(findings) - errors
    summary = f"{_count(files, 'file')}: {_count(errors, 'error')}, {_count(warnings, 'warning')}"
    return "\n".join([*map(str, findings), summary])


def _github(found: Finding) -> str:
    places = {"file": found.path, "line": found.line, "col": found.column, "title": found.rule}
    properties = ",".join(
        f"{key}={_escape(printable(str(value)), ':,')}" for key, value in places.items()
    )
    return f"::{found.severity} {properties}::{_escape(f'{found.message}; {found.advice}')}"


def _escape(text: str, more: str = "") -> str:
    """Escape what ends a command or a property in the log of GitHub's runner."""
    return "".join(f"%{ord(c):02X}" if c in "%\r\n" + more else c for c in text)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)
