"""What one would write with Keras' fit: it keeps nothing but what it shows of an epoch."""

from __future__ import annotations

from typing import Any

import keras
from jax_common import Work, main
from keras_bare import compiled, loaded


class Count(keras.callbacks.Callback):  # type: ignore[misc]
    """Counts the steps."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count a step."""
        self.work.done(None)


def loop(work: Work) -> None:
    """Train."""
    network = compiled(work)
    with loaded(work) as batches:
        per_epoch = work.steps // work.epochs
        network.fit(
            (batch for batch in batches),
            epochs=work.epochs,
            steps_per_epoch=per_epoch,
            verbose=0,
            callbacks=[Count(work)],
        )


if __name__ == "__main__":
    main(loop)
