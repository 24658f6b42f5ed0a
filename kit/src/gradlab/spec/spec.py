"""A Gradient Workflow spec as data that code can rely on.

Promises: `parse` never fails: parts of the wrong shape, which `check` reports, are left out. For a
document that `check` found free of errors the spec is complete.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..base.errors import GradlabError
from .document import Document, Mark

FOLDER = Path(".gradient", "workflows")
_SOURCE = re.compile(r"(workflow)\.inputs\.(.+)|(.+)\.outputs\.(.+)", re.DOTALL)


@dataclass(frozen=True)
class Port:
    """An input or output of a job or of the workflow."""

    name: str
    type: str  # dataset, volume, string, alias; "reference" for an input from another job
    ref: str | None  # a dataset as written: "data", "data:latest", "team/data:version"
    source: tuple[str, str] | None  # (JOB, OUTPUT), or ("workflow", INPUT)
    value: str | None  # of a string
    mark: Mark
    optional: bool = False


@dataclass(frozen=True)
class Job:
    """One step of a workflow; `env` and `resources` include the workflow's defaults."""

    name: str
    needs: tuple[str, ...]
    uses: str
    parameters: dict[str, Any]
    inputs: dict[str, Port]
    outputs: dict[str, Port]
    env: dict[str, str]
    resources: dict[str, Any]
    timeout: float | None
    mark: Mark


@dataclass(frozen=True)
class Spec:
    """A workflow; `env` and `resources` are its defaults, `on` its trigger."""

    path: Path
    env: dict[str, str]
    resources: dict[str, Any]
    inputs: dict[str, Port]
    jobs: dict[str, Job]
    on: dict[str, Any] | None
    context: dict[str, Any]

    @property
    def pushed(self) -> bool:
        """Tell whether a push runs the workflow."""
        return bool(self.on and self.on.get("github"))


def parse(document: Document) -> Spec:
    """Give the spec that a document holds."""
    data = document.data
    defaults = _mapping(data.get("defaults"))
    env, resources = _texts(defaults.get("env")), _mapping(defaults.get("resources"))
    jobs = {
        name: _job(document, name, job, env, resources)
        for name, job in _mapping(data.get("jobs")).items()
        if isinstance(job, dict)
    }
    on = data.get("on")
    return Spec(
        path=document.path,
        env=env,
        resources=resources,
        inputs=_ports(document, data, "inputs"),
        jobs=jobs,
        on=on if isinstance(on, dict) else None,
        context=_mapping(data.get("context")),
    )


def _job(
    document: Document, name: str, data: dict[str, Any], env: dict[str, str], resources: Any
) -> Job:
    needs, timeout = data.get("needs"), data.get("timeout")
    needs = [needs] if isinstance(needs, str) else needs
    return Job(
        name=name,
        needs=tuple(need for need in _list(needs) if isinstance(need, str)),
        uses=_text(data.get("uses")) or "",
        parameters=_mapping(data.get("with")),
        inputs=_ports(document, data, "jobs", name, "inputs"),
        outputs=_ports(document, data, "jobs", name, "outputs"),
        env=env | _texts(data.get("env")),
        resources=resources | _mapping(data.get("resources")),
        timeout=timeout if isinstance(timeout, int | float) else None,
        mark=document.mark("jobs", name),
    )


def _ports(document: Document, data: dict[str, Any], *keys: str) -> dict[str, Port]:
    ports = _mapping(data.get(keys[-1]))
    return {name: _port(name, port, document.mark(*keys, name)) for name, port in ports.items()}


def _port(name: str, data: Any, mark: Mark) -> Port:
    if isinstance(data, str):
        return Port(name, "reference", None, source(data), None, mark)
    data = _mapping(data)
    values = _mapping(data.get("with"))
    return Port(
        name=name,
        type=_text(data.get("type")) or "",
        ref=_text(values.get("ref", values.get("id"))),  # `id` is what `ref` was called once
        source=None,
        value=_text(values.get("value")),
        mark=mark,
        optional=data.get("optional") is True,
    )


def to_json(spec: Spec) -> dict[str, Any]:
    """Give a spec as plain data, but for dates, which are texts to whoever writes them as JSON."""
    return asdict(spec) | {"path": spec.path.name}


def from_json(data: dict[str, Any], folder: Path) -> Spec:
    """Give the spec that was made plain data; its file lies in a folder."""
    jobs = {name: _job_from(job) for name, job in data["jobs"].items()}
    inputs = _ports_from(data["inputs"])
    return Spec(**{**data, "path": folder / data["path"], "jobs": jobs, "inputs": inputs})


def _job_from(data: dict[str, Any]) -> Job:
    ports = {name: _ports_from(data[name]) for name in ("inputs", "outputs")}
    return Job(**{**data, **ports, "needs": tuple(data["needs"]), "mark": Mark(**data["mark"])})


def _ports_from(data: dict[str, Any]) -> dict[str, Port]:
    return {name: _port_from(port) for name, port in data.items()}


def _port_from(data: dict[str, Any]) -> Port:
    found = data["source"]
    source = (found[0], found[1]) if found else None
    return Port(**{**data, "source": source, "mark": Mark(**data["mark"])})


def source(text: str) -> tuple[str, str] | None:
    """Take `JOB.outputs.X` or `workflow.inputs.X` apart, or give None."""
    match = _SOURCE.fullmatch(text)
    return (match[1] or match[3], match[2] or match[4]) if match else None


def _mapping(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _list(data: Any) -> list[Any]:
    return data if isinstance(data, list) else []


def _text(data: Any) -> str | None:
    return data if isinstance(data, str) else None


def _texts(data: Any) -> dict[str, str]:
    return {key: value for key, value in _mapping(data).items() if isinstance(value, str)}


def workflow_files(root: Path) -> list[Path]:
    """Give the workflow files of a project, by name."""
    folder = root / FOLDER
    return sorted(path for path in folder.glob("*.y*ml") if path.suffix in (".yaml", ".yml"))


def find(name: str, root: Path) -> Path:
    """Give the file of the workflow `name` of the project at `root`."""
    found = {path.stem: path for path in reversed(workflow_files(root))}
    stem = name.removesuffix(".yaml").removesuffix(".yml")
    if stem in found:
        return found[stem]
    if not found:
        raise GradlabError(f"there is no workflow {name!r}: {root / FOLDER} holds no YAML file")
    near = get_close_matches(stem, found, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise GradlabError(f"there is no workflow {name!r}; there are {', '.join(sorted(found))}{hint}")
