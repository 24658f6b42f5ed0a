"""Which engine runs the jobs.

    container    docker or podman, in the job's image
    bubblewrap   Linux namespaces: this machine's system under a root of the job's own
    machine      this machine itself, where it is thrown away afterwards and the user is root
    paths        anywhere: the folders' real paths in the place of /inputs and /outputs

`auto` takes the first that works; a container only where the images are on this machine already,
for they are large. Everywhere but in a container the job sees this machine's Python, the one that
runs gradlab, and its image is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..base.errors import GradlabError
from .bubblewrap import Bubblewrap
from .container import Container
from .machine import Machine
from .paths import Paths
from .protocol import Engine


def choose(asked: str, images: Sequence[str]) -> tuple[Engine, list[str]]:
    """Give the engine asked for, or the first that works, and what kept others from working.

    Raises GradlabError where the one asked for doesn't work.
    """
    candidates: dict[str, Callable[[], Engine | str]] = {
        "container": lambda: Container.find(images, pull=asked == "container"),
        "bubblewrap": Bubblewrap.find,
        "machine": lambda: Machine.find(asked == "machine"),
        "paths": Paths,
    }
    problems: list[str] = []
    for name in candidates if asked == "auto" else [asked]:
        engine = candidates[name]()
        if not isinstance(engine, str):
            return engine, problems
        problems.append(f"{name}: {engine}")
    raise GradlabError(f"the engine {problems[0]}; --engine auto takes one that works")
