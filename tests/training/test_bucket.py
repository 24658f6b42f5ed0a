"""A training run in a bucket, as another machine finds it."""

from __future__ import annotations

import json
import shutil

import pytest

from ..lab import STEPS, Lab
from ..services.bucket import Bucket


@pytest.mark.slow
def test_a_run_that_was_copied_into_a_bucket_is_evaluated_and_started_over_there(
    lab: Lab, whole: Lab, bucket: Bucket
) -> None:
    lab.in_a_bucket(bucket)
    lab.take(whole.storage)
    output = lab.run(lab.package, "evaluate")
    assert "on 360 test examples" in output and "Kept in s3://" in output
    assert json.loads((lab.folder() / "evaluation.json").read_text())["examples"] == 360
    bucket.requests.clear()
    lab.run(lab.package, "evaluate")
    fetched = [each for each in bucket.requests if each.startswith("GET") and "best.safe" in each]
    assert not fetched, "it is here already"
    # The same run, carried on: nothing is left to be done.
    assert f"finished at step {STEPS:,} of {STEPS:,}" in lab.train()
    assert lab.sha() == whole.sha()
    first = lab.disk.rename(lab.disk.with_name("first"))
    output = lab.train("--fresh", "--max-minutes", "0")
    assert "starting at step 0" in output and "The earlier run is kept in s3://" in output
    assert lab.sha("default~") == whole.sha()
    # What the first machine has is of the run before.
    shutil.rmtree(lab.disk)
    first.rename(lab.disk)
    assert "carrying on at step 1 of" in lab.train("--max-minutes", "0")
