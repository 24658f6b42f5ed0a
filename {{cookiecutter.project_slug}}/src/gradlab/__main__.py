"""The kit's commands, each with --help: doctor, check, show, run, datasets, compare, setup,
submit."""

from __future__ import annotations

import sys

from . import session, streams
from .command import Command
from .command import main as run
from .compare import compare_command
from .doctor import doctor_command
from .gradient.setup import setup_command
from .gradient.submit import submit_command
from .origin import origin
from .workflow.check import check_command
from .workflow.listing import datasets_command
from .workflow.runner import run_command
from .workflow.show import show_command

COMMANDS: list[Command] = [
    doctor_command,
    check_command,
    show_command,
    run_command,
    datasets_command,
    compare_command,
    setup_command,
    submit_command,
]


def main() -> int:
    """Run the command that the command line names, or tell the version of the template."""
    if sys.argv[1:] == ["--version"]:
        streams.prepare()
        return streams.guarded("gradlab", _version)
    return run("gradlab", COMMANDS)


def _version() -> int:
    print(origin(session.project_root()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
