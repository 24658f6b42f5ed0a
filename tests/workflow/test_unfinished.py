"""A job that has stopped in time with more to do: nothing is made of half of its work."""

from __future__ import annotations

import pytest

from .conftest import Project

# The first job does one part of three each time; the marker says so where a pipe hides the code.
PARTS = """
    jobs:
      work:
        outputs: {done: {type: dataset, with: {ref: done}}}
        uses: script@v1
        with:
          image: bash:5
          script: |
            echo part >> /outputs/done/parts
            [ $(wc -l < /outputs/done/parts) -ge 3 ] || { END; }
      judge:
        needs: [work]
        inputs: {done: work.outputs.done}
        uses: script@v1
        with: {image: "bash:5", script: "wc -l < /inputs/done/parts"}
      other:
        uses: script@v1
        with: {image: "bash:5", script: "OTHER"}
"""
HIDDEN = 'mkdir -p "$GRADLAB_UNFINISHED"; touch "$GRADLAB_UNFINISHED/x"; exit 0'


def workflow(project: Project, end: str, other: str = "true") -> None:
    project.workflow(PARTS.replace("END", end).replace("OTHER", other))


@pytest.mark.parametrize("end", ["exit 75", HIDDEN], ids=["its code", "hidden by a pipe"])
def test_what_needs_a_job_that_stopped_in_time_waits_for_the_rest(
    project: Project, engine: str, end: str
) -> None:
    workflow(project, end)
    for _ in range(2):
        output = project.fails(75, "run", "train", "--engine", engine)
        expected = {"work": "stopped", "judge": "skipped"}
        assert project.states(output).items() >= expected.items()
        assert "stopped in time, with more to do" in output
        assert "the same command carries on from here" in output
        assert not project.versions("done")
    output = project.ok("run", "train", "--engine", engine)
    assert project.states(output) == {"work": "ran", "judge": "ran", "other": "reused"}
    assert "[judge] 3" in output


def test_a_failure_beside_it_is_a_failure(project: Project) -> None:
    workflow(project, "exit 75", other="exit 3")
    output = project.fails(1, "run", "train", "--engine", "paths")
    states = project.states(output.partition("\n\nother failed")[0])
    assert states == {"work": "stopped", "judge": "skipped", "other": "failed"}
