"""`argo.yaml` at a project's top: what a workflow's `instance-type` is on a Kubernetes cluster.

    P4000:
      nodeSelector: {node.kubernetes.io/instance-type: g4dn.xlarge}
      resources: {requests: {cpu: 4, memory: 14Gi}, limits: {nvidia.com/gpu: 1}}
      tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
    default: {}        jobs without an instance-type, and those that run no program of yours

Promises: any file ends in a table or in an error that names the place and what would do. The keys
are those of Kubernetes, the values are taken as they are written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...check.rules.argo import QUANTITY
from ...check.words import close, join
from ...run import kinds
from ...spec.document import Document, Problem, SpecError
from ...spec.spec import Job, Spec

FILE = "argo.yaml"
RUNS = ("script@v1", "container@v1")  # actions that run a program of the user's
EXAMPLE = (
    "{nodeSelector: {LABEL: VALUE}, resources: {requests: {cpu: 4, memory: 16Gi}, limits: "
    "{nvidia.com/gpu: 1}}}"
)
LABEL = re.compile(r"(?:[a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?")
VALUE = re.compile(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?")
SECONDS = re.compile(r"\d+")
GPU = re.compile(r"[\w.-]+/[\w.-]+")  # of such a resource a pod gets whole ones only, by a limit
OPERATORS, EFFECTS = ("Exists", "Equal"), ("NoSchedule", "PreferNoSchedule", "NoExecute")


@dataclass(frozen=True)
class Row:
    """What one kind of machine is asked for as: parts of a template in Argo's terms."""

    node_selector: dict[str, str] = field(default_factory=dict)
    resources: dict[str, dict[str, str]] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)


def rows(root: Path, spec: Spec, jobs: Sequence[Job]) -> dict[str, Row]:
    """Give each job's row; GradlabError for a table that can't be taken, and for rows it lacks."""
    return kinds.rows(root / FILE, spec, jobs, _row, EXAMPLE, _kind, otherwise=Row())


def _row(document: Document, name: str) -> Row:
    return _Reader(document, name).row()


def _kind(job: Job) -> str:
    return kinds.named(job) if job.uses in RUNS else kinds.DEFAULT  # a checkout needs no GPU


class _Reader:
    """Reads one row of the table."""

    def __init__(self, document: Document, name: str) -> None:
        self.document, self.name = document, name

    def row(self) -> Row:
        parts = {
            "nodeSelector": self.labels,
            "resources": self.resources,
            "tolerations": self.tolerations,
        }
        found = self.each(parts, self.name)
        return Row(
            found.get("nodeSelector", {}), found.get("resources", {}), found.get("tolerations", [])
        )

    def each(self, parts: dict[str, Callable[..., Any]], *keys: str | int) -> dict[str, Any]:
        """Read the parts of a mapping, each by a function of its own."""
        data, found = self.mapping(*keys), {}
        for key in data:
            if key not in parts:
                advice = close(key, parts) or f"there are {join(parts)}"
                raise self.wrong(f"there is no key `{key}`", advice, *keys, key)
            found[key] = parts[key](*keys, key)
        return found

    def labels(self, *keys: str | int) -> dict[str, str]:
        for label in self.mapping(*keys):
            if not LABEL.fullmatch(label):
                message = f"`{label}` can't be the label of a node"
                raise self.wrong(message, "write NAME or DOMAIN/NAME", *keys, label)
        words = "the value of a label: letters, digits, `-`, `_` and `.`, at most 63"
        return {label: self.text(VALUE, words, *keys, label) for label in self.mapping(*keys)}

    def resources(self, *keys: str | int) -> dict[str, dict[str, str]]:
        found = self.each(dict.fromkeys(("requests", "limits"), self.quantities), *keys)
        for name in found.get("requests", {}):
            if GPU.fullmatch(name) and name not in found.get("limits", {}):
                message = f"`{name}` is requested without a limit, which Kubernetes refuses"
                raise self.wrong(message, "move it to `limits`", *keys, "requests", name)
        return found

    def quantities(self, *keys: str | int) -> dict[str, str]:
        words, found = "a quantity, such as 4, 500m or 16Gi", {}
        for name in self.mapping(*keys):
            if not LABEL.fullmatch(name):
                advice = "write cpu, memory, ephemeral-storage or DOMAIN/NAME"
                raise self.wrong(f"`{name}` can't be a resource", advice, *keys, name)
            found[name] = self.text(QUANTITY, words, *keys, name)
        return found

    def tolerations(self, *keys: str | int) -> list[dict[str, Any]]:
        data = self.document.get(*keys)
        if not isinstance(data, list):
            advice = "write [{key: KEY, operator: Exists, effect: NoSchedule}]"
            raise self.wrong("tolerations are a list", advice, *keys)
        return [self.toleration(*keys, number) for number in range(len(data))]

    def toleration(self, *keys: str | int) -> dict[str, Any]:
        def one_of(words: Sequence[str]) -> Callable[..., str]:
            return lambda *at: self.text(re.compile("|".join(words)), join(words, "or"), *at)

        parts: dict[str, Callable[..., Any]] = {
            "key": lambda *at: self.text(LABEL, "the key of a taint", *at),
            "operator": one_of(OPERATORS),
            "value": lambda *at: self.text(VALUE, "the value of a taint", *at),
            "effect": one_of(EFFECTS),
            "tolerationSeconds": lambda *at: int(self.text(SECONDS, "a number of seconds", *at)),
        }
        found = self.each(parts, *keys)
        if found.get("operator") == "Exists" and found.get("value"):
            message = "`Exists` takes no value"
            raise self.wrong(message, "remove it, or write `operator: Equal`", *keys, "value")
        if "key" not in found and found.get("operator") != "Exists":
            message = "a toleration without a key tolerates all taints, by `operator: Exists` only"
            raise self.wrong(message, "add the taint's key", *keys)
        return found

    def mapping(self, *keys: str | int) -> dict[str, Any]:
        data = self.document.get(*keys)
        if not isinstance(data, dict):
            advice = f"{self.name}: {EXAMPLE}"
            raise self.wrong(f"`{keys[-1]}` has to be a mapping", advice, *keys)
        return data

    def text(self, pattern: re.Pattern[str], words: str, *keys: str | int) -> str:
        written = self.document.written(*keys)
        if isinstance(self.document.get(*keys), dict | list) or not pattern.fullmatch(written):
            shown = f"`{written}`" if written else "what stands here"
            raise self.wrong(f"{shown} is not {words}", "write one", *keys)
        return written

    def wrong(self, message: str, advice: str, *keys: str | int) -> SpecError:
        problem = Problem(self.document.mark(*keys), "argo", message, advice)
        return SpecError(self.document.path, problem)
