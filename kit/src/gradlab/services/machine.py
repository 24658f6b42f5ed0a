"""What this machine computes with, and since when it runs."""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


KEPT = 1 << 28  # bytes that were freed and that a process keeps
LARGE = 1 << 25  # bytes from which on a block is not kept: the most that glibc allows
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them


def keep_freed_memory() -> None:
    """Let this process, and those that it forks, keep what they free, where malloc is glibc's.

    Else a step of a training may give its memory back and get it anew, page by page, in the next.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, LARGE)


def started() -> float:
    """Give the time (seconds since 1970) at which this session's machine or container began."""
    try:
        since_boot = float(Path("/proc/uptime").read_text().split()[0])
        # After the command's name, which may hold spaces: field 22 of proc(5).
        ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
        return time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.time()


def memory() -> tuple[int, int]:
    """Give total and available memory in bytes, within the container's limit; zeros if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        total, available = sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return 0, 0
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path("/sys/fs/cgroup", limit).read_text()))
        except (OSError, ValueError):
            continue
    return total, min(total, available)


def loader_workers(asked: int | None) -> int:
    """Give the number of processes that load data: one less than there are processors, up to 4."""
    return min(4, max(1, cpus() - 1)) if asked is None else asked


def cpus() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
