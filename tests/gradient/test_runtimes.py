"""The notebook definitions of a generated project, taken as they are by the real command line."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from ..conftest import Bake
from ..test_runtimes import KINDS
from ..test_template import ANSWERS
from .api import Api

# What the command line sends under another name or in a request of its own.
APART = {"command", "tags"}


# Of the other frameworks one is enough: they differ in no more than the first one's five do.
DEFINITIONS = [("pytorch", kind) for kind in sorted(KINDS)]
DEFINITIONS += [(framework, "gpu") for framework in ANSWERS["framework"] if framework != "pytorch"]


@pytest.mark.parametrize("framework, kind", DEFINITIONS)
def test_the_real_command_line_takes_each_definition_and_sends_its_values(
    bake: Bake, gradient: Path, api: Api, tmp_path: Path, framework: str, kind: str
) -> None:
    project, owner = bake(framework=framework), api.add_project("my_model")
    definition = project / "runtimes" / f"{kind}.yaml"
    # The command that the file itself shows.
    shown = definition.read_text().splitlines()[1].removeprefix("#").split()
    arguments = [owner if argument == "ID" else argument for argument in shown[1:]]
    done = subprocess.run(
        [gradient, *arguments],
        cwd=project,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **api.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Created new notebook with id: " in done.stdout, done.stdout + done.stderr
    content = yaml.safe_load(definition.read_text())
    (created,) = api.sent("POST /notebooks/v2/createNotebook")
    sent = created.body
    assert {key: sent.get(key) for key in content.keys() - APART} == {
        key: value for key, value in content.items() if key not in APART
    }
    assert base64.b64decode(sent["command"]).decode() == content["command"]
    assert sent["projectId"] == owner
    (notebook,) = api.notebooks.values()
    assert notebook["tags"] == [content["tags"]]
