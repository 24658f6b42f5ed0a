"""YAML read safely into a document.

Promises: any file ends in a `Document` or in a `SpecError` that names the place and what would do;
never in a traceback, and never in unbounded work, for size, nesting and what aliases expand to are
limited. Values are those of YAML 1.1, as PyYAML gives them to the service's own client. Keys are
always text, as written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from .document import START, Document, Mark, Place, Problem, SpecError, kind
from .syntax import reword

MAX_BYTES = 8_000_000
MAX_VALUES = 500_000  # of the file itself: some 8,000 jobs
MAX_DEPTH = 100
MAX_EXPANSION = 100_000  # values that aliases may stand for, all together
MAX_NUMBER = 100  # characters; PyYAML takes quadratic time for a long number such as 1:00:00

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX = "tag:yaml.org,2002:"
_SCALARS = {_PREFIX + name for name in ("null", "bool", "int", "float", "str", "timestamp")}
_COLLECTIONS = {None, "!", _PREFIX + "seq", _PREFIX + "map"}
_MERGE: Any = object()  # stands for the key `<<` until its mapping is complete
_KINDS = {"int": "a number", "float": "a number", "bool": "a boolean", "timestamp": "a date"}
_COMMENT = re.compile("#.*")
_UNSAFE = re.compile("[\0\ud800-\udfff]")

_TAB_SEPARATOR = (
    "a tab stands between the parts of this line; the service's own client refuses that",
    "use spaces",
)
_ON_BOOLEAN = (
    'YAML 1.1 reads the key `on` as true, and `gradient workflows run` posts it as "true"',
    'quote it: "on":',
)


def read(path: Path) -> Document:
    """Read a workflow file; raises `SpecError` where it is no mapping in sound, plain YAML."""
    document = Document(path, _text(path))
    _Builder(document).build()
    if not isinstance(document.data, dict):
        what = "is empty" if document.data is None else "holds no mapping at its top"
        advice = "a workflow is a mapping with the key `jobs`"
        raise SpecError(path, Problem(START, "type", f"the file {what}", advice))
    return document


def _text(path: Path) -> str:
    """Read a file as text; raises `SpecError` with the rule `unreadable`, or as for YAML."""

    def refuse(message: str, advice: str, mark: Mark = START) -> SpecError:
        return SpecError(path, Problem(mark, "unreadable", message, advice))

    try:
        if not path.is_file():
            message = "it is not a file" if path.exists() else "there is no such file"
            raise refuse(message, "give the path of a YAML file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise refuse(f"it can't be read ({error.strerror})", "check its permissions") from error
    if len(content) > MAX_BYTES:
        raise refuse(f"it is larger than {MAX_BYTES:,} bytes", "give the path of a workflow")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        mark = Mark(content.count(b"\n", 0, error.start) + 1, 1)
        raise refuse("it is not text in UTF-8", "save it as UTF-8", mark) from error
    if bad := yaml.reader.Reader.NON_PRINTABLE.search(text):
        mark = Document(path, text).at(bad.start())
        message = f"the character U+{ord(bad.group()):04X} is not allowed in YAML"
        raise refuse(message, "remove it, if this is a text file at all", mark)
    return text


@dataclass
class _Frame:
    """A list or mapping that is being read."""

    data: Any
    anchor: str | None
    start: int
    key: Any = None  # the key whose value comes next
    mark: Mark = START  # and its place
    places: dict[str | int, Place] = field(default_factory=dict)
    merges: list[tuple[Any, int]] = field(default_factory=list)  # values of `<<`, where they stand
    size: int = 1


class _Builder:
    """Fills a document from YAML's events: in one pass, and without recursion."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.loader = _LOADER(document.text)
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.expansion = 0
        self.documents = 0

    def build(self) -> None:
        text, before = self.document.text, 0
        for number, event in enumerate(self.events()):
            start, end = event.start_mark.index, event.end_mark.index
            if number > MAX_VALUES:
                message = f"it holds more than {MAX_VALUES:,} values"
                raise self.refuse(start, "unreadable", message, "make several workflows of it")
            gap = text[before:start]
            if "\t" in gap and "\t" in _COMMENT.sub("", gap):
                self.report(before + gap.index("\t"), "tab-separator", *_TAB_SEPARATOR)
            self.take(event, start, end)
            before = end

    def events(self) -> Iterator[Any]:
        try:
            while self.loader.check_event():
                yield self.loader.get_event()
        except yaml.MarkedYAMLError as error:
            raise self.refuse(*reword(self.document, error)) from error
        except (ValueError, OverflowError) as error:  # "\UFFFFFFFF" in PyYAML's own scanner
            raise self.refuse(0, "syntax", f"the YAML is broken: {error}", "mend it") from error
        finally:
            self.loader.dispose()

    def refuse(self, offset: int, rule: str, message: str, advice: str) -> SpecError:
        return SpecError(
            self.document.path, Problem(self.document.at(offset), rule, message, advice)
        )

    def report(self, offset: int, rule: str, message: str, advice: str) -> None:
        self.document.problems.append(Problem(self.document.at(offset), rule, message, advice))

    def take(self, event: Any, start: int, end: int) -> None:
        match type(event):
            case yaml.ScalarEvent:
                self.scalar(event, start, end)
            case yaml.AliasEvent:
                self.alias(event.anchor, start, end)
            case yaml.SequenceStartEvent:
                self.open([], event, start)
            case yaml.MappingStartEvent:
                self.open({}, event, start)
            case yaml.SequenceEndEvent | yaml.MappingEndEvent:
                self.close(end)
            case yaml.DocumentStartEvent:
                self.documents += 1
                if self.documents > 1:
                    message, advice = "a second YAML document begins here", "make it a file"
                    raise self.refuse(start, "syntax", message, advice)

    def open(self, data: Any, event: Any, start: int) -> None:
        if len(self.stack) == MAX_DEPTH:
            message = f"this is nested deeper than {MAX_DEPTH} levels"
            raise self.refuse(start, "syntax", message, "a workflow needs fewer than 10")
        if event.tag not in _COLLECTIONS:
            raise self.refuse(start, "tag", *_tag(event.tag))
        self.stack.append(_Frame(data, event.anchor, start))

    def close(self, end: int) -> None:
        frame = self.stack.pop()
        for source, start in frame.merges:
            self.merge(frame, source, start)
        self.document.places[id(frame.data)] = frame.places
        if frame.anchor:
            self.anchors[frame.anchor] = (frame.data, frame.size)
        self.add(frame.data, frame.size, frame.start, end)

    def merge(self, frame: _Frame, value: Any, start: int) -> None:
        """Bring in what `<<` refers to; what is there already stands."""
        for source in value if isinstance(value, list) else [value]:
            if not isinstance(source, dict):
                message = "`<<` takes a mapping, or a list of mappings"
                raise self.refuse(start, "alias", message, "refer to a mapping: `<<: *anchor`")
            self.expand(len(source), start)
            for key in [key for key in source if key not in frame.data]:
                frame.data[key] = source[key]
                frame.places[key] = self.document.places[id(source)][key]

    def alias(self, name: str, start: int, end: int) -> None:
        if any(frame.anchor == name for frame in self.stack):
            message = f"the alias `*{name}` stands inside of what it refers to"
            raise self.refuse(start, "alias", message, "write the value out")
        if name not in self.anchors:
            message = f"the alias `*{name}` has no anchor `&{name}` before it"
            raise self.refuse(start, "alias", message, f'quote it if it is text: "*{name}"')
        value, size = self.anchors[name]
        self.expand(size, start)
        self.add(value, size, start, end)

    def expand(self, size: int, start: int) -> None:
        self.expansion += size
        if self.expansion > MAX_EXPANSION:
            message = f"the aliases up to here stand for more than {MAX_EXPANSION:,} values"
            raise self.refuse(start, "alias", message, "write the values out")

    def scalar(self, event: Any, start: int, end: int) -> None:
        tag = event.tag
        if tag in (None, "!"):
            implicit = event.implicit if len(event.value) <= MAX_NUMBER else (False, True)
            tag = self.loader.resolve(yaml.ScalarNode, event.value, implicit)
        value = self.value(tag, event.value, start)
        if event.anchor:
            self.anchors[event.anchor] = (value, 1)
        self.add(value, 1, start, end, event.value)

    def value(self, tag: str, written: str, start: int) -> Any:
        if tag == _PREFIX + "merge":
            return _MERGE
        if tag == _PREFIX + "value":  # a bare `=`, which PyYAML resolves but can't construct
            return written
        if tag not in _SCALARS:
            raise self.refuse(start, "tag", *_tag(tag))
        try:
            value = self.loader.construct_object(yaml.ScalarNode(tag, written))
        except (ValueError, LookupError, ArithmeticError, yaml.YAMLError) as error:
            name = tag.removeprefix(_PREFIX)
            message = f"YAML takes `{written}` for {_KINDS.get(name, name)}, and it is none"
            raise self.refuse(start, "syntax", message, f'quote it: "{written}"') from error
        if isinstance(value, float) and not math.isfinite(value):
            message = f"YAML takes `{written}` for a number, and JSON has none of the kind"
            raise self.refuse(start, "syntax", message, f'quote it: "{written}"')
        if isinstance(value, str) and _UNSAFE.search(value):
            message = "the text holds a character that no program takes (NUL or half a pair)"
            raise self.refuse(start, "syntax", message, "remove it")
        return value

    def add(self, value: Any, size: int, start: int, end: int, written: str = "") -> None:
        """Put a value that is complete where it belongs."""
        if not self.stack:
            self.document.data = value
            return
        frame, mark = self.stack[-1], self.document.at(start)
        if isinstance(frame.data, dict) and frame.key is None:
            frame.key, frame.mark = self.key(value, written, start), mark
            return
        frame.size += size
        value = "<<" if value is _MERGE else value
        if isinstance(frame.data, list):
            frame.places[len(frame.data)] = Place(mark, start, end, written)
            frame.data.append(value)
            return
        if frame.key is _MERGE:
            frame.merges.append((value, start))
        else:
            self.item(frame, value, Place(frame.mark, start, end, written))
        frame.key = None

    def item(self, frame: _Frame, value: Any, place: Place) -> None:
        if first := frame.places.get(frame.key):
            message = f"the key `{frame.key}` stands here for a second time, after line "
            message += f"{first.mark.line}; only the last one counts"
            advice = "keep one of them, with what both hold"
            if frame.key == "script":
                advice = "write one `script: |-`, with each command on a line of its own below it"
            self.document.problems.append(Problem(place.mark, "duplicate-key", message, advice))
        frame.data[frame.key] = value
        frame.places[frame.key] = place

    def key(self, value: Any, written: str, start: int) -> Any:
        """Give a mapping's key as text, and report one that YAML takes for something else."""
        if isinstance(value, list | dict):
            message = "a list or mapping can't be a key"
            raise self.refuse(start, "syntax", message, "write a name; quote braces that are text")
        if isinstance(value, str) or value is _MERGE:
            return value
        # As the client posts it; a date it can't post at all.
        posted = None if isinstance(value, date) else json.dumps({value: 0}).split('"')[1]
        if len(self.stack) == 1 and written == "on":
            self.report(start, "on-boolean", *_ON_BOOLEAN)
        elif posted != written:
            message = f"YAML 1.1 reads the key `{written}` as {kind(value)}"
            self.report(start, "non-string-key", message, f'quote it: "{written}":')
        return written


def _tag(tag: str) -> tuple[str, str]:
    name = tag.replace(_PREFIX, "!!")
    return f"the tag `{name}` is none for a workflow, which holds plain values", "remove the tag"
