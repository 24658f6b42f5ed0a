"""How a script is read: its texts, its commands, and what of it the shell takes.

Promises: what a heredoc or quotes keep from the shell is not the shell's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..spec.spec import Job

Keys = tuple[str | int, ...]
Texts = list[tuple[Keys, str]]

_RUN = ("script", "command", "args", "path")  # the parameters that hold paths
# Programs that read and write only what they are told to, by words that stand in the script.
_TOOLS = (
    "[ [[ apk apt apt-get awk aws basename bunzip2 bzip2 cat cd chmod chown conda cp curl cut date "
    "declare df diff dirname dpkg du echo env exit export false find free gdown git grep gsutil "
    "gunzip gzip head hf hostname huggingface-cli id kaggle kill ln local ls mamba md5sum mkdir mv "
    "nproc nvidia-smi pip pip3 printenv printf pwd readonly rm rmdir rsync sed set sha1sum "
    "sha256sum sleep sort split sudo tail tar tee test touch tr true type ulimit uname uniq unset "
    "unxz unzip wait wandb wc wget which whoami xz yes yum zcat zip : exec then else do if while "
    "until elif fi done esac for case select"
)
_BEFORE = ("then", "else", "do", "if", "while", "until", "elif", "sudo", "!")
_PROGRAM = re.compile(r"\bxargs\b|-exec\b|\bpip3? install\b.*(?:\s-e\b|\s\.(?:\s|$))|<<")
_COMMENT = re.compile(r"(?:^|\s)#.*", re.MULTILINE)
_SEPARATOR = re.compile(r"\n|;+|&&|\|\|?|(?<![<>0-9])&(?!>)|\$?\(|\)|`|\{(?=\s)|\}")
_ASSIGNMENT = re.compile(r"\s*(?:[A-Za-z_]\w*\+?=(?:\"[^\"]*\"|'[^']*'|[^\s\"']*)\s*)+")
_LOCAL_CODE = re.compile(
    r"\b(?:python[\d.]*|bash|sh|julia|Rscript|node)\s+(?:-u\s+)?(?!/)(\w[\w./-]*\.(?:py|sh|jl|R|js)\b)"
)
_FETCHES = re.compile(r"\b(?:cd|clone|wget|curl|cp|mv|unzip|tar|gdown|kaggle|download)\s|inputs")
_HEREDOC = re.compile(r"<<[-~]? {0,9}[\"'\\\\]([A-Za-z_]\w*)")  # its body is no shell's


def run_texts(job: Job) -> Texts:
    """Give what a job runs, with the keys that lead to it."""
    return [
        (("jobs", job.name, "with", *keys), text)
        for name in _RUN
        for keys, text in all_texts(job.parameters.get(name), (name,))
    ]


def all_texts(data: Any, keys: Keys) -> Iterator[tuple[Keys, str]]:
    """Give all texts in the data with the keys that lead to them."""
    match data:
        case str():
            yield keys, data
        case list():
            for place, item in enumerate(data):
                yield from all_texts(item, (*keys, place))
        case dict():
            for key, item in data.items():
                yield from all_texts(item, (*keys, key))


def calls_program(text: str) -> bool:
    """Tell whether a script calls a program that may use a folder without a word of it here."""
    text = code(text).replace("\\\n", " ")
    if _PROGRAM.search(text):
        return True
    return any(_program(command) for command in _SEPARATOR.split(text))


def _program(command: str) -> bool:
    found = words(command)
    while found and found[0] in _BEFORE:
        found = found[1:]
    return bool(found) and found[0] not in _TOOLS.split()


def words(command: str) -> list[str]:
    """Give a command's words without the variables that are set for it."""
    found = _ASSIGNMENT.match(command)
    return command[found.end() if found else 0 :].split()


def runs_local_code(text: str) -> bool:
    """Tell whether a script runs a file of the folder where it begins, and goes nowhere first."""
    text = code(text)
    found = _LOCAL_CODE.search(text)
    # A file that the script names before may be made or fetched by it.
    return bool(found) and not _FETCHES.search(text) and text.count(found[1] if found else "") == 1


def code(text: str) -> str:
    """Take the comments away."""
    return _COMMENT.sub("", text)


def shell_only(text: str) -> str:
    """Take away what a heredoc with a quoted word keeps from the shell."""
    kept, word = [], ""
    for line in text.split("\n"):
        if word:
            word = "" if line.strip() == word else word
            continue
        kept.append(line)
        found = _HEREDOC.search(line)
        word = found[1] if found else ""
    return "\n".join(kept)
