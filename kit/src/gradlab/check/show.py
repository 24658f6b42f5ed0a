"""`gradlab show`: a workflow's jobs as a table, and its graph as a Mermaid diagram.

Promises: whatever the names are, Mermaid can read the diagram.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import TopologicalSorter

import tyro

from ..base.tables import listed, table
from ..services import session
from ..spec.spec import Job, Port, Spec, find
from .check import load

# What Mermaid or the Markdown in it could take for syntax, such as the list "1. ".
_SPECIAL = re.compile(r"[^\w /@,.:-]|\.(?= )|^-(?= )")
_HEADING = ("job", "needs", "action", "machine", "inputs", "outputs")


def show_command(name: tyro.conf.Positional[str], mermaid: bool = False) -> int:
    """Show the jobs of a workflow and how they depend on each other.

    Args:
        name: The workflow: a file of .gradient/workflows, without its ending.
        mermaid: Print the Mermaid diagram only, as GitHub draws it.
    """
    spec = load(find(name, session.project_root()))
    diagram = to_mermaid(spec)
    print(diagram if mermaid else f"{to_table(spec)}\n\n{diagram}")
    return 0


def to_table(spec: Spec) -> str:
    """Give a table of the jobs, each after those it needs."""
    return "\n".join(table([_HEADING, *(_row(job) for job in _ordered(spec))]))


def to_mermaid(spec: Spec) -> str:
    """Give the graph as a Mermaid flowchart: jobs, what they hand on, and what lies outside."""
    jobs = {job.name: f"job{number}" for number, job in enumerate(_ordered(spec), 1)}
    outside: dict[str, str] = {}
    nodes: list[str] = []
    edges: list[str] = []
    for job in _ordered(spec):
        node = jobs[job.name]
        nodes.append(f'{node}["{_label(job.name, _action(job))}"]')
        edges += _needed(job, jobs)
        for source in filter(None, map(_outside, job.inputs.values())):
            edges.append(f"{outside.setdefault(source, f'data{len(outside) + 1}')} --> {node}")
        for target in filter(None, map(_outside, job.outputs.values())):
            edges.append(f"{node} --> {outside.setdefault(target, f'data{len(outside) + 1}')}")
    nodes += [f'{node}[("{_label(name)}")]' for name, node in outside.items()]
    return "\n    ".join(["flowchart LR", *nodes, *edges])


def _outside(port: Port) -> str | None:
    """Name what an input or output stands for outside of the run, if it does."""
    if port.source and port.source[0] == "workflow":
        return ".inputs.".join(port.source)
    return port.ref if port.type == "dataset" else None


def _needed(job: Job, jobs: dict[str, str]) -> Iterator[str]:
    for need in dict.fromkeys(job.needs):
        sources = (port.source for port in job.inputs.values() if port.source)
        handed = [name for origin, name in sources if origin == need]
        label = f'|"{_label(", ".join(handed))}"|' if handed else ""
        yield f"{jobs[need]} -->{label} {jobs[job.name]}"


def _ordered(spec: Spec) -> list[Job]:
    graph = {job.name: job.needs for job in spec.jobs.values()}
    return [spec.jobs[name] for name in TopologicalSorter(graph).static_order()]


def _row(job: Job) -> tuple[str, ...]:
    return (
        job.name,
        listed(job.needs),
        job.uses,
        _machine(job),
        listed([*map(_describe, job.inputs.values())]),
        listed([*map(_describe, job.outputs.values())]),
    )


def _describe(port: Port) -> str:
    if port.source:
        origin, name = port.source
        return f"{port.name} = {origin}.{name}"
    return f"{port.name} ({' '.join(filter(None, (port.type, port.ref or port.value)))})"


def _action(job: Job) -> str:
    return " on ".join(filter(None, (job.uses, _machine(job))))


def _machine(job: Job) -> str:
    return str(job.resources.get("instance-type", ""))


def _label(*lines: str) -> str:
    """Join lines into a Mermaid text, in which what is not plain stands as a character code."""
    return "<br/>".join(_SPECIAL.sub(lambda found: f"#{ord(found[0])};", line) for line in lines)
