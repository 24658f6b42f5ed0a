"""A trace of some steps of a training: when each operator ran, for Perfetto and chrome://tracing.

Promises: only looks on; the steps are the same, and training goes on where the trace fails.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..base.errors import only_observing
from ..base.tables import columns
from .runs import Run

WARMUP = 5  # steps before: the first ones compile, choose algorithms and fill caches
STEPS = 10
SHOWN = 8  # operators
TRACE = "trace.json.gz"


def traced(
    batches: Iterable[Any], run: Run | None, asked: bool, make: Callable[[], Any]
) -> Iterable[Any]:
    """Give the batches, and trace what is done from one to the next in ten steps, after five.

    `make` makes a profiler as torch.profiler.profile does. Where the run stops before, the trace is
    of fewer steps; without a run, or unless it is `asked` for, nothing is traced.
    """
    return _traced(batches, run, make) if run and asked else batches


def _traced(batches: Iterable[Any], run: Run, make: Callable[[], Any]) -> Iterator[Any]:
    profiler, step = None, 0
    try:
        for step, batch in enumerate(batches):
            if step == WARMUP:
                profiler = _begun(make)
            elif step == WARMUP + STEPS:
                _end(run, profiler, STEPS)
                profiler = None
            yield batch
    finally:
        _end(run, profiler, step + 1 - WARMUP)
        if step < WARMUP:
            run.progress.say(f"Nothing was traced: a trace begins {WARMUP} steps after the start.")


def _begun(make: Callable[[], Any]) -> Any:
    with only_observing("No steps could be traced"):
        profiler = make()
        profiler.start()
        return profiler


def _end(run: Run, profiler: Any, steps: int) -> None:
    """End the trace, if there is one, and write it."""
    with only_observing(f"{run.work / TRACE} could not be written"):
        if profiler:
            profiler.stop()
            _write(run, profiler, steps)


def _write(run: Run, profiler: Any, steps: int) -> None:
    """Write the trace into the run's folder, and show what took most of its time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        data = gzip.compress(path.read_bytes(), mtime=0)
    for line in _table(profiler.key_averages(), steps):
        run.progress.say(line)
    if run.write(TRACE, data):
        run.progress.say(f"Of {steps} steps: {run.kept}/{TRACE}, to open in ui.perfetto.dev.")


def _table(events: Iterable[Any], steps: int) -> list[str]:
    """Set out the operators that took most of the device's time, of the CPU's if there is none."""
    spent = {event: _device_time(event) for event in events}
    where = "the GPU"
    if not any(spent.values()):
        spent, where = {event: event.self_cpu_time_total for event in spent}, "the CPU"
    total = sum(spent.values())
    rows = [("operator", "calls a step", f"ms of {where} a step", "share")]
    for event, time in sorted(spent.items(), key=lambda pair: -pair[1])[:SHOWN]:
        times = f"{event.count / steps:g}", f"{time / steps / 1e3:.3f}"
        rows.append((event.key, *times, f"{time / total:.1%}"))
    return columns(rows)


def _device_time(event: Any) -> float:
    name = "self_device_time_total"  # torch >= 2.4
    return float(getattr(event, name, 0) or getattr(event, "self_cuda_time_total", 0))
