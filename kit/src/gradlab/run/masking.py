"""Hides secrets in what is printed and written, in the forms in which programs print them.

A text is read in three ways: as it stands, but for quotes, backslashes, line ends and colours
between its characters; with percent-encoding, JSON's and HTML's escapes resolved; as hexadecimal
digits. In the first two base64 is looked for as well, at each of its three alignments.

Promises: the result is the same however the text is cut into pieces. What identifies nothing is
left alone, as forms.py says.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from . import forms as of
from .forms import FIRST, bare

MASK = "***"
HEAD = 3  # bytes by which a form's beginning is looked up
WORD = re.compile(r"[A-Za-z]{1,12}")  # could be one of the runner's own


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
        quick = self.quick(text) or bare(text)
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
        for part in {part for secret in self.secrets for part in of.parts(secret)}:
            forms |= of.forms(part)
            digits |= of.digits(part)
        self.readings = [
            Reading(of.BARE, lambda text: "", bare, forms),
            Reading(of.ENCODED, of.decoded, of.resolved, forms),
            Reading(of.HEX, _lower, of.as_digits, digits),
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
        begun = of.BEGUN.search(text, first) if of.OPENING.search(text, first) else None
        end = begun.start() if begun else len(text)
        tail = text[first:end]
        return first + min(reading.begin(tail) for reading in self.readings)


def _lower(text: str) -> str:
    return text.lower() if text in "ABCDEF" else ""


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
