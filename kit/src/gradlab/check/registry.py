"""The rules of `gradlab check`, in the order of the reference.

Promises: every finding has a rule of this list, and the rule alone decides its severity. A rule is
one function with its id, severity and text above it; what only the reader or the schema can find
is declared in the same words, without a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from ..spec.document import Document, Mark, Problem
from ..spec.spec import Spec

Severity = Literal["error", "warning"]
Found = Iterator[tuple[Mark, str, str]]  # where, what is wrong there, what would do
Find = Callable[[Spec, Document], Found]


class Rule(NamedTuple):
    """A rule: how grave it is, what it finds in a line, and the function that finds it."""

    severity: Severity
    text: str
    find: Find | None


RULES: dict[str, Rule] = {}  # by their ids; filled by the modules in `rules`


def declare(name: str, severity: Severity, text: str, find: Find | None = None) -> None:
    """Add a rule to the list; raises ValueError where there is one of that id."""
    if name in RULES:
        raise ValueError(f"there are two rules {name!r}")
    RULES[name] = Rule(severity, text, find)


def rule(name: str, severity: Severity, text: str) -> Callable[[Find], Find]:
    """Make a function a rule."""

    def add(find: Find) -> Find:
        declare(name, severity, text, find)
        return find

    return add


def apply(spec: Spec, document: Document) -> Iterator[Problem]:
    """Give what the rules' functions find wrong."""
    for name, each in RULES.items():
        for mark, message, advice in each.find(spec, document) if each.find else ():
            yield Problem(mark, name, message, advice)
