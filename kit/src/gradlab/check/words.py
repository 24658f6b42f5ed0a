"""What rules say alike: where something stands, what may be meant, and lists of words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.resources import files
from itertools import islice
from typing import Any

Path = tuple[str | int, ...]

CANDIDATES = 100  # words or jobs to look at, so that a large file is checked in linear time


def where(path: Path) -> str:
    """Say which part of a workflow a path leads to."""
    job = ""
    if path[:1] == ("jobs",) and len(path) > 1:
        job, path = f"job `{path[1]}`", path[2:]
    keys = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    part = f"`{keys[1:]}`" if keys else ""
    return " of ".join(filter(None, (part, job))) or "the workflow"


def close(word: str, words: Iterable[str]) -> str:
    """Ask whether the most similar of the words was meant, if one is similar."""
    lower = {each.lower(): each for each in islice(words, CANDIDATES)}
    near = get_close_matches(word.lower(), lower, 1, 0.65)
    return f"did you mean `{lower[near[0]]}`?" if near else ""


def join(words: Iterable[str], last: str = "and") -> str:
    """Write words as a list in a sentence; without any it is `none`, as in "there are none"."""
    *most, end = [f"`{word}`" for word in words] or ["none"]
    return f"{', '.join(most)} {last} {end}" if most else end


def load(name: str) -> Any:
    """Give one of this package's tables."""
    return json.loads(files(__package__).joinpath(f"{name}.json").read_text("utf-8"))
