"""What of a secret is looked for, and how a text reads in which it may stand.

Left alone is what identifies nothing: a secret of fewer than 4 characters, the short lines of one
that has several.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from ..base.terminal import SEQUENCE
from ..spec.credentials import SECRET_VARIABLE, SHORTEST, logins

SHORTEST_LINE = 6  # of a secret that has several
SHORTEST_LEAF = 16  # of a JSON document
SHORTEST_TORN = 8  # to be found where a line end cuts it
FIRST = 3  # that have to be before a line end

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
ENCODED = re.compile(rf"{_ESCAPED}|{_BETWEEN}")
HEX = re.compile(rf"0x|[ \t:,xA-F]|{_BETWEEN}")
# The beginning of what the next piece may complete.
BEGUN = re.compile(
    rf"(?:%(?:25)*(?:[C-Fc-f]{_H}(?:%(?:25)*{_MORE}){{0,2}}(?:%(?:25)*{_H}?)?|{_H}?)"
    rf"|\\+(?:x(?:[C-Fc-f]{_H}(?:\\+x{_MORE}){{0,2}}(?:\\+(?:x{_H}?)?)?|{_H}?))?"
    rf"|\\+u(?:[Dd][89ABab]{_H}{{2}}(?:\\+(?:u{_H}{{0,3}})?)?|{_H}{{0,3}})|&[#a-z0-9]{{0,4}}"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*|\x1b[\]PX^_](?:[^\x07\x1b\x9c]|\x1b(?!\\)){0,200}\x1b?"
    r"|\x1b[ -/]*)\Z"
)
OPENING = re.compile(r"[%\\&\x1b\x9b]")
_HTML = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "", "&apos;": "", "&#39;": ""}
_ESCAPE = re.compile(_ESCAPED)
_C1 = re.compile(r"[\x80-\x9f]")
_SEQUENCE = re.compile(rf"{SEQUENCE}|[\x80-\x9f]")
_CONTROLS = bytes({*range(9), *range(10, 32), 127, *b"\"'\\"})
_LOWER = bytes.maketrans(b"ABCDEF", b"abcdef")
BARE = re.compile(_BETWEEN)
_ASSIGNED = re.compile(r"(?:export\s+)?[\"']?([\w.-]+)[\"']?\s*[=:]\s*[\"']?(.+?)[\"']?,?")


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


def forms(part: str) -> dict[str, int]:
    """Give the texts in which a part of a secret is printed."""
    torn = len(part) >= SHORTEST_TORN
    data = part.encode("utf-8", "surrogatepass")
    texts = {BARE.sub("", part), ENCODED.sub(lambda found: decoded(found[0]), part)}
    texts |= {text.replace(" ", "+") for text in texts}
    forms = {text: FIRST if torn else len(text) for text in texts if len(text) >= SHORTEST}
    for text in _base64(data) if len(data) >= SHORTEST_LINE else ():
        forms |= {text: FIRST, text.replace("+", "-").replace("/", "_"): FIRST}
    return forms


def bare(text: str) -> bytes:
    """Give a text without what only stands between its characters."""
    data = text.encode("utf-8", "surrogatepass")
    if b"\x1b" in data or b"\xc2" in data:
        data = _SEQUENCE.sub("", text).encode("utf-8", "surrogatepass")
    return data.translate(None, _CONTROLS)


def resolved(text: str) -> bytes:
    """Give a text with its escapes resolved, nothing where it has none."""
    if not any(sign in text for sign in "%\\&") or not _ESCAPE.search(text):
        return b""
    pattern = ENCODED if "\x1b" in text or _C1.search(text) else _ESCAPE
    return bare(pattern.sub(lambda found: decoded(found[0]), text))


def as_digits(text: str) -> bytes:
    """Give a text as hexadecimal digits may stand in it, without what separates them."""
    data = text.replace("0x", "").encode("utf-8", "surrogatepass")
    return data.translate(_LOWER, _CONTROLS + b" \t:,x")


def digits(part: str) -> dict[str, int]:
    return {part.encode("utf-8", "surrogatepass").hex(): FIRST}


def _base64(data: bytes) -> Iterator[str]:
    """Give what base64 makes of data at each alignment, but for what its neighbours share."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()
        yield text[-(-8 * before // 6) : 8 * (before + len(data)) // 6]


def decoded(text: str) -> str:
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
    return BARE.sub("", data.decode("utf-8", "replace"))
