"""Turns of a loop, whatever it is written with: what each takes, and rest from one to the next."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import psutil

SEED = 0
BATCH = 64


class Turns:
    """Lets the loop rest after each turn, unseen by the clock that intervals are read from."""

    def __init__(self, steps: int, turn: int) -> None:
        self.left, self.turn, self.rested = steps, turn, 0.0
        self.reports = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what a framework prints is no report
        clock = time.monotonic
        time.monotonic = lambda: clock() - self.rested
        self._rest()
        self.spent = _spent()

    @property
    def ends(self) -> bool:
        """Tell whether the step that is counted next ends a turn."""
        return (self.left - 1) % self.turn == 0

    def count(self, *_: object) -> None:
        """Count a step; at the end of a turn, report and rest."""
        self.left -= 1
        if self.left % self.turn == 0:
            self._report()
            if self.left:
                self._rest()

    def _report(self) -> None:
        wall, spent = time.perf_counter() - self.begun, _spent()
        loop, workers = (now - then for now, then in zip(spent, self.spent, strict=True))
        report = {"wall": wall, "loop": loop, "workers": workers}
        self.spent = spent
        print(json.dumps(report), file=self.reports, flush=True)

    def _rest(self) -> None:
        begun = time.perf_counter()
        if not sys.stdin.readline():
            sys.exit("told to end")
        self.begun = time.perf_counter()
        self.rested += self.begun - begun


def _spent() -> tuple[float, float]:
    """Give the processor time of this process, and of its children: the loader's workers."""
    me = psutil.Process()
    ended = me.cpu_times()
    living = [each.cpu_times() for each in me.children(recursive=True)]
    workers = ended.children_user + ended.children_system
    return time.process_time(), workers + sum(each.user + each.system for each in living)


def cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def options() -> argparse.Namespace:
    """Read the options that each loop has."""
    parser = argparse.ArgumentParser()
    parser.add_argument("package")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True, help="in each turn")
    parser.add_argument("--every", type=float, required=True)
    return parser.parse_args()
