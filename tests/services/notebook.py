"""A notebook that a test opens, fills in, runs and interrupts.

Promises: a real kernel, run by nbclient, in the machine that the notebook was opened on; errors in
a cell become readable ones here; a kernel can be killed in the middle of a cell.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

from ..lab import descendants
from .processes import children_of, send

CELL_SECONDS = 600
POLL_SECONDS = 0.02
FIELD = r"(?m)^({name}\s*=\s*).*?(\s*#\s*@param.*)$"
TITLE = re.compile(r"#\s*@title\s+(.*)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class CellError(Exception):
    """A cell ended with an error; its text is the error's, the traceback and what was printed."""

    def __init__(self, cell: int, ename: str, evalue: str, traceback: str, printed: str) -> None:
        super().__init__(f"cell {cell}: {ename}: {evalue}\n{traceback}\nprinted:\n{printed}")
        self.cell, self.ename, self.evalue, self.traceback = cell, ename, evalue, traceback


class _Specs(KernelSpecManager):
    """Knows one kernel: the command that it was made with."""

    command: list[str]

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(argv=self.command, display_name="Python 3", language="python")


class _Client(NotebookClient):
    """Runs cells and tells of each message."""

    watch: Callable[[], object] | None = None

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> Any:
        result = super().process_message(msg, cell, cell_index)
        if self.watch:
            self.watch()
        return result


class Notebook:
    """A notebook with a kernel, which starts with the first cell that is run."""

    def __init__(self, source: Path | NotebookNode, command: list[str], connection: Path) -> None:
        self.nb = nbformat.read(source, as_version=4) if isinstance(source, Path) else source
        self._command = command
        self._connection = connection
        self._client: _Client | None = None
        self._skipped: set[int] = set()

    @property
    def cells(self) -> list[NotebookNode]:
        """The code cells."""
        return [cell for cell in self.nb.cells if cell.cell_type == "code"]

    def set(self, **fields: object) -> None:
        """Give fields of the forms other values; KeyError where there is no such field."""
        for name, value in fields.items():
            pattern = re.compile(FIELD.format(name=re.escape(name)))
            cells = [cell for cell in self.cells if pattern.search(cell.source)]
            if not cells:
                raise KeyError(f"the notebook has no form field {name}")
            for cell in cells:
                cell.source = pattern.sub(rf"\g<1>{_literal(value)}\g<2>", cell.source)

    def cell(self, which: int | str) -> int:
        """Give the number of a code cell, counted from 0, by number or by part of its title."""
        if isinstance(which, int):
            return which
        titles = [TITLE.match(cell.source) for cell in self.cells]
        (number,) = (i for i, t in enumerate(titles) if t and which in t[1])
        return number

    def skip(self, *cells: int | str) -> Notebook:
        """Let `run` pass over some cells."""
        self._skipped |= {self.cell(which) for which in cells}
        return self

    def run(self, stop: int | str | None = None) -> str:
        """Run all code cells, or those before one, and give all that they printed."""
        end = len(self.cells) if stop is None else self.cell(stop)
        numbers = [number for number in range(end) if number not in self._skipped]
        return "".join(self.run_cell(number) for number in numbers)

    def run_cell(self, which: int | str, watch: Callable[[str], object] | None = None) -> str:
        """Run a cell and give what it printed; `watch` gets that so far, with every message.

        Raises CellError on an error in the cell, RuntimeError if the kernel dies.
        """
        number = self.cell(which)
        cell, client = self.cells[number], self._started()
        client.watch = (lambda: watch(self.text(number))) if watch else None
        cell.outputs = []
        client.execute_cell(cell, self.nb.cells.index(cell))
        for error in (output for output in cell.outputs if output.output_type == "error"):
            traceback = COLOURS.sub("", "\n".join(error.traceback))
            raise CellError(number, error.ename, error.evalue, traceback, self.text(number))
        return self.text(number)

    def kill_during(
        self, which: int | str, when: str | Callable[[str], object], children: bool = False
    ) -> str:
        """Run a cell and kill the kernel once the cell has printed a text or `when` says so.

        Gives what was printed until then. Raises AssertionError if the cell ends before.
        """
        number, over = self.cell(which), threading.Event()
        self._started()
        self.cells[number].outputs = []

        def reached() -> object:
            text = self.text(number)
            return when in text if isinstance(when, str) else when(text)

        def watch() -> None:
            while not over.wait(POLL_SECONDS):
                if reached():
                    self._kill(children)
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            self.run_cell(number)
        except DeadKernelError:
            return self.text(number)
        finally:
            over.set()
            watcher.join()
            self.kill()
        raise AssertionError(f"cell {number} ended first:\n{self.text(number)}")

    def kill(self, children: bool = False) -> None:
        """Kill the kernel; what it has started lives on, unless it is to die too.

        The next cell starts another kernel on the same machine.
        """
        self._kill(children)
        self.close()

    def interrupt(self) -> None:
        """Stop the cell that runs, as the stop button does."""
        for kernel in self._kernels():
            os.kill(kernel, signal.SIGINT)

    def _kill(self, children: bool) -> None:
        for kernel in self._kernels():
            found = descendants(kernel) if children else []
            # Stopped first: else one would see that another has gone, and save. Not the kernel:
            # what entered the machine for it stops with its child, and would never go on.
            send(signal.SIGSTOP, *found)
            send(signal.SIGKILL, kernel, *found)

    def _kernels(self) -> list[int]:
        # Below the program that entered the machine; none if the kernel has died.
        return children_of(self._manager.provisioner.pid) if self._client else []

    def text(self, which: int | str | None = None) -> str:
        """Give what one cell or all of them printed, each line that was overwritten by itself."""
        cells = self.cells if which is None else [self.cells[self.cell(which)]]
        return "".join(_text(output) for cell in cells for output in list(cell.outputs))

    def outputs(self, which: int | str) -> list[NotebookNode]:
        """List a cell's outputs, as the notebook's format has them."""
        return list(self.cells[self.cell(which)].outputs)

    def save(self, path: Path) -> None:
        """Write the notebook with its outputs."""
        nbformat.write(self.nb, path)

    def _started(self) -> _Client:
        if self._client is None:
            specs = _Specs()
            specs.command = self._command
            self._connection.unlink(missing_ok=True)
            self._manager = AsyncKernelManager(
                kernel_spec_manager=specs,
                transport="ipc",
                connection_file=str(self._connection),
            )
            # After an error that it is told to stop at, a kernel passes over what comes too soon.
            options = {"allow_errors": True, "timeout": CELL_SECONDS}
            self._client = _Client(self.nb, km=self._manager, **options)
            self._client.start_new_kernel()
            self._client.start_new_kernel_client()
        return self._client

    def close(self) -> None:
        """Let go of a kernel that has been killed, or of none."""
        if self._client is not None:
            self._client.kc.stop_channels()
            # Not by the manager's shutdown, which kills what the kernel has started as well.
            run_sync(self._manager.provisioner.wait)()
            run_sync(self._manager.cleanup_resources)()
            self._client = None


def _literal(value: object) -> str:
    # In a replacement, where a backslash has a meaning of its own.
    return repr(value).replace("\\", r"\\")


def _text(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return str(output.text).replace("\r", "\n")
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}\n"
    kinds: Iterator[str] = (kind for kind in output.data if kind != "text/plain")
    return "".join(f"[{kind}]\n" for kind in kinds) or f"{output.data.get('text/plain', '')}\n"
