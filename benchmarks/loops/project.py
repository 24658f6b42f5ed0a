"""The project's own training: each step's loss and rate go to metrics.jsonl and to TensorBoard.

It evaluates after the last step only, when the last turn is over.
"""

from __future__ import annotations

from common import BATCH, SEED, Work, main

NEVER = 1e9


def loop(work: Work) -> None:
    """Train."""
    config = work.part("config").TrainConfig(
        name="bench",
        fresh=True,
        seed=SEED,
        epochs=work.epochs,
        evaluate_every=work.epochs,
        batch_size=BATCH,
        workers=work.workers,
        save_seconds=work.every or NEVER,
    )
    work.part("train").train(config)


if __name__ == "__main__":
    main(loop)
