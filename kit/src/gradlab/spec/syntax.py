"""YAML's syntax errors in a user's words.

Promises: the same words whether PyYAML or libyaml found the error, and with the place where the
mistake was made rather than where the parser gave up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from .document import Document

_SYNTAX = {  # what libyaml or PyYAML says: our words
    "mapping values are not allowed": (
        "a `:` followed by a space makes this a mapping, which can't stand here",
        'quote a text that holds ": "; put a nested key on a line of its own',
    ),
    "unexpected end of stream": ("a quote opens here and is never closed", "close it"),
    "',' or": (
        "a bracket opens here and is never closed, or a comma is missing in it",
        "close it, or quote a text that begins with a bracket",
    ),
    "cannot start any token": ("a value can't begin with {char!r}", "quote the value"),
    "expected alphabetic or numeric character": (
        "{char!r} begins an alias or anchor, and no name follows",
        "quote the value if it is text",
    ),
    "expected ':'": (
        "this line is neither `key: value` nor a part of the value above",
        "add the colon, or indent it deeper than its key",
    ),
    "entries are not allowed": (
        "a list can't begin here",
        "write each `- item` on a line of its own, below its key",
    ),
    "expected": (
        "this line does not fit the lines above it",
        "indent what belongs together alike; quote a text with quotes, colons or brackets in it",
    ),
}
# Of these it matters where the mistake begins, not where the parser gives up.
_BEGINNING = (
    *("unexpected end of stream", "',' or"),
    *("expected alphabetic or numeric character", "expected ':'"),
)
_ITEM = r"( *(?:- +)*)"
_KEY = re.compile(_ITEM + r"""(?:[\w.@/-]+|"[^"]*"|'[^']*') *:(?= |$)""")
_VALUE = re.compile(_ITEM + r"([\w.-]+): +([^#\s|>&*!\[{].*)")
_NO_SPACE = re.compile(_ITEM + r"([A-Za-z][\w-]*):(?!//|:)[^\s\\]")
_HEADER = re.compile(r"( *)(?:- +)*(?:([\w.-]+): +)?[|>][+-]?\d?[+-]?(?: +#.*)? *$")
_HEREDOC = re.compile(r"(?<!<)<<[-~]? *([\"']?)([A-Za-z_]\w*)\1")
_GOES_ON = re.compile(r" *(?:#|- |-$|---|\.\.\.)")
_WITH = {"uses": "an action's parameters stand", "type": "what a type needs stands"}
_AFTER = 20  # lines that are looked at after a text


def reword(document: Document, error: yaml.MarkedYAMLError) -> tuple[int, str, str, str]:
    """Give the place, rule, message and advice for an error of YAML's syntax."""
    mark = error.problem_mark or error.context_mark
    offset = min(mark.index, len(document.text)) if mark else 0
    line = document.text[:offset].rpartition("\n")[2] + document.text[offset:].partition("\n")[0]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return offset, "tab", "a tab stands in the indentation", "indent with spaces"
    if document.text[offset : offset + 1] == "\t":
        return offset, "tab", "a tab stands between the parts of this line", "use spaces"
    lines = _lines_to(document.text, offset)
    if found := _cut_text(document.text, lines) or _too_deep(lines) or _no_space(lines):
        return found[0], "syntax", *found[1:]
    for words, (message, advice) in _SYNTAX.items():
        if words in (error.problem or ""):
            if words in _BEGINNING and error.context_mark:
                offset = error.context_mark.index
            char = document.text[offset : offset + 1]
            return offset, "syntax", message.format(char=char), advice
    return offset, "syntax", f"the YAML is broken: {error.problem}", "mend it"


@dataclass(frozen=True)
class _Line:
    """A line that is not blank: its number, where it begins, and its indentation."""

    number: int
    start: int
    text: str

    @property
    def indent(self) -> int:
        return len(self.text) - len(self.text.lstrip(" "))


def _lines_to(text: str, offset: int) -> list[_Line]:
    """Give the lines up to the one at an offset, but the blank ones."""
    lines, start = [], 0
    for number, line in enumerate(text.split("\n"), 1):
        if start > offset:
            break
        if line.strip():
            lines.append(_Line(number, start, line.rstrip()))
        start += len(line) + 1
    return lines


def _cut_text(text: str, lines: list[_Line]) -> tuple[int, str, str] | None:
    """Find the line that ends a text begun by `|` or `>` too early: a heredoc's, most often."""
    for header, inside, rest in _blocks(lines):
        key, after = _HEADER.match(header.text), rest[0]
        wanted = inside[0].indent
        word = _open_heredoc(inside)
        heredoc = word and re.search(rf"^[ \t]*{word}[ \t]*$", text[after.start :], re.MULTILINE)
        odd = not (_KEY.match(after.text) or _GOES_ON.match(after.text))
        # A comment ends the text too: then what follows it is indented as the text was.
        code = next((line for line in rest if not line.text.lstrip().startswith("#")), after)
        if heredoc or odd or header.indent < after.indent or code.indent >= wanted:
            name = f"the text of `{key[2]}`" if key and key[2] else "the text"
            message = f"this line ends {name}, which begins in line {header.number}, "
            advice = f"indent it by {wanted} spaces at least, as the lines above"
            if heredoc:
                advice += f", and so on up to `{word}`: YAML takes the indentation away again"
            return after.start, message + "for it is indented less", advice
    return None


def _blocks(lines: list[_Line]) -> Iterator[tuple[_Line, list[_Line], list[_Line]]]:
    """Give each text begun by `|` or `>`: its header, its lines, and the lines after it."""
    number = 0
    while number < len(lines):
        header = lines[number]
        number += 1
        if not _HEADER.match(header.text):
            continue
        first = lines[number] if number < len(lines) else header
        inside = []
        while number < len(lines) and lines[number].indent >= first.indent > header.indent:
            inside.append(lines[number])
            number += 1
        if inside and number < len(lines):
            yield header, inside, lines[number : number + _AFTER]


def _open_heredoc(lines: list[_Line]) -> str:
    """Give the word of a heredoc that these lines begin and don't end."""
    word = ""
    for line in lines:
        if not word:
            found = _HEREDOC.search(line.text)
            word = found[2] if found else ""
        elif line.text.strip() == word:
            word = ""
    return word


def _too_deep(lines: list[_Line]) -> tuple[int, str, str] | None:
    """Find a key below one that has a value already: `with:` is missing, most often."""
    lines = [line for line in lines if not line.text.lstrip().startswith("#")][-2:]
    value = _VALUE.match(lines[0].text) if len(lines) == 2 else None
    key = _KEY.match(lines[1].text) if value else None
    if not value or not key or len(key[1]) <= len(value[1]):
        return None
    name = value[2]
    message = f"`{name}` in line {lines[0].number} has a value, so that no key can stand below it"
    advice = f"indent it as `{name}`, or remove the value"
    if name in _WITH:
        advice = f"`with:` is missing: write it above this line, indented as `{name}`, for "
        advice += f"{_WITH[name]} below it"
    return lines[1].start + len(key[1]), message, advice


def _no_space(lines: list[_Line]) -> tuple[int, str, str] | None:
    """Find a key whose `:` has no space behind it, at or above the error."""
    for line in lines[:-3:-1]:
        if found := _NO_SPACE.match(line.text):
            message = f"`{found[2]}:` is no key, for no space follows its colon"
            return line.start + len(found[1]), message, f"write `{found[2]}: ` with a space"
    return None
