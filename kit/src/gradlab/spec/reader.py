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
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from .document import START, Document, Mark, Problem, SpecError, kind
from .syntax import reword

MAX_BYTES = 8_000_000
MAX_VALUES = 500_000  # of the file itself: some 8,000 jobs
MAX_DEPTH = 100
MAX_EXPANSION = 100_000  # values that aliases may stand for, all together
MAX_NUMBER = 100  # characters; PyYAML takes quadratic time for a long number such as 1:00:00

_Nodes = dict[Any, tuple[yaml.Node, yaml.Node]]
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
    document.data = _Reader(document).read()
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


class _Reader:
    """Makes data and nodes of YAML's events, in one pass.

    It may call itself, for values lie at most `MAX_DEPTH` deep.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.loader = _LOADER(document.text)
        self.events = self._events()
        self.open: list[str | None] = []  # the anchors of the lists and mappings around
        self.anchors: dict[str, Any] = {}
        self.sizes: dict[int, int] = {}  # by the identity of a list or mapping: its values
        self.expansion = 0

    def read(self) -> Any:
        """Give the data of the file's only document."""
        data, documents = None, 0
        for event in self.events:
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                message, advice = "a second YAML document begins here", "make it a file"
                raise self.refuse(event, "syntax", message, advice)
            if isinstance(event, yaml.NodeEvent):
                data, _ = self.value(event)
        return data

    def _events(self) -> Iterator[Any]:
        """Give YAML's events; raises `SpecError` where there is no sound YAML, or too much."""
        text, before = self.document.text, 0
        try:
            for number in count():
                if not self.loader.check_event():
                    return
                event = self.loader.get_event()
                if number > MAX_VALUES:
                    message = f"it holds more than {MAX_VALUES:,} values"
                    raise self.refuse(event, "unreadable", message, "make several workflows of it")
                gap = text[before : event.start_mark.index]
                if "\t" in gap and "\t" in _COMMENT.sub("", gap):
                    self.report(before + gap.index("\t"), "tab-separator", *_TAB_SEPARATOR)
                yield event
                before = event.end_mark.index
        except yaml.MarkedYAMLError as error:
            raise self.refuse(*reword(self.document, error)) from error
        except (ValueError, OverflowError) as error:  # "\UFFFFFFFF" in PyYAML's own scanner
            raise self.refuse(0, "syntax", f"the YAML is broken: {error}", "mend it") from error
        finally:
            self.loader.dispose()

    def refuse(self, place: Any, rule: str, message: str, advice: str) -> SpecError:
        return SpecError(self.document.path, self._problem(place, rule, message, advice))

    def report(self, place: Any, rule: str, message: str, advice: str) -> None:
        self.document.problems.append(self._problem(place, rule, message, advice))

    def _problem(self, place: Any, rule: str, message: str, advice: str) -> Problem:
        """Make a problem at an offset, or where an event or node begins."""
        offset = place if isinstance(place, int) else place.start_mark.index
        return Problem(self.document.at(offset), rule, message, advice)

    def value(self, event: Any) -> tuple[Any, yaml.Node]:
        """Give the value that an event begins, and its node."""
        match event:
            case yaml.AliasEvent():
                return self.alias(event)
            case yaml.ScalarEvent():
                data, node = self.scalar(event)
            case _:
                data, node = self.collection(event)
        if event.anchor:
            self.anchors[event.anchor] = data
        return data, node

    def alias(self, event: Any) -> tuple[Any, yaml.Node]:
        name = event.anchor
        if name in self.open:
            message = f"the alias `*{name}` stands inside of what it refers to"
            raise self.refuse(event, "alias", message, "write the value out")
        if name not in self.anchors:
            message = f"the alias `*{name}` has no anchor `&{name}` before it"
            raise self.refuse(event, "alias", message, f'quote it if it is text: "*{name}"')
        data = self.anchors[name]
        self.expand(self.sizes.get(id(data), 1), event)
        return data, yaml.Node("", None, event.start_mark, event.end_mark)

    def expand(self, size: int, place: Any) -> None:
        self.expansion += size
        if self.expansion > MAX_EXPANSION:
            message = f"the aliases up to here stand for more than {MAX_EXPANSION:,} values"
            raise self.refuse(place, "alias", message, "write the values out")

    def scalar(self, event: Any) -> tuple[Any, yaml.Node]:
        tag, written = event.tag, event.value
        if tag in (None, "!"):
            implicit = event.implicit if len(written) <= MAX_NUMBER else (False, True)
            tag = self.loader.resolve(yaml.ScalarNode, written, implicit)
        node = yaml.ScalarNode(tag, written, event.start_mark, event.end_mark)
        if tag == _PREFIX + "merge":
            return _MERGE, node
        if tag == _PREFIX + "value":  # a bare `=`, which PyYAML resolves but can't construct
            return written, node
        if tag not in _SCALARS:
            raise self.refuse(event, "tag", *_tag(tag))
        return self.construct(node), node

    def construct(self, node: yaml.ScalarNode) -> Any:
        written, quoted = node.value, f'quote it: "{node.value}"'
        try:
            value = self.loader.construct_object(node)
        except (ValueError, LookupError, ArithmeticError, yaml.YAMLError) as error:
            name = node.tag.removeprefix(_PREFIX)
            message = f"YAML takes `{written}` for {_KINDS.get(name, name)}, and it is none"
            raise self.refuse(node, "syntax", message, quoted) from error
        if isinstance(value, float) and not math.isfinite(value):
            message = f"YAML takes `{written}` for a number, and JSON has none of the kind"
            raise self.refuse(node, "syntax", message, quoted)
        if isinstance(value, str) and _UNSAFE.search(value):
            message = "the text holds a character that no program takes (NUL or half a pair)"
            raise self.refuse(node, "syntax", message, "remove it")
        return value

    def collection(self, event: Any) -> tuple[Any, yaml.Node]:
        if len(self.open) == MAX_DEPTH:
            message = f"this is nested deeper than {MAX_DEPTH} levels"
            raise self.refuse(event, "syntax", message, "a workflow needs fewer than 10")
        if event.tag not in _COLLECTIONS:
            raise self.refuse(event, "tag", *_tag(event.tag))
        is_list = isinstance(event, yaml.SequenceStartEvent)
        data: Any = [] if is_list else {}
        nodes = self.document.nodes[id(data)] = {}
        self.open.append(event.anchor)
        end = self.items(data, nodes) if is_list else self.mapping(data, nodes)
        self.open.pop()
        values = data if is_list else data.values()
        self.sizes[id(data)] = 1 + sum(self.sizes.get(id(value), 1) for value in values)
        return data, yaml.Node("", None, event.start_mark, end)

    def items(self, data: list[Any], nodes: _Nodes) -> Any:
        """Fill a list, and give where it ends."""
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            value, node = self.value(event)
            nodes[len(data)] = node, node
            data.append("<<" if value is _MERGE else value)
        return event.end_mark

    def mapping(self, data: dict[str, Any], nodes: _Nodes) -> Any:
        """Fill a mapping, and give where it ends."""
        merges = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key, place = self.key(*self.value(event))
            value, node = self.value(next(self.events))
            if key is _MERGE:
                merges.append((value, node))
                continue
            if key in nodes:
                self.twice(key, place, self.document.at(nodes[key][0].start_mark.index).line)
            data[key], nodes[key] = "<<" if value is _MERGE else value, (place, node)
        for value, node in merges:
            self.merge(data, nodes, value, node)
        return event.end_mark

    def key(self, key: Any, node: yaml.Node) -> tuple[Any, yaml.Node]:
        """Give a mapping's key as text, and report one that YAML takes for something else."""
        if isinstance(key, list | dict):
            message = "a list or mapping can't be a key"
            raise self.refuse(node, "syntax", message, "write a name; quote braces that are text")
        if isinstance(key, str) or key is _MERGE:
            return key, node
        written = node.value or ""  # nothing where it is an alias
        # As the client posts it; a date it can't post at all.
        posted = None if isinstance(key, date) else json.dumps({key: 0}).split('"')[1]
        if len(self.open) == 1 and written == "on":
            self.report(node, "on-boolean", *_ON_BOOLEAN)
        elif posted != written:
            message = f"YAML 1.1 reads the key `{written}` as {kind(key)}"
            self.report(node, "non-string-key", message, f'quote it: "{written}":')
        return written, node

    def twice(self, key: str, node: yaml.Node, line: int) -> None:
        message = f"the key `{key}` stands here for a second time, after line {line}; "
        advice = "keep one of them, with what both hold"
        if key == "script":
            advice = "write one `script: |-`, with each command on a line of its own below it"
        self.report(node, "duplicate-key", message + "only the last one counts", advice)

    def merge(self, data: dict[str, Any], nodes: _Nodes, value: Any, node: yaml.Node) -> None:
        """Bring in what `<<` refers to; what is there already stands."""
        for source in value if isinstance(value, list) else [value]:
            if not isinstance(source, dict):
                message = "`<<` takes a mapping, or a list of mappings"
                raise self.refuse(node, "alias", message, "refer to a mapping: `<<: *anchor`")
            self.expand(len(source), node)
            for key in [key for key in source if key not in data]:
                data[key], nodes[key] = source[key], self.document.nodes[id(source)][key]


def _tag(tag: str) -> tuple[str, str]:
    name = tag.replace(_PREFIX, "!!")
    return f"the tag `{name}` is none for a workflow, which holds plain values", "remove the tag"
