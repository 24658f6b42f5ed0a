"""`gradlab doors`: which services are open to this account, what is held there, what it costs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import tyro

from ...base.errors import GradlabError, note
from ...base.tables import table
from ...services import session
from ..gradient import service as gradient
from .doors import KINDS, Doors, parse
from .protocol import GPU

GRADIENT = "gradient"
OPEN, FULL, SHUT = "open", "no room", "not open"


def doors_command(names: tyro.conf.Positional[str] = "", install: bool = False) -> int:
    """Show which services a run can be handed to, what is held there now, and what it costs.

    Args:
        names: One of them, or several with commas between; all unless given.
        install: Install their clients first, each in an environment of its own.
    """
    wanted = _parse(names) if names else [*KINDS, GRADIENT]
    root = session.project_root()
    if install:
        for name in wanted:
            client = gradient.CLIENT if name == GRADIENT else KINDS[name].client
            _install(client.installation(root), name)
    rows, held = [("door", "state", "")], [("door", "held", "hop", "costs")]
    with Doors(root) as doors:
        for name in wanted:
            try:
                if name == GRADIENT:
                    rows.append((name, OPEN, _gradient(root)))
                    continue
                door = doors[name]
                standing = door.standing(GPU)
                rows.append((name, OPEN if standing.room else FULL, standing.said))
                held += [(name, each.what, each.name, each.cost) for each in door.held()]
            except GradlabError as error:
                first, *more = str(error).splitlines()
                if more:
                    first += f" gradlab doors {name} --install"
                rows.append((name, SHUT, first))
    _show(rows, held)
    return 0


def _parse(names: str) -> list[str]:
    """Read a list of doors, of which Gradient is one that runs the whole workflow itself."""
    given = [name.strip() for name in names.split(",")]
    others = [name for name in given if name != GRADIENT]
    return [*(parse(",".join(others)) if others else []), *[GRADIENT] * (GRADIENT in given)]


def _gradient(root: Path) -> str:
    with gradient.connect(root) as service:
        return f"{len(service.projects())} projects; whether it has Workflows, gradlab setup says"


def _show(rows: Sequence[tuple[str, ...]], held: Sequence[tuple[str, ...]]) -> None:
    for line in table(rows):
        print(line)
    print()
    if len(held) == 1:
        print("Nothing is held.")
    for line in table(held) if len(held) > 1 else ():
        print(line)


def _install(steps: Sequence[Sequence[str]], name: str) -> None:
    note(f"installing the client of {name}")
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise GradlabError(f"the client of {name} could not be installed:\n{said[-2000:]}", 1)
