"""YAML's syntax errors in a user's words.

Promises: the same words whether PyYAML or libyaml found the error, and with the place where the
mistake was made rather than where the parser gave up.
"""

from __future__ import annotations

import yaml

from .document import Document

_SYNTAX = (  # what libyaml or PyYAML says, whether it is the beginning that matters, our words
    (
        "mapping values are not allowed",
        False,
        "a `:` followed by a space makes this a mapping, which can't stand here",
        'quote a text that holds ": "; put a nested key on a line of its own',
    ),
    (
        "unexpected end of stream",
        True,
        "a quote opens here and is never closed",
        "close it",
    ),
    (
        "',' or",
        True,
        "a bracket opens here and is never closed, or a comma is missing in it",
        "close it, or quote a text that begins with a bracket",
    ),
    (
        "cannot start any token",
        False,
        "a value can't begin with {char!r}",
        "quote the value",
    ),
    (
        "expected alphabetic or numeric character",
        True,
        "{char!r} begins an alias or anchor, and no name follows",
        "quote the value if it is text",
    ),
    (
        "expected ':'",
        True,
        "this line is neither `key: value` nor a part of the value above",
        "add the colon, or indent it deeper than its key",
    ),
    (
        "entries are not allowed",
        False,
        "a list can't begin here",
        "write each `- item` on a line of its own, below its key",
    ),
    (
        "expected",
        False,
        "this line does not fit the lines above it",
        "indent what belongs together alike; quote a text with quotes, colons or brackets in it",
    ),
)


def reword(document: Document, error: yaml.MarkedYAMLError) -> tuple[int, str, str, str]:
    """Give the place, rule, message and advice for an error of YAML's syntax."""
    mark = error.problem_mark or error.context_mark
    offset = min(mark.index, len(document.text)) if mark else 0
    line = document.text[:offset].rpartition("\n")[2] + document.text[offset:].partition("\n")[0]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return offset, "tab", "a tab stands in the indentation", "indent with spaces"
    if document.text[offset : offset + 1] == "\t":
        return offset, "tab", "a tab stands between the parts of this line", "use spaces"
    for words, at_beginning, message, advice in _SYNTAX:
        if words in (error.problem or ""):
            if at_beginning and error.context_mark:
                offset = error.context_mark.index
            char = document.text[offset : offset + 1]
            return offset, "syntax", message.format(char=char), advice
    return offset, "syntax", f"the YAML is broken: {error.problem}", "mend it"
