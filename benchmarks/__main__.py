"""All benchmarks, one after the other, and their results in one table.

    python benchmarks [--rounds N]

Ends with 1 where a target is missed. Nothing else should run meanwhile.
"""

from __future__ import annotations

import sys

import bucket
import checkpoints
import cluster
import generation
import runner
import storage
import training
from measure import Row, options, show

ALL = (training, checkpoints, storage, bucket, runner, cluster, generation)


def main() -> None:
    """Measure, and print the table."""
    chosen = options(__doc__, 0).parse_args().rounds
    found: list[Row] = []
    for benchmark in ALL:
        found += benchmark.rows(chosen or benchmark.ROUNDS)
    sys.exit(not show(found))


if __name__ == "__main__":
    main()
