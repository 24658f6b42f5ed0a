"""Write services.md, the services side by side, and the limits that the kit reckons with.

    python scripts/services.py

Promises: no figure of a service goes without a source, nor a source without its date; what is
wrong in services.yaml is named with its line.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "services.md"
DATA = ROOT / "services.yaml"
LIMITS = ROOT / "kit" / "src" / "gradlab" / "services" / "limits.json"
SCRIPTS = ROOT / "scripts"

sys.path.insert(0, str(ROOT))

from catalogue import CatalogueError, mapping  # noqa: E402

Place = list[str | int]


def page() -> str:
    """Give the whole page; raises CatalogueError with the line of what is wrong in the data."""
    environment = Environment(
        loader=FileSystemLoader(SCRIPTS), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("services.md.jinja").render(services_data())


def limits() -> str:
    """Give the kit's table of limits."""
    found = {name: each["figures"] for name, each in services_data()["limits"].items()}
    return json.dumps(found, indent=2) + "\n"


def services_data() -> dict[str, Any]:
    """Read services.yaml, with the lists of machines that it refers to."""
    data = mapping(DATA, "the services are a mapping with  rows, services  and  sources")
    for place, message in _unsourced(data):
        raise CatalogueError(f"{DATA}:{_line(place)}: {message}")
    for machines in (service["machines"] for service in data["services"].values()):
        if "file" in machines:
            known = (ROOT / machines["file"]).read_text("utf-8")
            machines["list"] = json.loads(known)["machines"]
    return data


def _unsourced(data: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Find figures that are missing or have no source, and sources without a date."""
    for name, source in data["sources"].items():
        if not re.fullmatch(r"\d{4}(-\d\d){0,2}", str(source.get("date"))):
            yield ["sources", name], f"{name} needs a date, such as  date: 2026-11"
    for name, service in data["services"].items():
        for row in data["rows"].keys() - service["figures"].keys():
            place: Place = ["services", name, "figures"]
            yield place, f"{name} has no figure for {row}: write  value: unknown"
    for at, claim in _claims(data):
        sources = claim.get("sources", [])
        if not sources and claim.get("value") != "unknown":
            yield at, "a figure needs sources, or it is  value: unknown"
        for name in sources:
            if name not in data["sources"]:
                yield at, f"there is no source {name}: describe it under  sources"


def _claims(data: dict[str, Any]) -> Iterator[tuple[Place, dict[str, Any]]]:
    for name, service in data["services"].items():
        for row, figure in service["figures"].items():
            yield ["services", name, "figures", row], figure
        yield ["services", name, "machines"], {"sources": [service["machines"]["source"]]}
    for name, limit in data["limits"].items():
        yield ["limits", name], limit
    for number, change in enumerate(data["since_2021"]):
        yield ["since_2021", number], change


def _line(place: Place) -> int:
    """Give the line of a place, which is a list of keys and indices, in services.yaml."""
    node, line = yaml.compose(DATA.read_text("utf-8"), yaml.SafeLoader), 1
    for step in place:
        if isinstance(node, yaml.MappingNode):
            key, node = next((key, value) for key, value in node.value if key.value == step)
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode):
            node = node.value[int(step)]
            line = node.start_mark.line + 1
    return line


if __name__ == "__main__":
    try:
        PAGE.write_text(page(), "utf-8")
        LIMITS.write_text(limits(), "utf-8")
    except CatalogueError as error:
        sys.exit(str(error))
