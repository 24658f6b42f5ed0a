"""Draw docs/terminal.svg: a project generated, trained, killed and carried on, all of it for real.

    python scripts/record_terminal.py

The commands that are shown are those that run, in a folder that is thrown away; only its path is
written as ~. At the end stands the proof: the killed run and one that was not have the same bytes.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "terminal.svg"
COLUMNS, ROWS = 100, 40
TRAIN = "python -m my_model train"
SAVED_STEPS = 200  # before the plug is pulled


class Terminal:
    """A shell's prompt at which commands are given, and what was seen there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home
        self.console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115

    def say(self, comment: str) -> None:
        """Show a comment, as one types it for those who look on."""
        self.console.print(Text(f"# {comment}", style="bright_black"))

    def give(self, command: str, until: Callable[[], bool] = lambda: False) -> str:
        """Run a command, show it and give its output; kill -9 once `until` holds."""
        self.console.print(Text.assemble(("$ ", "bold green"), (command, "bold white")))
        if command.startswith("cd "):
            self.folder = self.folder / command.removeprefix("cd ")
            return ""
        output, code = self._run(command, until)
        for line in output.replace(str(self.home), "~").splitlines():
            self.console.print(Text.from_ansi(line), highlight=False, soft_wrap=False)
        if code == -signal.SIGKILL:
            self.console.print(Text("Killed", style="bold red"))
        elif code:
            sys.exit(f"{command} failed:\n{output}")
        return output

    def _run(self, command: str, until: Callable[[], bool]) -> tuple[str, int]:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (ROWS, COLUMNS))
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        os.set_blocking(ours, False)
        seen = b""
        while process.poll() is None:
            seen += available(ours)
            if until():
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.02)
        return as_seen((seen + available(ours)).decode()), process.returncode

    def _environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("GRADLAB_", "COLAB_"))}
        return clean | {
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": "src",
            "COLUMNS": str(COLUMNS),
            "COOKIECUTTER_CONFIG": str(self.home / ".cookiecutterrc"),
        }


def available(descriptor: int) -> bytes:
    """Read what a program has written so far."""
    try:
        return os.read(descriptor, 1 << 20)
    except OSError:  # nothing yet, or no more: all writers are gone
        return b""


def as_seen(output: str) -> str:
    """Give the lines as they look in the end: a carriage return writes over what was there."""
    lines = output.replace("\r\n", "\n").split("\n")
    return "\n".join(next(filter(str.strip, line.split("\r")[::-1]), "") for line in lines)


def main() -> None:
    """Run the scene and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        terminal = Terminal(Path(folder).resolve())
        # "gh:" leads to this folder instead of GitHub; the command is the user's.
        config = {"abbreviations": {"gh": str(ROOT)}}
        (terminal.home / ".cookiecutterrc").write_text(json.dumps(config))
        scene(terminal)
        picture = terminal.console.export_svg(title="a project that survives", unique_id="terminal")
    # No font from elsewhere: pictures in a README load nothing.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    PICTURE.write_text(picture, "utf-8")
    print(f"{PICTURE.relative_to(ROOT)}, {PICTURE.stat().st_size / 1000:.0f} kB")


def scene(terminal: Terminal) -> None:
    """Generate, train, kill, carry on, compare."""
    metrics = terminal.home / "my_model/storage/runs/default/metrics.jsonl"

    def far_enough() -> bool:
        saved = list(metrics.parent.glob("checkpoints/*.safetensors"))
        return bool(saved) and metrics.read_bytes().count(b"\n") > SAVED_STEPS

    terminal.give("cookiecutter gh:org/cookiecutter-gradient-colab --no-input")
    terminal.give("cd my_model")
    terminal.give(TRAIN, until=far_enough)
    terminal.say("the session is gone (kill -9); the same command carries on")
    terminal.give(TRAIN)
    terminal.say("a run that never stopped, to compare")
    terminal.give(f"{TRAIN} --name whole 2> /dev/null")
    terminal.give("cd storage/runs")
    sums = terminal.give("sha256sum */model.safetensors").split()
    if sums[0] != sums[2]:
        sys.exit("The killed run and the whole one ended with different bytes.")


if __name__ == "__main__":
    main()
