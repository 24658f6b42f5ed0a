"""One frame for all benchmarks: kinds that take turns, medians, and one table.

What is compared is measured in turn, round for round, so that a busy moment of the machine hits
all of it. A ratio is the median of the ratios within the rounds. Each benchmark gives rows; what
goes on is told on stderr, the table is printed at the end, in Markdown.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Times = Mapping[str, Sequence[float]]
HEAD = ("measure", "compared with", "result", "target", "met")


@dataclass(frozen=True)
class Row:
    """One row of the table; `unit` is x for a ratio or s for seconds, without a target none."""

    measure: str
    base: str
    value: float
    target: float | None = None
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Tell whether the target is met, or there is none."""
        return self.target is None or self.value <= self.target

    def cells(self) -> tuple[str, ...]:
        """Give the row's texts, in the order of HEAD."""
        value = f"{self.value:.3f}x" if self.unit == "x" else f"{self.value:.2f} s"
        if self.target is None:
            return self.measure, self.base, value, "", ""
        target = f"{self.target:g}{'x' if self.unit == 'x' else ' s'}"
        return self.measure, self.base, value, target, "yes" if self.met else "NO"


def ratio(
    measure: str, base: str, times: Times, kinds: tuple[str, str], target: float | None = None
) -> Row:
    """Compare the times of two kinds, the second being the base, within each round."""
    pairs = zip(*(times[kind] for kind in kinds), strict=True)
    value = statistics.median(own / other for own, other in pairs)
    return Row(measure, base, value, target)


def seconds(measure: str, base: str, values: Sequence[float], target: float | None = None) -> Row:
    """State a time: the median of some."""
    return Row(measure, base, statistics.median(values), target, "s")


def interleaved(name: str, kinds: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure the kinds in turn, after one round that fills the caches and doesn't count."""
    results = repeated(name, lambda: {k: measure() for k, measure in kinds.items()}, rounds + 1)
    return {kind: found[1:] for kind, found in results.items()}


def repeated(name: str, work: Callable[[], Mapping[str, T]], rounds: int) -> dict[str, list[T]]:
    """Do rounds of something that measures all kinds; give the results of each kind."""
    results: dict[str, list[T]] = {}
    for number in range(1, rounds + 1):
        begun = time.monotonic()
        for kind, result in work().items():
            results.setdefault(kind, []).append(result)
        tell(f"{name}: round {number} of {rounds}, {time.monotonic() - begun:.1f} s")
    return results


def tell(line: str) -> None:
    """Say what goes on."""
    print(line, file=sys.stderr, flush=True)


def processor(work: Callable[[], object]) -> float:
    """Give the processor time in seconds of the processes that something starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def show(rows: Iterable[Row]) -> bool:
    """Print the table; tell whether all targets are met."""
    found = list(rows)
    cells = [HEAD, *(row.cells() for row in found)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, line in enumerate(cells):
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        print(f"| {' | '.join(padded)} |")
        if not number:
            print(f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    missed = sum(not row.met for row in found)
    print(f"\n{missed or 'no'} target{'' if missed == 1 else 's'} missed")
    return not missed


def options(text: str | None, rounds: int) -> argparse.ArgumentParser:
    """Give the options that each benchmark has."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="measurements of each kind")
    return parser


def alone(text: str | None, rows: Callable[[int], Iterator[Row]], rounds: int) -> None:
    """Run one benchmark by itself; end with 1 where a target is missed."""
    chosen = options(text, rounds).parse_args().rounds
    sys.exit(not show(list(rows(chosen))))
