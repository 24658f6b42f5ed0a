"""The kit's commands: gradlab doctor, each with --help."""

from __future__ import annotations

import sys

from .command import main as run
from .doctor import doctor_command


def main() -> int:
    """Run the command that the command line names."""
    return run("gradlab", [doctor_command])


if __name__ == "__main__":
    sys.exit(main())
