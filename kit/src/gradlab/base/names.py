"""What things may be called: the one grammar of names, for check, dry run, run and commands.

Promises: a name that `gradlab check` takes is taken by whatever comes after it. A job's name is
what the service takes; the other names are what a folder of any storage can be called.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import GradlabError

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
_LINE = r"(?!\.\.?$)[^/\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,100}"


@dataclass(frozen=True)
class Grammar:
    """What one kind of thing may be called."""

    what: str
    pattern: re.Pattern[str]
    advice: str

    def takes(self, name: str) -> bool:
        """Tell whether something of this kind may have the name."""
        return self.pattern.fullmatch(name) is not None

    def near(self, name: str) -> str:
        """Advise a name like this one that would do, and say what names are made of."""
        near = re.sub(r"[^A-Za-z0-9-]+", "-", name[:100]).strip("-")
        likely = self.takes(near) and not {"/", ":"} & {*name}
        return f"write `{near}`: {self.advice}" if likely else self.advice

    def require(self, name: str) -> str:
        """Give the name back; raises GradlabError where it can't be one."""
        if not self.takes(name):
            raise GradlabError(f"{name!r} can't be {self.what}: {self.advice}")
        return name


JOB = Grammar(
    "the name of a job",
    re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}"),
    "the service takes letters, digits and `-`, a letter or digit first",
)
PORT = Grammar(
    "the name of an input or output",
    re.compile(_WORD),
    "it becomes a folder, of letters, digits, `_`, `-` and `.`",
)
DATASET = Grammar(
    "a reference to a dataset",
    re.compile(rf"(?:(?P<namespace>{_WORD})/)?(?P<id>{_WORD})(?::(?P<version>{_WORD}))?"),
    "it is NAME, NAME:VERSION, NAME:TAG or NAMESPACE/NAME, each of letters, digits, `_`, `-`, `.`",
)
MODEL = Grammar(
    "the name of a model",
    re.compile(_LINE),
    "it becomes a folder, so that it has up to 100 characters, and none of them is `/` or `\\`",
)
WORKFLOW = Grammar(
    "the name of a workflow",
    re.compile(_LINE),
    "it becomes a folder, so that it has up to 100 characters, and no `\\` or control character",
)
# As the schema names them, in the keyword `format`.
FORMATS = {"job": JOB, "port": PORT, "dataset": DATASET, "model": MODEL}
