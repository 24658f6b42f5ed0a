"""The usual shapes of public workflow files, with equal results in every engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .conftest import Project
from .test_engines import CHECKOUT, script, wheel, workflow

READS = {"needs": ["checkout"], "inputs": {"repo": "checkout.outputs.repo"}}
TRAIN = """
import os, sys, pathlib
out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
pathlib.Path("log.txt").write_text("trained in the working folder")
(out / "model.txt").write_text(f"model of {os.environ.get('EPOCHS', '1')} epochs")
print("loss 0.5", "accuracy", 0.25 * int(os.environ.get("EPOCHS", "1")), sep="\\n")
"""


def dataset(name: str = "result") -> dict[str, Any]:
    """Give an output that is kept."""
    return {name: {"type": "dataset", "with": {"ref": name}}}


# The repository is copied to the root, for its inputs can't be written to.
TO_THE_ROOT = {
    "checkout": CHECKOUT,
    "train": script(
        """
        cp -R /inputs/repo /nerf
        cd /nerf
        mkdir -p /data/prepared && echo 1 > /data/prepared/x
        python train.py /nerf/logs
        cat /data/prepared/x log.txt > /outputs/result/log.txt
        cp -R /nerf/logs/. /outputs/result/
        """,
        outputs=dataset(),
        env={"EPOCHS": "2"},
        **READS,
    ),
}
REQUIREMENTS = {
    "checkout": CHECKOUT,
    "train": script(
        """
        cd /inputs/repo
        pip install -q --no-index --find-links wheels -r needs.txt
        python -c 'import gradlab_tiny; gradlab_tiny.main()' > /outputs/result/version
        gradlab_tiny-program >> /outputs/result/version
        """,
        outputs=dataset(),
        **READS,
    ),
}
PIPELINE = {
    "checkout": CHECKOUT,
    "evaluate": script(
        """
        cd /tmp && cp /inputs/repo/train.py . && python train.py /tmp/out | tee log | tail -n 1 \\
          | tee /outputs/score
        """,
        outputs={"score": {"type": "string"}},
        env={"EPOCHS": "3"},
        **READS,
    ),
    "publish": script(
        """
        score=$(cat /inputs/score)
        echo "id-$score" > /outputs/result/id
        """,
        needs=["evaluate"],
        inputs={"score": "evaluate.outputs.score"},
        outputs=dataset(),
    ),
}


def trained(epochs: str) -> dict[str, Any]:
    """Give one of several models that are trained at once, in the same places."""
    return script(
        """
        mkdir /workspace-of-job && cd /workspace-of-job
        cp -r /inputs/repo/* . && python train.py /outputs/model > /tmp/log
        mv /tmp/log log.txt /outputs/model/
        """,
        outputs={"model": {"type": "volume"}},
        env={"EPOCHS": epochs},
        **READS,
    )


IN_PARALLEL = {
    "checkout": CHECKOUT,
    "small": trained("1"),
    "large": trained("9"),
    "compare": script(
        """
        for model in small large; do
          cp /inputs/$model/model.txt /outputs/result/$model.txt
          tail -n 1 /inputs/$model/log >> /outputs/result/scores
        done
        """,
        needs=["small", "large"],
        inputs={"small": "small.outputs.model", "large": "large.outputs.model"},
        outputs=dataset(),
    ),
}
ARGUMENTS = {
    "checkout": CHECKOUT,
    "train": {
        "uses": "container@v1",
        "outputs": dataset(),
        "env": {"EPOCHS": "4"},
        "with": {"image": "bash:5", "args": ["python", "/inputs/repo/train.py", "/outputs/result"]},
        **READS,
    },
}
# With what each of them ends.
WORKFLOWS: dict[str, tuple[Mapping[str, dict[str, Any]], dict[str, str]]] = {
    "copied to the root": (
        TO_THE_ROOT,
        {"log.txt": "1\ntrained in the working folder", "model.txt": "model of 2 epochs"},
    ),
    "with requirements": (REQUIREMENTS, {"version": "1.0\n1.0\n"}),
    "a pipeline into a string": (PIPELINE, {"id": "id-0.75\n"}),
    "two models at once": (
        IN_PARALLEL,
        {
            "small.txt": "model of 1 epochs",
            "large.txt": "model of 9 epochs",
            "scores": "0.25\n2.25\n",
        },
    ),
    "a container with arguments": (ARGUMENTS, {"model.txt": "model of 4 epochs"}),
}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_of_a_usual_shape_ends_alike_in_every_engine(
    project: Project, engine: str, name: str
) -> None:
    (project.root / "train.py").write_text(TRAIN)
    (project.root / "needs.txt").write_text("# what the model needs\ngradlab_tiny==1.0\n")
    wheel(project.root / "wheels", "gradlab_tiny", "1.0")
    jobs, expected = WORKFLOWS[name]
    workflow(project, jobs)
    project.ok("run", "train", "--engine", engine)
    (version,) = project.versions("result")
    made = {path.name: path.read_text() for path in (version / "data").iterdir()}
    assert made == expected
    # Nothing at this machine's root; /data and the like may be the user's own.
    assert not [name for name in ("nerf", "workspace-of-job") if Path("/", name).exists()]
