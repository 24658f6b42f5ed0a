"""Command lines made of functions: each is a subcommand, its annotated arguments the options.

Promises: a mistake that the user can mend is one message on standard error and exit code 2,
never a traceback; nor is a Ctrl-C one.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

import tyro

from .base import streams
from .base.errors import GradlabError, note
from .services import origin, session
from .services.notify import teller

Command = Callable[..., int]
# What a project's training imports, and its own environment may lack.
TRAINED_WITH = {"torch", "jax", "jaxlib", "flax", "optax", "keras", "tensorflow"}


def name_of(command: Command) -> str:
    """Give the name that a command has on the command line."""
    return command.__name__.removesuffix("_command").replace("_", "-")


def main(program: str, commands: Sequence[Command], arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; give its exit code."""
    if arguments is None:
        streams.prepare()
    try:
        return streams.guarded(program, lambda: _main(program, commands, arguments))
    except BaseException as error:
        teller.failed(error)
        raise
    finally:
        teller.wait()


def _main(program: str, commands: Sequence[Command], arguments: Sequence[str] | None) -> int:
    # Threads that spin while they wait slow each other down severalfold wherever other programs,
    # such as the loader's workers, need the processors too. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    table = {name_of(command): command for command in commands}
    options = (tyro.conf.FlagCreatePairsOff,)
    try:
        origin.refuse_other_kit(session.project_root())
        given = list(sys.argv[1:] if arguments is None else arguments)
        if given and (command := table.get(given[0])):
            # By itself: the others need not be looked at.
            name = f"{program} {given[0]}"
            return tyro.cli(command, prog=name, args=given[1:], config=options)
        return tyro.extras.subcommand_cli_from_dict(table, prog=program, args=given, config=options)
    except GradlabError as error:
        teller.failed(error)
        # Under torchrun processes mostly fail alike: one message is enough.
        if error.own or os.environ.get("RANK", "0") == "0":
            where = session.place_of_options(str(error))
            note(f"{program}: {error}" + f"\n{where}" * bool(where))
        return error.exit_code
    except ModuleNotFoundError as error:
        module = str(error.name).partition(".")[0]
        if module not in TRAINED_WITH:
            raise
        how = session.how_to_install(session.project_root(), module)
        note(f"{program} needs {error.name}, which is not installed here: {how}")
        return 2
    except KeyboardInterrupt:
        teller.ended("was ended by Ctrl+C", "The same command carries on from what was kept.")
        return 128 + signal.SIGINT
