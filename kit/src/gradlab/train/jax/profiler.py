"""A trace of a training in JAX, with what train/profiles.py asks of torch's profiler."""

from __future__ import annotations

import gzip
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

WRITTEN = "**/*.trace.json.gz"
OPERATOR = "hlo_op"  # what XLA tells of an event that is one of its operators


@dataclass(frozen=True, eq=False)
class Operator:
    """All calls of one of XLA's operators, in microseconds."""

    key: str
    count: int
    self_cpu_time_total: float
    self_device_time_total: float


class Profiler:
    """Traces what XLA does from `start` to `stop`."""

    def start(self) -> None:
        """Begin the trace."""
        self._folder = tempfile.TemporaryDirectory(prefix="trace-")
        if hasattr(jax.profiler, "ProfileOptions"):  # jax >= 0.7.1
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # else each call in Python is an event
            jax.profiler.start_trace(self._folder.name, profiler_options=options)
        else:
            jax.profiler.start_trace(self._folder.name)

    def stop(self) -> None:
        """End the trace, once the steps are done that were asked for."""
        jax.effects_barrier()
        jax.profiler.stop_trace()
        with self._folder as folder:
            (path, *_) = sorted(Path(folder).glob(WRITTEN))
            self._trace = gzip.decompress(path.read_bytes())

    def export_chrome_trace(self, path: str) -> None:
        """Write the trace as a file of JSON."""
        Path(path).write_bytes(self._trace)

    def key_averages(self) -> list[Operator]:
        """Give the operators that were called, each with the time that its calls took together."""
        events = json.loads(self._trace)["traceEvents"]
        named = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
        found: dict[str, list[Any]] = {}
        for event in events:
            if operator := event.get("args", {}).get(OPERATOR):
                total = found.setdefault(operator, [0, 0.0, 0.0])
                total[0] += 1
                total[1 + ("/device:" in named.get(event["pid"], ""))] += event["dur"]
        return [Operator(name, *total) for name, total in found.items()]
