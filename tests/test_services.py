"""What is said of the services: every figure sourced, and the same wherever it stands."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradlab.services.table import SERVICES

from .conftest import TEMPLATE
from .kit import KIT
from .test_template import ANSWERS
from .test_use import call, copy  # noqa: F401

DATA = yaml.safe_load((TEMPLATE / "services.yaml").read_text())
GRADIENT = json.loads((KIT / "gradlab/check/machines.json").read_text())
Machine = dict[str, Any]


def listed(service: str) -> dict[str, Machine]:
    machines = DATA["services"][service]["machines"]
    rows = GRADIENT["machines"] if service == "gradient" else machines["list"]
    return {row["name"]: row for row in rows}


def label(machine: Machine) -> str:
    """Write a machine as the question does."""
    if not machine["gpus"]:
        return f"{machine['name']}, no GPU, {machine['vcpu']} CPUs"
    memory = machine["gpu_gb"]
    name = machine["name"].removesuffix(f"-{memory}G")
    newest = machine.get("newest_torch")
    old = f" (too old for PyTorch newer than {newest})" if newest else ""
    return name + (f", {memory:g} GB" if memory else "") + old


def test_the_kit_reckons_with_the_limits_of_the_table() -> None:
    kept = (KIT / "gradlab/services/limits.json").read_text()
    assert json.loads(kept) == {name: each["figures"] for name, each in DATA["limits"].items()}


def test_the_machines_to_choose_are_those_of_the_catalogue() -> None:
    known, labels = listed("gradient"), ANSWERS["__prompts__"]["gradient_machine"]
    for choice in ANSWERS["gradient_machine"]:
        assert labels[choice] == label(known[choice])


@pytest.mark.parametrize("framework", ANSWERS["framework"])
def test_the_first_gpu_that_colab_is_asked_for_is_free_and_all_are_in_the_table(
    framework: str,
) -> None:
    runtime = yaml.safe_load((TEMPLATE / f"runtimes/{framework}.yaml").read_text())
    asked = [listed("colab")[name] for name in runtime["colab"]["gpus"]]
    assert asked[0]["free"]


def test_no_machine_that_is_chosen_for_the_user_is_too_old_for_pytorch() -> None:
    runtime = yaml.safe_load((TEMPLATE / "runtimes/pytorch.yaml").read_text())["gradient"][
        "machines"
    ]
    for name in (ANSWERS["gradient_machine"][0], runtime["gpu"], runtime["cpu"]):
        assert "newest_torch" not in listed("gradient")[name], name


def test_every_machine_that_workflows_can_use_with_one_gpu_is_offered() -> None:
    # The question leaves out two of the oldest.
    left_out = {"M4000", "P6000"}
    fit = {name for name, m in listed("gradient").items() if not m["free"] and m["gpus"] < 2}
    assert fit - left_out == set(ANSWERS["gradient_machine"])


def test_the_machines_of_the_kit_are_as_old_as_the_table_says() -> None:
    source = DATA["services"]["gradient"]["machines"]["source"]
    assert DATA["sources"][source]["date"] == GRADIENT["date"]
    assert DATA["sources"][source]["title"] == GRADIENT["source"]


def test_prices_in_words_are_those_of_the_machines() -> None:
    priced = [m for m in listed("gradient").values() if m["usd_per_hour"]]
    ends = [pick(priced, key=lambda m: m["usd_per_hour"]) for pick in (min, max)]
    words = DATA["services"]["gradient"]["figures"]["price"]["value"]
    assert re.findall(r"([\d.]+) USD \((\w+)\)", words) == [
        (f"{m['usd_per_hour']:.2f}", m["name"]) for m in ends
    ]
    rates = [m for m in listed("colab").values() if m["units_per_hour"]]
    ends = [pick(rates, key=lambda m: m["units_per_hour"]) for pick in (min, max)]
    words = DATA["services"]["colab"]["figures"]["price"]["value"]
    for machine in ends:
        assert re.search(rf"{machine['units_per_hour']}[^(]*\({machine['name']}\)", words)


def test_the_sessions_that_training_reckons_with_are_those_of_the_table() -> None:
    for service in filter(lambda service: service.hours, SERVICES):
        name = service.id.removesuffix("-notebook")
        assert f"{service.hours:g} h" in DATA["services"][name]["figures"]["session"]["value"]


@pytest.mark.parametrize("framework", ANSWERS["framework"])
def test_what_comes_with_a_service_is_what_its_list_of_packages_has(framework: str) -> None:
    runtime = yaml.safe_load((TEMPLATE / f"runtimes/{framework}.yaml").read_text())
    for service, packages in (("gradient", "gradient-pt211"), ("colab", "colab-2026-08")):
        lines = (TEMPLATE / "tests/data" / f"{packages}.txt").read_text().splitlines()
        preinstalled = runtime[service]["preinstalled"]
        for name, version in preinstalled.items():
            assert f"{name}=={version}" in {line.partition("+")[0] for line in lines}
        words = DATA["services"][service]["figures"]["framework"]["value"]
        python, torch = re.findall(r"(?:Python|PyTorch) ([\d.]+)", words)
        assert python == runtime[service]["python"]
        assert preinstalled.get("torch", torch).startswith(torch)


def test_the_readme_shows_each_figure_with_its_source_and_date(project: Path) -> None:
    text = (project / "README.md").read_text()
    for service in DATA["services"].values():
        assert f"| {service['name']} |" in text
        for figure in service["figures"].values():
            notes = "".join(f"[^{key}]" for key in figure.get("sources", []))
            disputed = " (disputed)" if figure.get("disputed") else ""
            assert f"| {figure['value']}{disputed}{notes} |" in text
    for key, source in DATA["sources"].items():
        assert f"\n[^{key}]: {source['date']}: " in text
        assert text.count(f"[^{key}]") > 1, f"{key} is the source of nothing"
        assert source.get("url", "") in text
    for change in DATA["since_2021"]:
        assert change["text"] in text


def test_the_readme_lists_every_machine(project: Path) -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \|(.+)\|$", (project / "README.md").read_text(), re.M
    )
    cells = {(service, name): rest.split(" | ") for service, name, rest in rows}
    for service, data in DATA["services"].items():
        for name, machine in listed(service).items():
            gpus, memory, cpus, ram, price = cells[data["name"], name]
            assert gpus.strip() == (str(machine["gpus"]) if machine["gpus"] else "none")
            assert memory.strip() == (shown(machine["gpu_gb"]) if machine["gpus"] else "")
            assert (cpus, ram) == (shown(machine["vcpu"]), shown(machine["ram_gb"]))
            assert ("free" in price) == machine["free"]
            if usd := machine.get("usd_per_hour"):
                assert f"{usd:.2f} USD" in price
            if units := machine.get("units_per_hour"):
                assert f"{units:.2f} units, {units * 0.0999:.2f} USD" in price


def shown(value: object) -> str:
    return "unknown" if value is None else str(value)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("        sources: [kaggle-image]\n", "", "a figure needs sources, or it is"),
        ("[kaggle-image]", "[kagle-image]", "there is no source kagle-image: describe it"),
        ("    date: 2026-03\n", "    date: lately\n", "needs a date, such as  date: 2026-11"),
        ("  idle: An idle", "  idler: An idle", "has no figure for idler: write  value: unknown"),
        ("rows:", "rows: [", "expected ',' or ']'"),
    ],
)
def test_a_figure_without_a_source_is_named_with_file_and_line(
    copy: Path,  # noqa: F811
    old: str,
    new: str,
    message: str,
) -> None:
    path = copy / "services.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    before = (copy / "services.md").read_text()
    output = call(copy, sys.executable, "scripts/services.py", code=1)
    assert re.search(rf"{re.escape(str(path))}:\d+: .*{re.escape(message)}", output), output
    assert "Traceback" not in output
    line = int(re.search(r"services\.yaml:(\d+)", output)[1])  # type: ignore[index]
    assert 1 < line <= len(text.splitlines())
    assert (copy / "services.md").read_text() == before


def test_the_table_is_that_of_the_figures(copy: Path) -> None:  # noqa: F811
    before = (copy / "services.md").read_text()
    call(copy, sys.executable, "scripts/services.py")
    assert (copy / "services.md").read_text() == before, "run make docs"
