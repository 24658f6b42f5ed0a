"""`gradlab setup`: what this project's workflows need, made at the Gradient service.

Promises: nothing is made before all workflows are without errors; what is there is left as it
is, so that running it again makes only what is missing. No id is kept in a file: everything is
found at the service by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ...base.errors import GradlabError
from ...base.tables import row
from ...services import session
from .needs import Needs, read
from .service import Failure, connect
from .steps import Outcome, Steps

RUNTIMES = "runtimes"
FORBIDDEN = (402, 403, 404)  # what an account without Workflows may be told
DOORS = """
This account can't use Gradient Workflows, as many can't ({reason}).
The same workflows run by other doors:
  a Gradient notebook  gradlab setup --notebook NAME ({notebooks}), and in it: gradlab run {name}
  Google Colab         the badge in README.md opens notebooks/train.ipynb there
  GitHub Actions       a push runs them on GitHub: .github/workflows/checks.yaml
  this machine         gradlab run {name}"""
NEXT = """
Next: a push runs what `on` names, once the repository is linked to the project by the GitHub App
"paperspace-gradient" (https://console.paperspace.com). By hand: gradlab submit {name}"""


def setup_command(
    project: str | None = None, notebook: str | None = None, dry_run: bool = False
) -> int:
    """Make what the workflows need at Gradient: project, datasets, secrets, workflows.

    Args:
        project: Name or id of the project there; the name is this project's unless given.
        notebook: Make, and so start, the notebook of runtimes/NAME.yaml too.
        dry_run: Only look, and show what would be made.
    """
    root = session.project_root()
    needs = read(root)
    options = _options(root, notebook) if notebook else None
    wanted = project or session.project_name(root)
    names = [wanted, *needs.datasets, *needs.references, *needs.secrets, *needs.workflows]
    names += [options[1]] if options else []
    with connect(root) as service:
        report = Report(max(map(len, names)))
        steps = Steps(service, dry_run)
        try:
            _all(steps, report, wanted, needs, options)
        except KeyboardInterrupt:
            print("\ninterrupted: the same command makes what is missing")
            return 130
    return report.finish(root, dry_run, next(iter(needs.workflows)))


def _all(
    steps: Steps, report: Report, wanted: str, needs: Needs, options: tuple[Path, str] | None
) -> None:
    project = report.step("project", wanted, partial(steps.project, wanted))
    for name, place in needs.datasets.items():
        report.step("dataset", name, partial(steps.dataset, name), place)
    for text, place in needs.references.items():
        report.step("dataset", text, partial(steps.reference, text), place)
    if project is None:
        report.skip("secret", needs.secrets)
        report.skip("workflow", needs.workflows)
        report.skip("notebook", [options[1]] if options else [])
        return
    id = project.id
    for name, place in needs.secrets.items():
        report.step("secret", name, partial(steps.secret, name, id), place)
    for name, place in needs.workflows.items():
        report.step("workflow", name, partial(steps.workflow, name, id), place)
    if options:
        path, name = options
        report.step("notebook", name, partial(steps.notebook, name, path, id), str(path))


class Report:
    """Prints each step as it ends, and remembers what could not be done."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.failed = 0
        self.fatal = False
        self.closed = ""  # why there are no Workflows
        self._row("step", "name", "state", "id")
        print("-" * (width + 36))

    def step(
        self, kind: str, name: str, do: Callable[[], Outcome], place: str = ""
    ) -> Outcome | None:
        """Do a step and print what became of it; None where it could not be done."""
        if self.fatal or (kind == "workflow" and self.closed):
            self.skip(kind, [name])
            return None
        try:
            done = do()
        except Failure as error:
            self._fail(kind, name, error, place)
            return None
        self._row(kind, name, done.state, " ".join(filter(None, (done.id, done.remark))))
        return done

    def skip(self, kind: str, names: Iterable[str]) -> None:
        """Print steps that were not tried, since what they need is missing."""
        for name in names:
            self.failed += 1
            self._row(kind, name, "not tried", "")

    def finish(self, root: Path, dry: bool, workflow: str) -> int:
        """Say what comes next; give the exit code."""
        if self.closed:
            notebooks = ", ".join(_runtimes(root)) or f"none in {RUNTIMES}"
            print(DOORS.format(reason=self.closed, notebooks=notebooks, name=workflow))
        if self.failed:
            print(f"\n{self.failed} could not be done: mend it, and run it again for the rest.")
            return 1
        print("\nNothing was made: a dry run." if dry else NEXT.format(name=workflow))
        return 0

    def _fail(self, kind: str, name: str, error: Failure, place: str) -> None:
        self.failed += 1
        self.fatal = error.fatal
        if kind == "workflow" and error.status in FORBIDDEN:
            self.closed = f"HTTP {error.status}"
        self._row(kind, name, "could not", "")
        print(f"  {place}: {error}" if place else f"  {error}")

    def _row(self, kind: str, name: str, state: str, rest: str) -> None:
        print(row((kind, name, state, rest), (8, self.width, 9, 0)), flush=True)


def _options(root: Path, notebook: str) -> tuple[Path, str]:
    """Give the options file of a notebook and the name in it."""
    path = root / RUNTIMES / f"{notebook.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        there = ", ".join(_runtimes(root)) or "none"
        raise GradlabError(f"there is no notebook {notebook!r}: {path.parent} has {there}")
    try:
        options: Any = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GradlabError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    name = options.get("name") if isinstance(options, dict) else None
    if not isinstance(name, str) or not name:
        raise GradlabError(f"{path} has no `name`, by which the notebook is found again: add one")
    return path, name


def _runtimes(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / RUNTIMES).glob("*.yaml"))
