"""Talks to an agent: starts it in a client's environment, asks it, and says its failures plainly.

Promises: every failure is a `Failure` in plain words, with what would do. A key or secret goes
through pipes and the environment only: never an argument, a log or a file.

    GRADLAB_CLIENT_TIMEOUT  seconds that a service may keep silent (60)
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...base.errors import GradlabError
from ...base.terminal import printable
from .environment import Client, python_of

FLAGS = ("-I", "-X", "utf8", "-W", "ignore")
SECONDS = "GRADLAB_CLIENT_TIMEOUT"
LONGEST_WORDS = 300
LONGEST = 1800.0  # seconds for all that one request to the agent asks of the service
AGAIN = "run it again in some minutes"
Thing = dict[str, Any]


class Failure(GradlabError):
    """What the service, or the way to it, refused; `status` is HTTP's, 0 for none."""

    def __init__(self, message: str, status: int = 0, fatal: bool = False) -> None:
        super().__init__(message, exit_code=1)
        self.status = status
        self.fatal = fatal  # nothing else can succeed


@dataclass(frozen=True)
class Advice:
    """What a service's refusals mean, by status, and where it says how it does."""

    by_status: Mapping[int, tuple[str, str]]
    page: str

    def failure(self, answer: Thing) -> Failure:
        """Say in plain words what the service, or the way to it, refused."""
        words = " ".join(str(answer.get("words", "")).split())
        words = "" if words.startswith("<") else printable(words[:LONGEST_WORDS])
        status = int(answer.get("status") or 0)
        said = ": ".join(part for part in (f"HTTP {status}" if status else "", words) if part)
        what, advice = self._meaning(str(answer.get("failure")), status)
        if wait := answer.get("wait"):
            advice += f" (it asks to wait {wait} seconds)"
        fatal = answer.get("failure") not in ("status", "answer", "refused") or status == 401
        return Failure(f"{what} ({said}): {advice}" if said else f"{what}: {advice}", status, fatal)

    def _meaning(self, failure: str, status: int) -> tuple[str, str]:
        match failure:
            case "status" if status in self.by_status:
                return self.by_status[status]
            case "status" if status >= 500:
                return "the service failed", f"{AGAIN}; {self.page}"
            case "status" | "refused":
                return "the service refused it", "mend what it names, and run it again"
            case "timeout" | "connection":
                advice = f"look at your connection and {self.page}, and run it again"
                return "the service can't be reached", advice
            case "answer":
                return "the service's answer makes no sense", f"run it again; {self.page}"
        return "the command line's Python ended unexpectedly", "run it again"


class Judge(Protocol):
    """Says what is wrong with a client by its first line, nothing if all is well."""

    def __call__(self, greeting: Thing, /) -> str:
        """Raise GradlabError where it is the user's account that lacks something."""


@dataclass(frozen=True)
class Talk:
    """A conversation with the agent of one service."""

    program: Path
    agent: subprocess.Popen[str]
    advice: Advice
    greeting: Thing

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send a request to the agent and give its result; raises Failure."""
        assert self.agent.stdin
        try:
            self.agent.stdin.write(json.dumps(request) + "\n")
            self.agent.stdin.flush()
        except BrokenPipeError:
            pass  # which the missing answer tells
        answer = _read(self.agent)
        if "result" in answer:
            return answer["result"]
        raise self.advice.failure(answer)


@contextmanager
def connect(
    client: Client, agent: Path, advice: Advice, defect: Judge, root: Path, hidden: Sequence[str]
) -> Iterator[Talk]:
    """Find a client that works, start the agent in its environment, and give the conversation.

    Variables whose names begin with one that is `hidden` are kept from it. Raises GradlabError
    where no client works.
    """
    tried: list[str] = []
    for program in client.candidates():
        with _started(program, agent, advice, defect, tried, hidden) as talk:
            if talk is not None:
                yield talk
                return
    raise client.missing(root, tried)


@contextmanager
def _started(
    program: Path,
    file: Path,
    advice: Advice,
    defect: Judge,
    tried: list[str],
    hidden: Sequence[str],
) -> Iterator[Talk | None]:
    """Run the agent with the Python of a program; gives None, and adds why, where it can't."""
    python = python_of(program)
    if python is None:
        tried.append(f"{program}: which Python runs it can't be told")
        yield None
        return
    command = [str(python), *FLAGS, str(file)]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    env = _environment(hidden)
    try:
        agent = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=nothing, text=True, env=env
        )
    except OSError as error:
        tried.append(f"{program}: {python} does not start ({error.strerror})")
        yield None
        return
    try:
        greeting = _read(agent)
        wrong = defect(greeting)
        tried += [f"{program}: {wrong}"] if wrong else []
        yield None if wrong else Talk(program, agent, advice, greeting)
    finally:
        _end(agent)


def _end(agent: subprocess.Popen[str]) -> None:
    """End the agent; one that is about to give back a machine may do so first."""
    try:
        agent.communicate(timeout=5)
    except (subprocess.TimeoutExpired, OSError, ValueError):
        agent.kill()
        agent.communicate()


def _environment(hidden: Sequence[str]) -> dict[str, str]:
    env = {name: v for name, v in os.environ.items() if not name.startswith(("PYTHON", *hidden))}
    seconds = env.get(SECONDS, "60")
    if not re.fullmatch(r"\d+(\.\d+)?", seconds):
        raise GradlabError(f"{SECONDS} is {seconds!r}: not a number of seconds")
    return env


def _read(agent: subprocess.Popen[str]) -> Thing:
    assert agent.stdout
    # It has limits of its own, but not for looking up a host's name.
    if not select.select([agent.stdout], [], [], LONGEST)[0]:
        agent.kill()
    line = agent.stdout.readline()
    return dict(json.loads(line)) if line else {"unusable": "it ended without a word"}
