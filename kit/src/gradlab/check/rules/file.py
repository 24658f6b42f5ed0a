"""Rules on the file as such; all but that on its name are found while it is read.

The reader is `spec.reader`, which knows nothing of severities.
"""

from __future__ import annotations

from ...base.names import WORKFLOW
from ...spec.document import START, Document
from ...spec.spec import Spec
from ..registry import Found, declare, rule

declare("unreadable", "error", "the file is missing, too large or no text in UTF-8 (exit code 2)")
declare("syntax", "error", "the file is no sound YAML")
declare("tab", "error", "a tab stands where YAML wants spaces")
declare("tab-separator", "warning", "a tab stands between a key and its value or at a line's end")
declare("alias", "error", "an alias has no anchor, refers to itself or stands for too much")
declare("tag", "error", "a YAML tag asks for more than plain values")
declare("duplicate-key", "error", "a key stands twice in a mapping")
declare("non-string-key", "error", "YAML 1.1 reads a key as something other than text")
declare("on-boolean", "warning", "`on` is not quoted, so that YAML 1.1 reads it as true")


@rule("name", "error", "a name of a job, port, variable, dataset or model can't work")
def name(spec: Spec, document: Document) -> Found:  # the others are the schema's
    name = document.path.stem
    if not WORKFLOW.takes(name):
        yield START, f"`{name}` can't be {WORKFLOW.what}", WORKFLOW.near(name)
