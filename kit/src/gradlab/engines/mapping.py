"""Real folders in the place of a job's own, in its script, environment and arguments.

Where nothing else can give a job a root of its own, its text is changed: /inputs, /outputs and
/tmp, and the folders that the script makes at the root (`cp -R /inputs/repo /code`) are
replaced by folders of the job. A program that has such a path in its own code does not see them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

# Not within a longer name or path: $ROOT/inputs and /inputs-old are something else.
# But ${DATA:-/inputs}, -C/tmp and file:///tmp hold such a path.
BEFORE = r"(?:(?<![\w./})*~-])|(?<=:-)|(?<=\s-[A-Za-z])|(?<=://)|(?<=:///))"
AFTER = r"(?![\w.-]*[\w-])"
TOKEN = r"""(?:"[^"\n]*"|'[^'\n]*'|[^\s;&|<>()"'`]+)"""
END = r"[ \t]*(?=[\n;&|)#]|$)"
OPTIONS = (
    "-[CdOPot]|--(?:directory|target-directory|output-document|directory-prefix|output|prefix)"
)
MAKES = re.compile(  # each group holds what a command makes
    r"\b(?:mkdir|touch|tee|git\s+clone|venv|virtualenv)\b([^\n;&|]*)"
    rf"|\b(?:cp|mv|ln|rsync|scp|(?<!\w )install)\b[^\n;&|]*?\s({TOKEN}){END}"
    rf"|\b(?:tar|unzip|7z|wget|curl|cp|mv)\b[^\n;&|]*?\s(?:{OPTIONS})[ =]?({TOKEN})"
    rf"|>\s*({TOKEN})"
)
# A program's own option: only where there is no such folder on this machine.
MAY_MAKE = re.compile(rf"--[\w-]*(?:out|dir|save|dest|log|cache|work)[\w-]*[ =]({TOKEN})")
TO_THE_ROOT = re.compile(
    rf"(\b(?:cp|mv|rsync|ln)\b[^\n;&|]*?\s|\btar\b[^\n;&|]*?\s-C ?|\b(?:cd|pushd)\s+)/{END}"
)
SYSTEM = {"bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt"}
SYSTEM |= {"opt", "proc", "root", "run", "sbin", "srv", "sys", "usr", "var"}
SYSTEM |= {"inputs", "outputs", "tmp"}


def made_at_root(script: str, env: Mapping[str, str], kept: Iterable[str]) -> set[str]:
    """Name the folders that a script makes at the root, but for those of paths to be `kept`."""
    text, known = script.replace("\\\n", " "), dict(env)
    known |= dict(re.findall(r"""(?m)(?:^|[\s;])(\w+)=["']?(/[^\s"';]*)""", text))
    taken = SYSTEM | {Path(path).parts[1] for path in kept if len(Path(path).parts) > 1}
    found = set[str]()
    for pattern in (MAKES, MAY_MAKE):
        for match in pattern.finditer(text):
            names = _tops(" ".join(filter(None, match.groups())), known)
            found |= {n for n in names if pattern is MAKES or not os.path.lexists(f"/{n}")}
    if TO_THE_ROOT.search(text):
        found |= {name for name in _tops(text, known) if not os.path.lexists(f"/{name}")}
    return {name for name in found if re.fullmatch(r"\w[\w.-]*", name)} - taken


def _tops(text: str, known: Mapping[str, str]) -> set[str]:
    """Name the first folders of the absolute paths in a piece of a script."""
    filled = re.sub(r"\$\{?(\w+)\}?", lambda m: known.get(m[1], m[0]), text)
    return set(re.findall(rf"{BEFORE}/(\w[\w.-]*)", filled))


def replacer(places: Mapping[str, str], root: str, kept: Iterable[str]) -> Callable[[str], str]:
    """Give what replaces /NAME by the path that `places` has for it.

    `kept` are folders of /tmp that stay what they are.
    """
    here = "|".join(re.escape(name) for name in kept)
    tmp = rf"(?!/(?:{here})(?![\w.-]))" if here else ""
    names = "|".join(
        re.escape(name) + (tmp if name == "tmp" else "")
        for name in sorted(places, key=len, reverse=True)
    )
    pattern = re.compile(rf"{BEFORE}/({names}){AFTER}" if places else r"(?!)")

    def real(text: str) -> str:
        text = pattern.sub(lambda match: places[match[1]], text)
        return TO_THE_ROOT.sub(lambda match: f"{match[1]}{root}/", text)

    return real
