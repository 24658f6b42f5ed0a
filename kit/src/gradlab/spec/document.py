"""A YAML document's data, with the place of every key and item.

Promises: whatever `data` holds can be pointed at by line and column. Knows nothing of workflows.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ..base.errors import GradlabError
from ..base.terminal import printable

LONGEST_LINE = 400


@dataclass(frozen=True, order=True)
class Mark:
    """A place in a file; line and column count from 1."""

    line: int
    column: int


START = Mark(1, 1)


@dataclass(frozen=True)
class Problem:
    """What is wrong at a place of a file, and what would do: each a line that can be printed."""

    mark: Mark
    rule: str
    message: str
    advice: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", _printable(self.message))
        object.__setattr__(self, "advice", _printable(self.advice))


class SpecError(GradlabError):
    """A file that can't be taken as a workflow, and why."""

    def __init__(self, path: Path, problem: Problem) -> None:
        self.path, self.problem = path, problem
        place = f"{path}:{problem.mark.line}:{problem.mark.column}"
        super().__init__(f"{place}: error [{problem.rule}] {problem.message}; {problem.advice}")


@dataclass(frozen=True)
class Place:
    """Where a value stands."""

    mark: Mark  # of the key in a mapping, of the item in a list
    start: int  # the value's first character in the text
    end: int
    written: str = ""  # a scalar as it stands in the file, less its quotes


class Document:
    """A file's data (dict, list, str, int, float, bool, date, None) and where each part stands."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.data: Any = None
        self.problems: list[Problem] = []  # those that did not keep the file from being read
        self.places: dict[int, dict[str | int, Place]] = {}  # by the identity of list or mapping
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def at(self, offset: int) -> Mark:
        """Give the place of the character at `offset` in the text."""
        line = bisect_right(self._lines, offset)
        return Mark(line, offset - self._lines[line - 1] + 1)

    def mark(self, *keys: str | int) -> Mark:
        """Give the place of `data[keys[0]][keys[1]]...`, or of its deepest ancestor there is."""
        return self._place(keys)[0].mark

    def get(self, *keys: str | int) -> Any:
        """Give `data[keys[0]][keys[1]]...`, or None where there is none."""
        data = self.data
        for key in keys:
            if key not in self.places.get(id(data), {}):
                return None
            data = data[key]
        return data

    def written(self, *keys: str | int) -> str:
        """Give the scalar at `keys` as it stands in the file, or "" where there is none."""
        place, whole = self._place(keys)
        return place.written if whole else ""

    def find(self, pattern: re.Pattern[str], *keys: str | int) -> Mark:
        """Give the place of the first match in the value at `keys`, or else of that value's key."""
        place, _ = self._place(keys)
        match = pattern.search(self.text, place.start, place.end)
        return self.at(match.start()) if match else place.mark

    def _place(self, keys: tuple[str | int, ...]) -> tuple[Place, bool]:
        """Give the place of the deepest value on the way along `keys`, and if it is the last."""
        place, data = Place(START, 0, len(self.text)), self.data
        for key in keys:
            found = self.places.get(id(data), {}).get(key)
            if found is None:
                return place, False
            place, data = found, data[key]
        return place, True


def kind(value: object) -> str:
    """Say what a value is, in a user's words."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case date():
            return "a date"
        case list():
            return "a list that holds nothing ([null])" if value == [None] else "a list"
        case dict():
            return "a mapping"
    return "text"


def _printable(text: str) -> str:
    """Escape what would break a line or a terminal, and shorten what would flood it."""
    return printable(text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 3] + "...")
