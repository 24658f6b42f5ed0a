"""`slurm.yaml` at a project's top: what a workflow's `instance-type` is on a cluster.

    P4000: {partition: gpu, gres: "gpu:1", time: "4:00:00", memory: 30G, cpus: 8}
    default: {partition: cpu, time: "1:00:00"}      jobs without an instance-type

Promises: any file ends in a table or in an error that names the place and what would do. Values are
taken as they are written: YAML would read 4:00:00 as a number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...check.words import close
from ...spec.document import Document, Problem, SpecError
from ...spec.spec import Job, Spec
from .. import kinds

FILE = "slurm.yaml"
EXAMPLE = '{partition: NAME, time: "4:00:00", memory: 16G, cpus: 4}'
MARGIN = 120  # seconds before the limit at which a job is told to save, at most
LEAST = 25  # the same, at least: it may need 10 seconds to save and some to copy
TIME = r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?"
# What each key may hold, in words, and sbatch's option for it.
KEYS = {
    "partition": (r"[\w.,-]+", "the name of a partition", "--partition={}"),
    "gres": (r"[\w.,:=-]+", "generic resources, such as gpu:1", "--gres={}"),
    "time": (TIME, "a time limit, such as 4:00:00 or 2-12:00:00", "--time={}"),
    "memory": (r"\d+[KMGT]?", "a size for each machine, such as 16G", "--mem={}"),
    "cpus": (r"[1-9]\d*", "a number of processors", "--cpus-per-task={}"),
    "account": (r"[\w.@-]+", "the name of an account", "--account={}"),
    "qos": (r"[\w.-]+", "the name of a quality of service", "--qos={}"),
    "constraint": (r"[\w.&|*\[\]()-]+", "features of a machine", "--constraint={}"),
    "nodes": (r"[1-9]\d*", "a number of machines", "--nodes={}"),
    "engine": (r"auto|container|bubblewrap|paths", "auto, container, bubblewrap or paths", ""),
}


@dataclass(frozen=True)
class Row:
    """What one kind of machine is asked for as."""

    values: dict[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        """In which the job runs on its machine."""
        return self.values.get("engine", "auto")

    def options(self) -> list[str]:
        """Give sbatch's options."""
        found = [KEYS[key][2].format(value) for key, value in self.values.items() if KEYS[key][2]]
        each = ["--ntasks-per-node=1"] * ("nodes" in self.values)
        return [*found, *each, f"--signal=B:TERM@{self.margin()}"]

    def margin(self) -> int:
        """Give the seconds before the time limit at which the job is told to save."""
        limit = seconds(self.values["time"]) if "time" in self.values else MARGIN * 10
        return max(LEAST, min(MARGIN, limit // 10))


def seconds(text: str) -> int:
    """Read a time as Slurm does: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    match = re.fullmatch(TIME, text)
    assert match
    days, *rest = match.groups()
    numbers = [int(number) for number in rest if number]
    if days:
        hours, minutes, last = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, last = numbers
    else:
        hours, (minutes, last) = 0, (*numbers, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + last


def rows(root: Path, spec: Spec, jobs: Sequence[Job]) -> dict[str, Row]:
    """Give each job's row; GradlabError for a table that can't be taken, and for rows it lacks."""
    return kinds.rows(root / FILE, spec, jobs, _row, EXAMPLE)


def _row(document: Document, name: str) -> Row:
    data = document.data[name]
    if not isinstance(data, dict):
        raise _wrong(document, "what a machine is has to be a mapping", f"{name}: {EXAMPLE}", name)
    row = Row({key: _value(document, name, key) for key in data})
    if row.values.get("nodes", "1") != "1" and row.engine != "paths":
        message = (
            f"`nodes: {row.values['nodes']}` needs the engine paths, for no other reaches Slurm"
        )
        raise _wrong(document, message, "write `engine: paths` beside it", name, "nodes")
    return row


def _value(document: Document, name: str, key: str) -> str:
    if key not in KEYS:
        advice = close(key, KEYS) or f"there are {', '.join(KEYS)}"
        raise _wrong(document, f"there is no key `{key}`", advice, name, key)
    pattern, words, _ = KEYS[key]
    written = document.written(name, key)
    if not re.fullmatch(pattern, written) or (key == "time" and not seconds(written)):
        shown = f"`{written}`" if written else "what stands here"
        raise _wrong(document, f"{shown} is not {words}", "write one", name, key)
    return written


def _wrong(document: Document, message: str, advice: str, *keys: str) -> SpecError:
    return SpecError(document.path, Problem(document.mark(*keys), "slurm", message, advice))
