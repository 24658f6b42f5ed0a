"""Sizes and times as people read them."""

from __future__ import annotations

from collections.abc import Mapping


def human(size: float) -> str:
    """Write a number of bytes as people read it: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def figures(values: Mapping[str, float]) -> str:
    """Write what was measured as people read it: `val accuracy 0.9722, val loss 0.1034`."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in values.items())


def duration(seconds: float) -> str:
    """Write a time as people read it: `7.3 s`, `2 min 05 s`, `3 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def clock(seconds: float) -> str:
    """Write a time span as h:mm:ss."""
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
