"""What `gradlab check` can find: the one table of its rules, and a finding's forms.

Promises: every finding has a rule of this table, and the rule alone decides its severity.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ..base.terminal import printable
from ..spec.document import Problem

Severity = Literal["error", "warning"]
Format = Literal["text", "github", "json"]

RULES: dict[str, tuple[Severity, str]] = {
    # The file
    "unreadable": ("error", "the file is missing, too large or no text in UTF-8 (exit code 2)"),
    "syntax": ("error", "the file is no sound YAML"),
    "tab": ("error", "a tab stands where YAML wants spaces"),
    "tab-separator": ("warning", "a tab stands between a key and its value or at a line's end"),
    "alias": ("error", "an alias has no anchor, refers to itself or stands for too much"),
    "tag": ("error", "a YAML tag asks for more than plain values"),
    "duplicate-key": ("error", "a key stands twice in a mapping"),
    "non-string-key": ("error", "YAML 1.1 reads a key as something other than text"),
    "on-boolean": ("warning", "`on` is not quoted, so that YAML 1.1 reads it as true"),
    # Structure
    "type": ("error", "a value is of the wrong type"),
    "non-string": ("error", "YAML reads a value that must be text as something else"),
    "name": (
        "error",
        "a name of a job, port, variable, dataset or model can't work",
    ),
    "missing-key": ("error", "a key that is required is missing"),
    "unknown-key": ("warning", "a key is not part of a workflow"),
    "github-actions-key": ("error", "a key of GitHub Actions, which fails on Gradient"),
    "on-shape": ("error", "`on` is not of the one form that works"),
    "needs-list": ("error", "`needs` is no list"),
    "no-uses": ("error", "a job does not say which action it uses"),
    "unknown-action": ("error", "no such action exists"),
    "missing-parameter": ("error", "an action lacks a parameter in `with`"),
    "unknown-parameter": ("warning", "an action does not know a parameter in `with`"),
    "missing-port": ("error", "an action lacks the input or output that it works on"),
    "model-type": ("warning", "create-model does not know the model's type"),
    "port-type": ("error", "an input or output is of an unknown type"),
    "dataset-without-ref": ("error", "a dataset does not say which one it is"),
    # The graph
    "unknown-need": ("error", "a job needs one that does not exist"),
    "cycle": ("error", "jobs wait for each other"),
    "input-reference": ("error", "an input is neither JOB.outputs.NAME nor workflow.inputs.NAME"),
    "input-not-needed": ("error", "an input comes from a job that is not in `needs`"),
    "unknown-output": ("error", "an input comes from an output that the other job lacks"),
    "unknown-workflow-input": ("error", "an input comes from a workflow input that is missing"),
    # Paths and datasets
    "path-spelling": ("warning", "a script uses /input, /Outputs or the like"),
    "file-or-folder": ("error", "a script uses a string as a folder, or a folder as a file"),
    "undeclared-path": (
        "error",
        "a script uses /inputs/NAME or /outputs/NAME undeclared",
    ),
    "unused-input": ("warning", "a script does not use an input"),
    "unused-output": ("warning", "a script does not use an output"),
    "dataset-of-same-run": (
        "warning",
        "a dataset is read from outside after an earlier job made it",
    ),
    "reference-as-ref": ("warning", "a dataset's ref is the output of a job"),
    "old-id": ("warning", "a dataset is named by the old key `id`"),
    "volume-twice": ("warning", "a volume is an output for a second time"),
    "output-path": ("error", "an action that fills an output does not say which, or a wrong one"),
    # Scripts
    "pipe-hides-failure": ("warning", "a pipeline may leave a string empty, and nothing fails"),
    "foreign-expression": (
        "warning",
        "an expression of another system, such as Argo's, which nothing replaces",
    ),
    "github-expression": ("error", "an expression of GitHub Actions, which nothing replaces"),
    "foreign-variable": ("warning", "a variable that GitHub or GitLab sets, and Gradient does not"),
    # The service
    "unknown-machine": ("warning", "no such machine type is known"),
    "free-machine": ("error", "free machines are for notebooks only"),
    "registries-place": ("error", "container-registries stand outside `defaults.resources`"),
    "event-without-push": ("warning", "context.event.github is used in a file that no push runs"),
    "checkout-without-ref": (
        "warning",
        "the branch's tip is run, not the pushed commit",
    ),
    "unknown-branch": ("warning", "`on` names a branch that this repository does not have"),
    "unknown-context": ("error", "a part of the context does not exist"),
    "repository-url": ("error", "the url of a checkout is no repository's"),
    "s3-url": ("error", "the url of a download is no bucket's"),
    "image-name": ("error", "an image has a name that no registry takes"),
    "input-without-value": ("warning", "nothing gives an input its value"),
    # Secrets
    "secret-in-clear": ("error", "a password, token or key stands in the file"),
    "possible-secret": ("warning", "a value looks like a password, token or key"),
    "secret-not-whole": (
        "error",
        "`secret:NAME` is a part of a value, without effect",
    ),
}


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
    mark, severity = problem.mark, RULES[problem.rule][0]
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
