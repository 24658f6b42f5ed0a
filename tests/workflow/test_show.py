"""`gradlab show`: a workflow as a table and as a Mermaid diagram."""

from __future__ import annotations

import re
from pathlib import Path

from gradlab.check.check import load
from gradlab.check.show import to_mermaid, to_table
from gradlab.spec.reader import read
from gradlab.spec.spec import parse

from .conftest import Project
from .test_check import VALID

WORKFLOW = """\
inputs:
  note:
    type: string
jobs:
  evaluate:
    needs: [train]
    inputs:
      model: train.outputs.model
      note: workflow.inputs.note
    uses: script@v1
    with: {image: bash:5, script: cat /inputs/model /inputs/note}
  train:
    inputs:
      data: {type: dataset, with: {ref: digits}}
    outputs:
      model: {type: volume}
    resources: {instance-type: A4000}
    uses: script@v1
    with: {image: bash:5, script: cp /inputs/data /outputs/model}
"""

DIAGRAM = """\
flowchart LR
    job1["train<br/>script@v1 on A4000"]
    job2["evaluate<br/>script@v1"]
    data1[("digits")]
    data2[("workflow.inputs.note")]
    data1 --> job1
    job1 -->|"model"| job2
    data2 --> job2
"""

HEADING = ["job", "needs", "action", "machine", "inputs", "outputs"]


def test_the_table_has_a_row_for_each_job_after_those_it_needs(project: Project) -> None:
    project.workflow(WORKFLOW)
    table, _, diagram = project.ok("show", "train").partition("\n\n")
    rows = [re.split(r"\s{2,}", line) for line in table.splitlines() if line.strip("-")]
    assert rows == [
        HEADING,
        ["train", "script@v1", "A4000", "data (dataset digits)", "model (volume)"],
        ["evaluate", "train", "script@v1", "model = train.model, note = workflow.note"],
    ]
    assert diagram == DIAGRAM


def test_the_diagram_can_be_printed_alone(project: Project) -> None:
    project.workflow(WORKFLOW)
    assert project.ok("show", "train", "--mermaid") == DIAGRAM


def test_no_name_can_break_the_diagram(project: Project) -> None:
    project.workflow(
        """\
        jobs:
          end: &job
            uses: script@v1
            with: {image: bash:5, script: ls /inputs /outputs}
          'a"] --> b{`x`};<i>|#35;':
            <<: *job
            needs: [end]
          1. list:
            <<: *job
            outputs: {'x"|y': {type: dataset, with: {ref: 'd")]'}}}
          é 💥:
            <<: *job
            needs: [1. list]
            inputs: {'"|"': '1. list.outputs.x"|y'}
        """
    )
    # Not by `load`: names that check refuses are shown wherever the check is passed over.
    spec = parse(read(project.root / ".gradient/workflows/train.yaml"))
    label = r"[\w /@,.:-]|#\d+;|<br/>"
    node = rf'(?:job|data)\d+(?:\["(?:{label})*"\]|\[\("(?:{label})*"\)\])'
    edge = rf'(?:job|data)\d+ -->(?:\|"(?:{label})*"\|)? (?:job|data)\d+'
    first, *lines = to_mermaid(spec).splitlines()
    assert first == "flowchart LR"
    assert all(re.fullmatch(f"    (?:{node}|{edge})", line) for line in lines), lines
    assert '["a#34;#93; --#62; b#123;#96;x#96;#125;#59;#60;i#62;#124;#35;35#59;<br/>' in lines[2]
    assert "1#46; list" in "".join(lines)


def test_a_job_that_needs_thousands_is_shown_in_a_page_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    job = "uses: script@v1, with: {image: bash:5, script: ls /inputs /outputs}}"
    lines = [f"  job-{i}: {{outputs: {{out-{i}: {{type: volume}}}}, {job}\n" for i in range(5000)]
    needs = ", ".join(f"job-{i}" for i in range(5000))
    inputs = ", ".join(f"out-{i}: job-{i}.outputs.out-{i}" for i in range(5000))
    path.write_text(
        f"jobs:\n{''.join(lines)}  last: {{needs: [{needs}], inputs: {{{inputs}}}, {job}\n"
    )
    spec = parse(read(path))
    table = to_table(spec).splitlines()
    assert sum(map(len, table)) < 1_000_000  # for 5,001 jobs
    assert "job-0, job-1, " in table[-1]
    assert "and 4,980 more" in table[-1]
    assert max(map(len, table)) < 3000
    diagram = to_mermaid(spec)
    assert len(diagram) < 1_000_000
    assert diagram.count("-->") == 5000


def test_every_workflow_that_works_can_be_shown() -> None:
    for path in VALID.glob("*.yaml"):
        diagram = to_mermaid(load(path))
        assert all(job in diagram for job in load(path).jobs)


def test_an_unknown_name_is_an_error_that_lists_those_there_are(project: Project) -> None:
    project.workflow(WORKFLOW)
    message = project.fails(2, "show", "trian")
    assert "there is no workflow 'trian'; there are train; did you mean 'train'?" in message


def test_a_broken_workflow_is_not_shown_but_explained(project: Project) -> None:
    project.workflow("jobs:\n  train:\n    uses: script@v2\n")
    assert "train.yaml:3:5: error [unknown-action]" in project.fails(2, "show", "train")
