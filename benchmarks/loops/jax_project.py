"""The project's own training with JAX, as project.py has it with PyTorch."""

from __future__ import annotations

from typing import Any

from jax_common import BATCH, SEED, Work, main

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
    learner = work.part("learner").Learner
    step = learner.step

    def counted(self: Any, *arguments: Any) -> Any:
        losses = step(self, *arguments)
        work.done(losses)
        return losses

    learner.step = counted
    work.part("train").train(config)


if __name__ == "__main__":
    main(loop)
