"""Secrets: how a workflow names them, where their values come from, where they go.

    secret:NAME    the whole value of a variable or parameter; NAME of letters, digits, `_`, `.`
                   and `-`, in the same case as at the service

Here the value is that of the environment variable NAME. Where NAME can't be a variable's, such as
`my-key`, the variable MY_KEY does as well.

Promises: this is the one grammar, for check, run, setup and the notebook. A text that is kept
holds `secret:NAME` where a job wrote the value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from ..base.errors import GradlabError

REFERENCE = re.compile(r"secret:([\w.-]+)", re.ASCII)
SHORTEST = 4  # characters that identify something
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
# Within a URL, or before the host of a proxy.
_LOGIN = re.compile(r"(?:^|//)([^/\s:@\"'?#]*):?([^/\s\"']*)@(?=[\w\[])")
SECRET_VARIABLE = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|ACCESS_KEY|PRIVATE_KEY", re.I)
_TOKEN_LENGTH = 20  # characters from which on a user's name in a URL is taken for a token
_KEPT = re.compile("\0([^\0]*)\0")


def name_of(value: object) -> str | None:
    """Give the name of the secret that a value asks for, None where it asks for none."""
    match = REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return match[1] if match else None


def names_in(*groups: Mapping[str, Any]) -> set[str]:
    """Name the secrets that environments and parameters ask for."""
    found = {name_of(value) for group in groups for value in group.values()}
    return {name for name in found if name}


def fill(values: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
    """Put the secrets in their places."""
    names = {key: name_of(value) for key, value in values.items()}
    return {key: secrets[name] if (name := names[key]) else values[key] for key in values}


def variable(name: str) -> str:
    """Give the environment variable for a secret: its own name, or MY_KEY for my-key."""
    if _VARIABLE.fullmatch(name):
        return name
    plain = re.sub(r"\W", "_", name.upper(), flags=re.ASCII)
    return plain if _VARIABLE.fullmatch(plain) else f"_{plain}"


def value_of(name: str) -> str:
    """Give a secret's value, empty where the environment has none."""
    return os.environ.get(name) or os.environ.get(variable(name), "")


def values_of(places: Mapping[str, str], hint: str = "") -> dict[str, str]:
    """Give the values of secrets, each with the place in a file that asks for it.

    Raises GradlabError for one that is missing, and for two that one variable would give.
    """
    values = {name: value_of(name) for name in sorted(places)}
    if missing := [name for name in values if not values[name]]:
        asked = "\n".join(f"{places[name]} asks for {name}" for name in missing)
        raise GradlabError(f"{_missing(missing)}{hint}\n{asked}")
    taken: dict[str, str] = {}
    for name in values:
        source = name if os.environ.get(name) else variable(name)
        if other := taken.get(source):
            raise GradlabError(
                f"{places[name]}: the secrets {other} and {name} would both be the variable "
                f"{source}: rename one of them, or set it under its own name: env {name}=..."
            )
        taken[source] = name
    return values


def _missing(names: list[str]) -> str:
    """Say that secrets are missing, and how to give them."""
    said = f"the secret {', '.join(names)} is missing: set an environment variable of that name"
    others = [f"{variable(name)} for {name}" for name in names if variable(name) != name]
    return f"{said} ({', '.join(others)})" if others else said


def logins(*texts: str) -> Iterator[str]:
    """Give the passwords in URLs and addresses of proxies, as written and as they are meant."""
    for text in texts:
        for user, password in _LOGIN.findall(text):
            for part in (password, user if not password or len(user) >= _TOKEN_LENGTH else ""):
                yield from {part, unquote(part)} - {""}


def passed_on(environment: Mapping[str, str]) -> set[str]:
    """Give the secrets in variables that jobs get from this machine, such as a package index."""
    values = {value for name, value in environment.items() if SECRET_VARIABLE.search(name)}
    return values | set(logins(*environment.values()))


def seal(text: str, secrets: Mapping[str, str]) -> str:
    """Give a text as it is kept: with the names of secrets in the place of their values."""
    names: dict[str, str] = {"\0": ""}
    names |= {value: name for name, value in secrets.items() if len(value) >= SHORTEST}
    longest_first = sorted(names, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return pattern.sub(lambda found: f"\0{names[found[0]]}\0", text)


def unseal(text: str, secrets: Mapping[str, str]) -> str:
    """Give the text that was sealed; GradlabError where a secret of it is not at hand."""

    def value(found: re.Match[str]) -> str:
        if found[1] and found[1] not in secrets:
            raise GradlabError(f"a string holds the secret {found[1]}, which no job asks for now")
        return secrets[found[1]] if found[1] else "\0"

    return _KEPT.sub(value, text)


def shown(text: str) -> str:
    """Give a sealed text as people may see it."""
    return _KEPT.sub(lambda found: "***" if found[1] else "\0", text)
