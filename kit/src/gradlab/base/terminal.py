"""Texts as a terminal may get them: nothing moves its cursor, sets its title or forges a line.

Promises: `printable` gives one line whatever a name holds; `tame` gives a line of a program's
output with its colours, and with nothing else that a terminal would obey.
"""

from __future__ import annotations

import re

# A control sequence, a string for the terminal (a title, a link), another escape.
SEQUENCE = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])(?:[^\x07\x1b\x9c]|\x1b(?!\\))*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROL = re.compile(
    rf"(?P<colour>\x1b\[[0-9;:]*m)|{SEQUENCE}|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]"
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_RESET = "\x1b[0m"


def printable(text: str) -> str:
    """Give a text as one line, with an escape such as `\\n` for what can't be seen."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def lines(text: str) -> str:
    """Give a text of several lines, each of them printable."""
    return "\n".join(map(printable, text.split("\n")))


def tame(line: str) -> str:
    """Give a line of a program's output without what a terminal obeys, but for its colours."""
    if "\x1b" not in line and line.replace("\t", " ").isprintable():
        return line
    line = _CONTROL.sub(lambda found: found["colour"] or "", line)
    colours = _COLOUR.findall(line)
    return line + _RESET if colours and colours[-1] not in (_RESET, "\x1b[m") else line
