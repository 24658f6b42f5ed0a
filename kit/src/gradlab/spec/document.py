"""A YAML document's data, with the place of every key and item.

Promises: whatever `data` holds can be pointed at by line and column. Knows nothing of workflows.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import GradlabError
from ..base.terminal import printable

if TYPE_CHECKING:
    import yaml

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


class Document:
    """A file's data (dict, list, str, int, float, bool, date, None) and where each part stands."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.data: Any = None
        self.problems: list[Problem] = []  # those that did not keep the file from being read
        # By the identity of a list or mapping: the nodes of each item, or of a key and its value.
        self.nodes: dict[int, dict[str | int, tuple[yaml.Node, yaml.Node]]] = {}
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def at(self, offset: int) -> Mark:
        """Give the place of the character at `offset` in the text."""
        line = bisect_right(self._lines, offset)
        return Mark(line, offset - self._lines[line - 1] + 1)

    def mark(self, *keys: str | int) -> Mark:
        """Give the place of `data[keys[0]][keys[1]]...`, or of its deepest ancestor there is."""
        found = self._way(keys)
        return self.at(found[-1][0].start_mark.index) if found else START

    def get(self, *keys: str | int) -> Any:
        """Give `data[keys[0]][keys[1]]...`, or None where there is none."""
        data = self.data
        for key in keys:
            if key not in self.nodes.get(id(data), {}):
                return None
            data = data[key]
        return data

    def written(self, *keys: str | int) -> str:
        """Give the scalar at `keys` as it stands in the file, or "" where there is none."""
        import yaml  # takes longer than all else here, and is loaded by who has read a document

        found = self._way(keys)
        whole = bool(found) and len(found) == len(keys)
        return found[-1][1].value if whole and isinstance(found[-1][1], yaml.ScalarNode) else ""

    def find(self, pattern: re.Pattern[str], *keys: str | int) -> Mark:
        """Give the place of the first match in the value at `keys`, or else of that value's key."""
        *_, (_, value) = self._way(keys)
        match = pattern.search(self.text, value.start_mark.index, value.end_mark.index)
        return self.at(match.start()) if match else self.mark(*keys)

    def _way(self, keys: tuple[str | int, ...]) -> list[tuple[yaml.Node, yaml.Node]]:
        """Give the nodes of the values on the way along `keys`, as far as there are any."""
        found, data = [], self.data
        for key in keys:
            nodes = self.nodes.get(id(data), {})
            if key not in nodes:
                break
            found.append(nodes[key])
            data = data[key]
        return found


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
