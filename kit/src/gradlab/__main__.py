"""The kit's commands, each with --help: doctor, check, show, run, status, logs, stop, collect, job,
datasets, runs, clean, compare, publish, setup, submit, doors, export."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from .base import streams
from .cli import Command
from .cli import main as run
from .services import session
from .services.origin import origin

MODULES = {
    "doctor": "doctor",
    "check": "check.check",
    "show": "check.show",
    "run": "run.runner",
    "status": "remote.doors.watch",
    "logs": "remote.doors.watch",
    "stop": "remote.doors.watch",
    "collect": "remote.doors.collect",
    "job": "run.worker",
    "datasets": "inventory.datasets",
    "runs": "inventory.listing",
    "clean": "inventory.clean",
    "compare": "train.compare",
    "publish": "share.publish",
    "setup": "remote.gradient.setup",
    "submit": "remote.doors.submit",
    "doors": "remote.doors.listing",
    "export": "remote.argo.export",
}


def commands(arguments: Sequence[str] = ()) -> list[Command]:
    """Give the command that the arguments begin with, or else all: one is loaded much sooner."""
    named = [name for name in arguments[:1] if name in MODULES]
    return [_command(name) for name in named or MODULES]


def _command(name: str) -> Command:
    module = import_module(f".{MODULES[name]}", __package__)
    command: Command = getattr(module, f"{name}_command")
    return command


def main() -> int:
    """Run the command that the command line names, or tell the version of the template."""
    if sys.argv[1:] == ["--version"]:
        streams.prepare()
        return streams.guarded("gradlab", _version)
    return run("gradlab", commands(sys.argv[1:]))


def _version() -> int:
    print(origin(session.project_root()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
