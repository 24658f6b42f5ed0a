"""Doing the jobs of a run in the order of `needs`, up to the last one or to a signal."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from graphlib import TopologicalSorter
from types import FrameType

from ..base import processes, unfinished
from ..base.locks import Lock
from ..base.stop import Stop
from ..services import machine
from ..spec.spec import Job
from .jobs import Result


@contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """Take the signals that end a run, but those that are ignored from the start."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop(number)

    before = {number: signal.signal(number, handle) for number in processes.heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_all(
    selected: Sequence[Job],
    work: Callable[[Job], Result],
    parallel: bool,
    lock: Lock | None,
    stop: Stop,
) -> dict[str, Result]:
    """Do the jobs, each as soon as those that it needs have succeeded.

    After a signal those are left that work on something that may be cut off, as by a kill.
    """
    sorter = TopologicalSorter({job.name: job.needs for job in selected})
    sorter.prepare()
    jobs, results = {job.name: job for job in selected}, dict[str, Result]()
    running: dict[Future[Result], str] = {}
    with _pool(machine.cpus() if parallel else 1, stop) as pool:
        while sorter.is_active() and not stop.is_due():
            for name in sorter.get_ready():
                if reason := _reason_to_skip(jobs[name], results):
                    results[name] = Result("skipped", message=reason)
                    sorter.done(name)
                else:
                    running[pool.submit(work, jobs[name])] = name
            if stop.signal and lock:
                lock.say_ending()
            for future in wait(running, 0.2, FIRST_COMPLETED).done:
                name = running.pop(future)
                results[name] = future.result()
                sorter.done(name)
    message = f"ended by signal {stop.signal}"
    if running and stop.copying:
        message += "; this machine has more of its outputs than the storage"
    results |= {name: Result("stopped", message=message) for name in running.values()}
    left = [name for name in jobs if name not in results]
    return results | {name: Result("skipped", message="the run was ended") for name in left}


@contextmanager
def _pool(workers: int, stop: Stop) -> Iterator[ThreadPoolExecutor]:
    """Give the threads in which jobs run; the main one waits meanwhile, also after a signal."""
    pool = ThreadPoolExecutor(workers)
    stop.raises = False
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        stop.raises = True


def _reason_to_skip(job: Job, results: Mapping[str, Result]) -> str:
    broken = [name for name in job.needs if not results[name].succeeded]
    return f"it needs {', '.join(broken)}" if broken else ""


def leave(code: int, cut_off: bool = False) -> int:
    """Give the exit code, or end with it at once where a thread is at work that was cut off."""
    threads = set(threading.enumerate()) - {threading.main_thread()}
    if (cut_off or code > 128) and not all(thread.daemon for thread in threads):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    return code


def exit_code(results: Mapping[str, Result], succeeded: bool, stop: Stop) -> int:
    """Give the exit code of a run whose jobs have come that far."""
    if stop.signal:
        return 128 + stop.signal
    if any(result.state == "stopped" for result in results.values()):
        failed = any(result.state == "failed" for result in results.values())
        return 1 if failed else unfinished.CODE
    return 0 if succeeded else 1
