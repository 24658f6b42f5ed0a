"""`gradlab check`: what is wrong with a workflow file, before the service is asked.

A manifest of Argo's, which `gradlab export` makes, is looked at by rules of its own.

Promises: each finding names file, line and column, its rule, what is wrong and what would do; what
works on the service is never an error.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import tyro

from ..base.errors import GradlabError
from ..services import session
from ..spec.document import SpecError
from ..spec.reader import read
from ..spec.spec import FOLDER, Spec, parse, workflow_files
from .findings import Finding, Format, finding, render
from .registry import RULES, apply
from .rules import argo
from .rules.structure import structure

__all__ = ["RULES", "Finding", "check", "check_command", "load"]


def check(path: Path) -> list[Finding]:
    """Give all that is wrong with a workflow file, in the order of its lines."""
    return _examine(path, manifests=True)[0]


def load(path: Path) -> Spec:
    """Give the spec of a workflow file; raises `GradlabError` that names all its errors."""
    findings, spec = _examine(path)
    errors = [each for each in findings if each.severity == "error"]
    if errors or spec is None:
        raise GradlabError("\n".join(map(str, errors)))
    return spec


def _examine(path: Path, manifests: bool = False) -> tuple[list[Finding], Spec | None]:
    try:
        document = read(path)
    except SpecError as error:
        return [finding(path, error.problem)], None
    spec = parse(document)
    if manifests and argo.is_manifest(document):
        problems = chain(document.problems, argo.problems(document))
    else:
        problems = chain(document.problems, structure(document), apply(spec, document))
    return sorted({finding(path, problem) for problem in problems}), spec


def check_command(
    files: tyro.conf.Positional[tuple[Path, ...]] = (), format: Format = "text"
) -> int:
    """Check Gradient Workflow files: exit code 0, 1 for errors, 2 for files that can't be read.

    Manifests of Argo Workflows, such as gradlab export makes, are checked by rules of their own.

    Args:
        files: The files; without any, all workflows of this project.
        format: text for people, github for annotations in a pull request, json for programs.
    """
    paths = list(files) or _project_files()
    findings = [each for path in paths for each in check(path)]
    print(render(findings, len(paths), format))
    if any(each.rule == "unreadable" for each in findings):
        return 2
    return int(any(each.severity == "error" for each in findings))


def _project_files() -> list[Path]:
    root = session.project_root()
    found = workflow_files(root)
    if not found:
        raise GradlabError(f"there is no workflow to check: {root / FOLDER} holds no YAML file")
    here = Path.cwd()
    return [path.relative_to(here) if path.is_relative_to(here) else path for path in found]
