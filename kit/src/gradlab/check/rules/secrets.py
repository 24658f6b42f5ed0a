"""Rules on secrets: credentials in clear, under whatever name, and `secret:` without effect.

Promises: a value is never shown. An error is what a name or a form makes certain; what only looks
like a key is a warning.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from itertools import islice

from ...spec.credentials import name_of
from ...spec.document import Document, Mark
from ...spec.spec import Spec
from ..registry import Found, rule
from ..shell import Keys, all_texts
from ..words import where

_PARAMETERS = ("password", "secret-access-key")
_NAME = re.compile(  # of a variable that holds a secret
    r"(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|PRIVATE_?KEY|ACCESS_?KEY|API_?KEY"
    r"|AUTH_?KEY|SECRET_?KEY|(?<=_)(?:PWD|PASS|PAT|KEY)$|^PASS$|^KEY$)(?![A-Z])"
    r"(?!_(?:ID|NAME|FILE|PATH|DIR|URL|TYPE|LIMIT|LENGTH|LEN|SIZE|COUNT|ENV|VAR|HOST|USER)\b)",
    re.IGNORECASE,
)
_WEAK_NAME = re.compile(
    r"(?<!API_)(?<!API)(?<!ACCESS_)(?<!ACCESS)(?<!SECRET_)(?<!PRIVATE_)(?<!AUTH_)KEY$",
    re.IGNORECASE,
)
_MODEL_TOKEN = re.compile(  # a token of a tokenizer, or of DreamBooth and its like
    r"(?:PAD|EOS|BOS|CLS|SEP|UNK|MASK|STOP|CLASS|INSTANCE|PLACEHOLDER|INITIALIZER|TRIGGER|SPECIAL"
    r"|START|END|SOS|IMAGE|CONCEPT|NUM|MAX|MIN)_TOKEN",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(
    r"|true|false|yes|no|on|off|none|null|\d{1,4}|[./~].*|\$.*|<.*|\{.*|%.*|secret:.*"
    r"|workflow\.inputs\..*|\*+|x{3,}"
    r"|(?:your|my|the|some|change|replace|insert|todo|example)[-_ ].*"
    r"|.*(?:_here|-here|placeholder|changeme|redacted|dummy).*",
    re.IGNORECASE | re.DOTALL,
)
_TOKEN = re.compile(  # what has the form of a credential
    r"\b(?:gh[pousr]_\w{36,}|github_pat_\w{22,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}\b|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{35}"
    r"|ya29\.[\w-]{20,}|dckr_pat_[\w-]{20,}|pypi-[\w-]{50,}|npm_\w{36}|r8_\w{37}|gsk_\w{40,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}|SG\.[\w-]{20,}\.[\w-]{20,}|dop_v1_[0-9a-f]{64}"
    r"|tskey-[\w-]{20,}|lsv2_\w{20,}|nvapi-[\w-]{40,}|KGAT_[0-9a-f]{20,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|://[^/\s:@$<{%'\"]*:[^/\s:@$<{%*'\"][^/\s:@'\"]*@|://(?!git@)[A-Za-z0-9_-]{20,}@"
)
_QUOTED = r"(?:\"(?P<d{n}>[^\"\n]*)\"|'(?P<s{n}>[^'\n]*)'|(?P<p{n}>[^\s\"'|&;)<>,]+))"
_ASSIGNED = re.compile(
    r"(?:^|[\s;&(\"'{,\[])(?P<name>[A-Za-z_][\w.-]*)[\"']?\]?[ ]?(?:=|:[ ]?(?=[\"']))[ ]?"
    + _QUOTED.replace("{n}", "")
)
_OPTION = re.compile(
    r"(?:^|\s)--?(?P<name>(?:[\w-]+[-_])?(?:token|password|passwd|secret|api[-_]?key|access[-_]?key"
    r"|secret[-_]?key|auth[-_]?token))(?:=|\s+)" + _QUOTED.replace("{n}", "")
)
_SAID = re.compile(  # a command or header that takes a credential
    r"(?:\bwandb login (?:--relogin )?|\bwandb\.login\((?:key=)?|\blogin\((?:token=|key=)?"
    r"|\bAuthorization:\s*(?:Bearer|Token|Basic)\s+|\bX-Api-Key:\s*|\bcomet login --api-key "
    r"|\bcurl\b[^\n|;]{0,200}\s(?:-u|--user)\s+[\"']?[\w.@-]+:)" + _QUOTED.replace("{n}", ""),
    re.IGNORECASE,
)
_NOT_A_KEY = re.compile(  # of a variable whose value looks like a key by nature
    r"SHA|MD5|HASH|COMMIT|CHECKSUM|DIGEST|REV|REF|VERSION|TAG|UUID|GUID|SEED|URL|URI|PATH|DIR|FILE"
    r"|IMAGE|NAME|CLASS|ARCH|ETAG|BRANCH|DATASET|MODEL|MACHINE|(?:^|_)ID$|IDS?$|COLOR|FORMAT|SUM",
    re.IGNORECASE,
)
_LONG = re.compile(r"[A-Za-z0-9+/_=.~-]{20,}")
_MENTION = re.compile(r"(?<![\w.-])secret:[A-Za-z][\w-]+")
_SECRET = re.compile(r"(?<![\w.-])secret:(?=\S)|^secret:")
_MISSPELLED = re.compile(r"\s*(?:secrets:|S(?i:ecrets?):|secrets?\.(?=[A-Z]))([\w.-]+)\s*")
_BEGIN = re.compile(r"\A\s*secret:")
_MOST = 1000  # assignments of one text that are looked at
_STORE = "store a new one as a secret, and give it as `secret:NAME` in `env`"


@rule("secret-in-clear", "error", "a password, token or key stands in the file")
def secret_in_clear(spec: Spec, document: Document) -> Found:
    for keys, text in all_texts(document.data, ()):
        if _in_clear(keys, text):
            secret = re.sub(r"\W", "_", str(keys[-1])).upper()
            advice = f"store it as a secret of the service, and write `secret:{secret}`"
            yield document.mark(*keys), f"{where(keys)} holds a secret in clear", advice
        elif _certain(keys, text):
            message = f"{where(keys)} holds a token, key or password in clear"
            yield _place(document, keys, text), message, f"revoke it, {_STORE}"


@rule("possible-secret", "warning", "a value looks like a password, token or key")
def possible_secret(spec: Spec, document: Document) -> Found:
    for keys, text in all_texts(document.data, ()):
        likely = (keys[-2:-1] == ("env",) and _looks(str(keys[-1]), text)) or _likely(text)
        if likely and not (_in_clear(keys, text) or _certain(keys, text)):
            message = f"{where(keys)} holds what looks like a key or password in clear"
            yield _place(document, keys, text), message, f"if it is one, revoke it, {_STORE}"


def _in_clear(keys: Keys, text: str) -> bool:
    """Tell whether a variable or parameter that is for a secret holds one."""
    match keys:
        case (*_, "with", name) if name in _PARAMETERS:
            return not text.startswith(("secret:", "workflow.inputs."))
        case (*_, "env", name):
            return _is_secret(str(name), text)
    return False


def _is_secret(name: str, value: str) -> bool:
    """Tell whether a variable's name says that its value is a secret."""
    word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").replace(".", "_")
    if not _NAME.search(word) or _MODEL_TOKEN.search(word) or _NO_SECRET.fullmatch(value):
        return False
    mixed = re.fullmatch(r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9]{16,}", value)
    return not _WEAK_NAME.search(word) or bool(mixed) or _is_random(value)


def _certain(keys: Keys, text: str) -> bool:
    """Tell whether a text holds a token, gives a secret its value, or hands it to a login."""
    if _TOKEN.search(text) and keys[-1] != "access-key":
        return True
    given = islice((*_ASSIGNED.finditer(text), *_OPTION.finditer(text)), _MOST)
    return any(map(_names_secret, given)) or any(map(_is_said, _SAID.finditer(text)))


def _is_said(found: re.Match[str]) -> bool:
    """Tell whether a login or header is given a credential in clear."""
    value = _value(found)
    known = len(value) > 7 and re.search(r"\d", value) and not _NO_SECRET.fullmatch(value)
    return bool(known) and not re.search(r"[$`{(\s]", value)


def _names_secret(found: re.Match[str]) -> bool:
    """Tell whether a variable or option of a script is given a secret in clear."""
    return _is_literal(_value(found)) and _is_secret(found["name"], _value(found))


def _likely(text: str) -> bool:
    found = islice(_ASSIGNED.finditer(text), _MOST)
    return any(_looks(each["name"], _value(each)) for each in found)


def _looks(name: str, value: str) -> bool:
    """Tell whether a value looks like a key, whatever its variable is called."""
    return not _NOT_A_KEY.search(name) and bool(_LONG.fullmatch(value)) and _is_random(value)


def _is_literal(value: str) -> bool:
    """Tell whether a script's value is text: no call, no other variable, no sentence."""
    return len(value) > 5 and not re.search(
        r"[$(\[{`\s]|\.\w+\(|^(?:os|sys|args|self|config)\.", value
    )


def _is_random(value: str) -> bool:
    """Tell whether a value is hexadecimal of a key's length, or of letters and digits at random."""
    if re.fullmatch(r"[0-9a-f]{32,}|[0-9A-F]{32,}", value):
        return len(set(value)) > 7
    kinds = (re.search(kind, value) is not None for kind in ("[a-z]", "[A-Z]", r"\d"))
    if len(value) < 20 or sum(kinds) < 3 or re.search(r"[/.].*[/.]|[a-z]{6}", value):
        return False
    counts = Counter(value).values()
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts) > 3.5


def _value(found: re.Match[str]) -> str:
    return next((part for part in (found["d"], found["s"], found["p"]) if part is not None), "")


def _place(document: Document, keys: Keys, text: str) -> Mark:
    """Give the place of the first credential in a text."""
    tests: list[tuple[re.Pattern[str], Callable[[re.Match[str]], bool]]] = [
        (_TOKEN, lambda found: True),
        (_ASSIGNED, _names_secret),
        (_OPTION, _names_secret),
        (_SAID, _is_said),
        (_ASSIGNED, lambda found: _looks(found["name"], _value(found))),
    ]
    for pattern, is_one in tests:
        for found in islice(pattern.finditer(text), _MOST):
            if is_one(found):
                return document.find(re.compile(re.escape(found[0].strip())), *keys)
    return document.mark(*keys)


@rule("secret-not-whole", "error", "`secret:NAME` is a part of a value, without effect")
def secret_not_whole(spec: Spec, document: Document) -> Found:
    for keys, text in all_texts(document.data, ()):
        for_secret = keys[-2:-1] == ("env",) or keys[-1] in _PARAMETERS
        if found := _MISSPELLED.fullmatch(text) if for_secret else None:
            message = f"{where(keys)} is written like a secret, and nothing replaces it"
            yield document.mark(*keys), message, f"write `secret:{found[1]}`"
        pattern = _SECRET if for_secret else _MENTION
        pattern = pattern if pattern.search(text) else _BEGIN
        if pattern.search(text) and not (name_of(text) and _is_replaced(keys)):
            yield document.find(pattern, *keys), *_no_effect(keys, text)


def _is_replaced(keys: Keys) -> bool:
    """Tell whether the service puts a secret in the place of `secret:NAME` here."""
    match keys:
        case ("defaults", "env", _) | ("jobs", _, "env" | "with", _):
            return True
    return False


def _no_effect(keys: Keys, text: str) -> tuple[str, str]:
    message = f"`secret:` has no effect in {where(keys)}"
    advice = "give the secret a variable of its own in `env`, and use that: $NAME"
    if name_of(text):
        return f"{message}, where no secret is filled in", advice
    if _BEGIN.search(text) and _is_replaced(keys) and "\n" not in text.strip():
        advice = "write `secret:NAME` and nothing else, NAME of letters, digits, `_`, `.` and `-`"
        return f"{message}, for that is no secret's name", advice
    return f"{message}, for it is not the whole value", advice
