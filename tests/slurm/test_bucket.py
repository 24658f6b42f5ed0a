"""A training that moves: begun in a folder, carried on in a bucket, finished by a cluster."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..conftest import generate
from ..kit import paths
from ..lab import Lab
from ..services.bucket import Bucket
from ..test_own_workflows import newest
from .cluster import Cluster

# The job's training, in the run that lies in the bucket.
WORKFLOW = """\
jobs:
  train:
    resources: {instance-type: C5}
    outputs: {told: {type: dataset, with: {ref: told}}}
    env:
      GRADLAB_STORAGE: STORE
      AWS_ENDPOINT_URL: ADDRESS
      AWS_DEFAULT_REGION: us-east-1
      AWS_ACCESS_KEY_ID: secret:AWS_ACCESS_KEY_ID
      AWS_SECRET_ACCESS_KEY: secret:AWS_SECRET_ACCESS_KEY
      PYTHONPATH: SRC
      OMP_NUM_THREADS: "1"
    uses: script@v1
    with:
      image: bash:5
      script: |
        set -o pipefail
        export GRADLAB_LEASE_SECONDS=1 GRADLAB_SCRATCH=DISK
        python -m PACKAGE train OPTIONS 2>&1 | tee /outputs/told/log
"""
ROW = 'C5: {partition: low, time: "10:00", cpus: 1, engine: paths}\n'


@pytest.mark.slow
def test_a_run_begun_in_a_folder_goes_on_in_a_bucket_and_ends_on_a_cluster(
    tmp_path: Path, cluster: Cluster, bucket: Bucket
) -> None:
    copy = generate(tmp_path / "project", {})
    whole, lab = Lab(copy, tmp_path / "whole"), Lab(copy, tmp_path / "storage")
    whole.train()

    def cut_off(steps: int) -> int:
        lab.train_until(lambda: lab.recorded() > steps, "--save-seconds", "0")
        return lab.recorded()

    first = cut_off(30)
    lab.in_a_bucket(bucket)
    bucket.take(lab.prefix, lab.storage)
    cut_off(first + 30)
    shutil.rmtree(lab.disk)
    shutil.rmtree(lab.storage)

    script = WORKFLOW.replace("STORE", lab.env["GRADLAB_STORAGE"]).replace(
        "SRC", paths(copy / "src")
    )
    script = script.replace("DISK", str(tmp_path / "node")).replace("PACKAGE", lab.package)
    script = script.replace("ADDRESS", bucket.address)
    (copy / ".gradient/workflows/move.yaml").write_text(
        script.replace("OPTIONS", " ".join(lab.small))
    )
    (copy / "slurm.yaml").write_text(ROW)
    slurm = {"SLURM_CONF": cluster.env["SLURM_CONF"]}
    runner = Lab(copy, tmp_path / "cluster", bucket.env | slurm)
    output = runner.run("gradlab", "run", "move", "--engine", "slurm")
    told = (newest(runner, "told") / "log").read_text()
    assert "carrying on at step" in told and "Finished" in told, output + told
    assert lab.sha() == whole.sha()
