"""Whom GRADLAB_NOTIFY names is told once of each event, and what fails there stops nothing."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from . import PYTHON
from .conftest import Tracked, free_port

SECRET = "hush-hush"


@dataclass
class Inbox:
    """A server on this machine that takes messages as JSON."""

    status: int = 200
    delay: float = 0.0
    messages: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Inbox:
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(inbox.delay)
                inbox.messages.append(json.loads(data))
                self.send_response(inbox.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"json://{SECRET}:word@127.0.0.1:{self._server.server_port}/"

    def titles(self) -> list[str]:
        return [message["title"] for message in self.messages]


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as inbox:
        yield inbox


@pytest.fixture
def training(clients: None, tmp_path: Path) -> Tracked:
    return Tracked(tmp_path / "storage", "none")


def test_a_run_tells_its_beginning_its_end_and_what_is_between(
    training: Tracked, inbox: Inbox
) -> None:
    training.env["GRADLAB_NOTIFY"] = inbox.address
    output = training.train(STOP=1, LIMIT=60)
    output += training.train()
    output += training.train()  # finished: nothing more to tell
    name = "tracked: run 'default'"
    # Two of one session may overtake each other.
    assert sorted(inbox.titles()) == sorted(
        [
            f"{name} starts: 400 steps",
            f"{name} stopped at step 60 of 400, saved",
            f"{name} carries on at step 60 of 400",
            f"{name} has finished",
        ]
    )
    bodies = "\n".join(message["message"] for message in inbox.messages)
    assert "python -m tracked train --name default" in bodies
    assert "Next: python -m tracked evaluate --name default" in bodies
    assert SECRET not in output and "!" not in output
    kept = [path.read_bytes() for path in training.storage.rglob("*") if path.is_file()]
    assert kept and not any(SECRET.encode() in data for data in kept)


def test_a_run_that_fails_tells_why(training: Tracked, inbox: Inbox) -> None:
    training.env["GRADLAB_NOTIFY"] = inbox.address
    training.train(code=1, FAIL="what a pity")
    assert "tracked: run 'default' failed: no more, what a pity" in inbox.titles()
    assert len(inbox.messages) == 2


@pytest.mark.parametrize("fault", ["down", "500", "slow"])
def test_a_message_that_fails_is_said_once_and_stops_nothing(
    training: Tracked, inbox: Inbox, fault: str
) -> None:
    inbox.status, inbox.delay = (500 if fault == "500" else 200), (60 if fault == "slow" else 0)
    down = f"json://{SECRET}@127.0.0.1:{free_port()}"
    training.env["GRADLAB_NOTIFY"] = down if fault == "down" else inbox.address
    begun = time.monotonic()
    output = training.train(STEPS=40)
    assert time.monotonic() - begun < 40
    assert output.count("! A message to GRADLAB_NOTIFY could not be sent: json://") == 1
    assert "Finished." in output and SECRET not in output


def test_addresses_that_nobody_understands_are_refused(training: Tracked) -> None:
    for number, given in enumerate([f"json://127.0.0.1, nosuch://{SECRET}", SECRET], 1):
        output = training.train(code=2, GRADLAB_NOTIFY=given)
        assert f"GRADLAB_NOTIFY: address {3 - number} of {3 - number} " in output
        assert SECRET not in output and not training.storage.exists()


def test_a_workflow_tells_for_its_jobs(inbox: Inbox, clients: None, tmp_path: Path) -> None:
    project = tmp_path / "project"
    workflow = project / ".gradient/workflows/two.yaml"
    workflow.parent.mkdir(parents=True)
    (project / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "1"\n')
    workflow.write_text(
        textwrap.dedent(
            """\
            jobs:
              first:
                resources:
                  instance-type: C4
                uses: script@v1
                with:
                  image: bash:5
                  script: |-
                    env
                    test -e $GO
            """
        ).replace("$GO", str(tmp_path / "go"))
    )
    env = {**os.environ, "GRADLAB_STORAGE": str(tmp_path / "kept"), "GRADLAB_NOTIFY": inbox.address}

    def run(code: int) -> str:
        command = [PYTHON, "-m", "gradlab", "run", "two", "--engine", "paths"]
        done = subprocess.run(command, cwd=project, env=env, text=True, capture_output=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    output = run(1)
    (tmp_path / "go").touch()
    output += run(0)
    name = "mine: workflow 'two'"
    titles = sorted(title.partition(", begun ")[0] for title in inbox.titles())
    told = ["carries on", "failed", "has finished", "starts: first"]
    assert titles == [f"{name} {text}" for text in told]
    assert SECRET not in output and "GRADLAB_NOTIFY" not in output
