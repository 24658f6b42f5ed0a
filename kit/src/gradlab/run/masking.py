"""Hides secrets in what is printed and written, in the forms in which programs print them.

A text is read in three ways: as it stands, but for quotes, backslashes, line ends and colours
between its characters; with percent-encoding, JSON's and HTML's escapes resolved; as hexadecimal
digits. In the first two base64 is looked for as well, at each of its three alignments.

Promises: the result is the same however the text is cut into pieces. What identifies nothing is
left alone: a secret of fewer than 4 characters, the short lines of one that has several.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from ..base.terminal import SEQUENCE
from ..spec.credentials import SECRET_VARIABLE, SHORTEST, logins

MASK = "***"
SHORTEST_LINE = 6  # of a secret that has several
SHORTEST_LEAF = 16  # of a JSON document
SHORTEST_TORN = 8  # to be found where a line end cuts it
FIRST = 3  # that have to be before a line end
HEAD = 3  # bytes by which a form's beginning is looked up
WORD = re.compile(r"[A-Za-z]{1,12}")  # could be one of the runner's own

_BETWEEN = rf"{SEQUENCE}|[\x00-\x08\x0a-\x1f\x7f-\x9f\"'\\]"
_PERCENT, _HEXED = "%(?:25)*", r"\\\\*x"
_H, _MORE = "[0-9A-Fa-f]", "[89ABab][0-9A-Fa-f]"


def _utf8(sign: str) -> str:
    """Match the bytes of one character, each after a sign."""
    more = rf"{sign}{_MORE}"
    return (
        rf"{sign}[C-Dc-d]{_H}{more}|{sign}[Ee]{_H}(?:{more}){{2}}"
        rf"|{sign}[Ff]{_H}(?:{more}){{3}}|{sign}[0-7]{_H}"
    )


# Each of the choices begins with a character, by which the search is fast.
_ESCAPED = (
    rf"{_utf8(_PERCENT)}|{_utf8(_HEXED)}"
    rf"|\\\\*u[Dd][89ABab]{_H}{{2}}\\+u[Dd][C-Fc-f]{_H}{{2}}|\\\\*u{_H}{{4}}"
    r"|\\\\|\\[nrt]|&(?:amp|lt|gt|quot|apos|#0?39|#x27);"
)
_ENCODED = re.compile(rf"{_ESCAPED}|{_BETWEEN}")
_HEX = re.compile(rf"0x|[ \t:,xA-F]|{_BETWEEN}")
# The beginning of what the next piece may complete.
_BEGUN = re.compile(
    rf"(?:%(?:25)*(?:[C-Fc-f]{_H}(?:%(?:25)*{_MORE}){{0,2}}(?:%(?:25)*{_H}?)?|{_H}?)"
    rf"|\\+(?:x(?:[C-Fc-f]{_H}(?:\\+x{_MORE}){{0,2}}(?:\\+(?:x{_H}?)?)?|{_H}?))?"
    rf"|\\+u(?:[Dd][89ABab]{_H}{{2}}(?:\\+(?:u{_H}{{0,3}})?)?|{_H}{{0,3}})|&[#a-z0-9]{{0,4}}"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*|\x1b[\]PX^_](?:[^\x07\x1b\x9c]|\x1b(?!\\)){0,200}\x1b?"
    r"|\x1b[ -/]*)\Z"
)
_OPENING = re.compile(r"[%\\&\x1b\x9b]")
_HTML = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "", "&apos;": "", "&#39;": ""}
_ESCAPE = re.compile(_ESCAPED)
_C1 = re.compile(r"[\x80-\x9f]")
_SEQUENCE = re.compile(rf"{SEQUENCE}|[\x80-\x9f]")
_CONTROLS = bytes({*range(9), *range(10, 32), 127, *b"\"'\\"})
_LOWER = bytes.maketrans(b"ABCDEF", b"abcdef")
_BARE = re.compile(_BETWEEN)
_ASSIGNED = re.compile(r"(?:export\s+)?[\"']?([\w.-]+)[\"']?\s*[=:]\s*[\"']?(.+?)[\"']?,?")


@dataclass
class Reading:
    """A way to read a text: what stands between characters or for others, and what to look for.

    `forms` has for each text how many of its characters must be before a line end that cuts it.
    `quick` gives the text as it reads, or nothing where other readings find all that it can hold.
    """

    pattern: re.Pattern[str]
    decode: Callable[[str], str]
    quick: Callable[[str], bytes]
    forms: dict[str, int]

    def __post_init__(self) -> None:
        self.wanted = [(form.encode("utf-8", "surrogatepass"), form) for form in self.forms]
        self.heads = {form[:length] for form, _ in self.wanted for length in range(1, HEAD + 1)}
        self.longest = max((len(form) for form, _ in self.wanted), default=0)

    def placed(self, text: str) -> tuple[str, list[int], list[int]]:
        """Give the text as it reads, and where the source of each character begins and ends."""
        parts, begins, ends, last = list[str](), list[int](), list[int](), 0
        for found in self.pattern.finditer(text):
            start, end = found.span()
            decoded = self.decode(found[0])
            parts += [text[last:start], decoded]
            begins += [*range(last, start), *[start] * len(decoded)]
            ends += [*range(last + 1, start + 1), *[end] * len(decoded)]
            last = end
        parts.append(text[last:])
        begins += range(last, len(text))
        ends += range(last + 1, len(text) + 1)
        return "".join(parts), begins, ends

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Give the places in a text that hold a form."""
        quick = self.quick(text)
        there = [form for data, form in self.wanted if data in quick]
        if not there:
            return
        plain, begins, ends = self.placed(text)
        for form in there:
            at = plain.find(form)
            while at >= 0:
                begin, end = begins[at], ends[at + len(form) - 1]
                if not _is_torn(text, begin, end, begins, at, self.forms[form]):
                    yield begin, end
                at = plain.find(form, at + 1)

    def begin(self, text: str) -> int:
        """Say where a form may have begun that the next piece goes on with."""
        quick = self.quick(text) or _bare(text)
        if not self._may_begin(quick, FIRST if text[-1:] in ("\n", "\r") else 1):
            return len(text)
        plain, begins, _ = self.placed(text)
        found = [(at, form) for form in self.forms for at in _beginnings(plain, form)]
        whole = (
            begins[at]
            for at, form in found
            if not _is_torn(text, begins[at], len(text), begins, at, self.forms[form])
        )
        return min(whole, default=len(text))

    def _may_begin(self, data: bytes, least: int) -> bool:
        """Tell whether the last bytes, at least so many, could be the beginning of a form."""
        for at in range(max(0, len(data) - self.longest), len(data) - least + 1):
            if (head := data[at : at + HEAD]) in self.heads:
                rest = data[at:]
                if any(form.startswith(rest) for form, _ in self.wanted if form[:1] == head[:1]):
                    return True
        return False


class Mask:
    """Hides secrets in a text that comes in pieces."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self.secrets = set(secrets)
        self.held = ""
        forms, digits = dict[str, int](), dict[str, int]()
        for part in {part for secret in self.secrets for part in parts(secret)}:
            forms |= _forms(part)
            digits |= _digits(part)
        self.readings = [
            Reading(_BARE, lambda text: "", _bare, forms),
            Reading(_ENCODED, _decoded, _resolved, forms),
            Reading(_HEX, lambda text: text.lower() if text in "ABCDEF" else "", _hex, digits),
        ]
        self.reach = 256 + 12 * max(map(len, forms), default=0)

    def __call__(self, text: str) -> str:
        """Mask a text that is complete."""
        return _replaced(text, self._find(text))

    def words(self, text: str) -> str:
        """Mask a message of the runner's, in which a secret that is a mere word stays."""
        return Mask(secret for secret in self.secrets if not WORD.fullmatch(secret))(text)

    def feed(self, text: str, last: bool = False) -> str:
        """Mask the next piece; what may be the beginning of a secret is held back."""
        text = self.held + text
        found = self._find(text)
        cut = len(text) if last else self._cut(text)
        cut = min((begin for begin, end in found if begin < cut < end), default=cut)
        self.held = text[cut:]
        return _replaced(text[:cut], [place for place in found if place[1] <= cut])

    def _find(self, text: str) -> list[tuple[int, int]]:
        """Give the places to hide, in their order; what overlaps is one."""
        places: list[tuple[int, int]] = []
        for begin, end in sorted(each for reading in self.readings for each in reading.find(text)):
            if places and begin < places[-1][1]:
                begin, end = places[-1][0], max(places.pop()[1], end)
            places.append((begin, end))
        return places

    def _cut(self, text: str) -> int:
        """Say up to where a text is what it is, whatever the next piece will be."""
        if not self.readings[0].forms:
            return len(text)
        first = max(0, len(text) - self.reach)
        begun = _BEGUN.search(text, first) if _OPENING.search(text, first) else None
        end = begun.start() if begun else len(text)
        tail = text[first:end]
        return first + min(reading.begin(tail) for reading in self.readings)


def parts(secret: str) -> set[str]:
    """Give what of a secret has to be hidden: its long lines, and what it says is a secret."""
    lines = [line.strip() for line in re.split(r"[\r\n]+|\\n", secret)]
    found = {line for line in lines if len(line) >= SHORTEST_LINE} if len(lines) > 1 else set()
    if not found:
        found = {secret.strip()}
    found |= {match[2] for match in map(_ASSIGNED.fullmatch, lines) if match and _named(match[1])}
    found |= {line for leaf in _leaves(secret) for line in leaf.splitlines()}
    found |= set(logins(secret))
    return {part for part in found if len(part) >= SHORTEST}


def _named(name: str) -> bool:
    return bool(SECRET_VARIABLE.search(name))


def _leaves(secret: str) -> Iterator[str]:
    """Give the texts in a JSON document that identify something: a service account's key."""
    try:
        waiting: list[tuple[str, Any]] = [("", json.loads(secret))] if "{" in secret else []
    except (ValueError, RecursionError):
        return
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(str(key), each) for key, each in value.items()]
        elif isinstance(value, list):
            waiting += [(name, each) for each in value]
        elif isinstance(value, str):
            long = len(value) >= SHORTEST_LEAF and not re.match(r"https?://|\S*\s\S* ", value)
            if long or (_named(name) and "://" not in value):
                yield value


def _forms(part: str) -> dict[str, int]:
    """Give the texts in which a part of a secret is printed."""
    torn = len(part) >= SHORTEST_TORN
    data = part.encode("utf-8", "surrogatepass")
    texts = {_BARE.sub("", part), _ENCODED.sub(lambda found: _decoded(found[0]), part)}
    texts |= {text.replace(" ", "+") for text in texts}
    forms = {text: FIRST if torn else len(text) for text in texts if len(text) >= SHORTEST}
    for text in _base64(data) if len(data) >= SHORTEST_LINE else ():
        forms |= {text: FIRST, text.replace("+", "-").replace("/", "_"): FIRST}
    return forms


def _bare(text: str) -> bytes:
    """Give a text without what only stands between its characters."""
    data = text.encode("utf-8", "surrogatepass")
    if b"\x1b" in data or b"\xc2" in data:
        data = _SEQUENCE.sub("", text).encode("utf-8", "surrogatepass")
    return data.translate(None, _CONTROLS)


def _resolved(text: str) -> bytes:
    """Give a text with its escapes resolved, nothing where it has none."""
    if not any(sign in text for sign in "%\\&") or not _ESCAPE.search(text):
        return b""
    pattern = _ENCODED if "\x1b" in text or _C1.search(text) else _ESCAPE
    return _bare(pattern.sub(lambda found: _decoded(found[0]), text))


def _hex(text: str) -> bytes:
    """Give a text as hexadecimal digits may stand in it, without what separates them."""
    data = text.replace("0x", "").encode("utf-8", "surrogatepass")
    return data.translate(_LOWER, _CONTROLS + b" \t:,x")


def _digits(part: str) -> dict[str, int]:
    return {part.encode("utf-8", "surrogatepass").hex(): FIRST}


def _base64(data: bytes) -> Iterator[str]:
    """Give what base64 makes of data at each alignment, but for what its neighbours share."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()
        yield text[-(-8 * before // 6) : 8 * (before + len(data)) // 6]


def _decoded(text: str) -> str:
    """Resolve one run of escapes; give nothing for what only stands between."""
    plain = text.lstrip("\\")
    if text[0] == "%":
        data = unquote_to_bytes(re.sub("%(?:25)+(?=[0-9A-Fa-f]{2})", "%", text))
    elif plain != text and plain[:1] == "u":
        units = bytes.fromhex(text.replace("\\", "").replace("u", ""))
        data = units.decode("utf-16-be", "replace").encode("utf-8", "replace")
    elif plain != text and plain[:1] == "x":
        data = bytes.fromhex(text.replace("\\", "").replace("x", ""))
    else:
        return "\t" if text == "\\t" else _HTML.get(text, "")
    return _BARE.sub("", data.decode("utf-8", "replace"))


def _replaced(text: str, places: list[tuple[int, int]]) -> str:
    pieces, last = list[str](), 0
    for begin, end in places:
        pieces += [text[last:begin], MASK]
        last = end
    return "".join([*pieces, text[last:]])


def _is_torn(text: str, begin: int, end: int, begins: list[int], at: int, least: int) -> bool:
    """Tell whether a line ends so early in a form that it is there by chance."""
    ends = [place for sign in "\n\r" if (place := text.find(sign, begin, end)) >= 0]
    return bool(ends) and bisect_left(begins, min(ends)) - at < least


def _beginnings(text: str, form: str) -> Iterator[int]:
    """Find where a text ends in the beginning of a form, but not in all of it."""
    at = text.find(form[0], max(0, len(text) - len(form) + 1))
    while at >= 0:
        if form.startswith(text[at:]):
            yield at
        at = text.find(form[0], at + 1)
