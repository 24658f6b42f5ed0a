"""Hugging Face Jobs on loopback, as the real client (2.4) asks for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..gradient.api import Request
from .standin import Reply, Service

TOKEN = "hf_tokenofthetest0123456789"
OWNER = "me"
LIVE = ("RUNNING", "SCHEDULING")


@dataclass
class Job:
    """A job; what it was started with, but for its secrets, is told to everybody who asks."""

    id: str
    spec: dict[str, Any]
    stage: str = "RUNNING"
    words: str | None = None
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.spec["labels"]["gradlab"])

    def told(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "createdAt": f"2026-11-27T00:00:{int(self.id):02}.000Z",
            "dockerImage": self.spec.get("dockerImage"),
            "command": self.spec["command"],
            "flavor": self.spec["flavor"],
            "labels": self.spec["labels"],
            "status": {"stage": self.stage, "message": self.words},
            "owner": {"id": "1", "name": OWNER, "type": "user"},
        }


class HuggingFace(Service):
    """The service."""

    def __init__(self, runs: Callable[[HuggingFace, Job], None]) -> None:
        self.runs = runs
        self.clear()
        super().__init__()

    def clear(self) -> None:
        """Forget everything."""
        self.jobs: list[Job] = []
        self.pays = True
        self.requests, self.faults, self.before = [], [], {}

    @property
    def env(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": TOKEN}

    def live(self) -> list[str]:
        return [job.name for job in self.jobs if job.stage in LIVE]

    def allowed(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {TOKEN}"

    def _who(self, request: Request, _: re.Match[str]) -> Reply:
        return 200, {"type": "user", "name": OWNER, "canPay": self.pays, "auth": {}}

    def _hardware(self, request: Request, _: re.Match[str]) -> Reply:
        one = {"name": "t4-small", "prettyName": "T4", "cpu": "4 vCPU", "ram": "15 GB"}
        cost = {"unitCostMicroUSD": 6667, "unitCostUSD": 0.006667, "unitLabel": "minute"}
        return 200, [one | cost]

    def _list(self, request: Request, _: re.Match[str]) -> Reply:
        wanted = [each.partition("=")[2] for each in request.query.get("label", [])]
        return 200, [job.told() for job in self.jobs if not wanted or job.name in wanted]

    def _start(self, request: Request, _: re.Match[str]) -> Reply:
        if not self.pays:
            return 402, {"error": "Pre-paid credit balance is insufficient"}
        spec = dict(request.body)
        job = Job(str(len(self.jobs) + 1), spec, secrets=spec.pop("secrets"))
        self.jobs.append(job)
        self.runs(self, job)
        return 200, job.told()

    def _cancel(self, request: Request, match: re.Match[str]) -> Reply:
        for job in self.jobs:
            if job.id == match[1]:
                job.stage = "CANCELED"
                return 200, job.told()
        return 404, {"error": "no such job"}

    def _look(self, request: Request, match: re.Match[str]) -> Reply:
        found = [job.told() for job in self.jobs if job.id == match[1]]
        return (200, found[0]) if found else (404, {"error": "no such job"})

    def _logs(self, request: Request, match: re.Match[str]) -> Reply:
        line = json.dumps({"data": "a line", "timestamp": "2026-11-27T00:00:00Z"})
        return 200, f"data: {line}\n\n".encode()

    routes = (
        ("GET", "/api/whoami-v2", _who),
        ("GET", "/api/jobs/hardware", _hardware),
        ("GET", "/api/jobs/me", _list),
        ("POST", "/api/jobs/me", _start),
        ("POST", "/api/jobs/me/(.+)/cancel", _cancel),
        ("GET", "/api/jobs/me/(.+)/logs", _logs),
        ("GET", "/api/jobs/me/([^/]+)", _look),
    )
