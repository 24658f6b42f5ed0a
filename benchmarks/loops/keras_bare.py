"""What one would write with Keras' train_on_batch: it logs nothing, keeps nothing.

Model, data and loader are the project's, and so is what makes TensorFlow repeatable.
"""

from __future__ import annotations

import keras
from jax_common import BATCH, SEED, Work, main

from gradlab.train.keras import join
from gradlab.train.keyed import Batches, KeyedDataset
from gradlab.train.loader import Loader


def compiled(work: Work) -> keras.Model:
    """Give the project's model with its optimizer, loss and schedule, as Keras trains them."""
    join("auto")
    keras.utils.set_random_seed(SEED)
    network, config = work.part("model").build(work.config.model), work.config
    rates = keras.optimizers.schedules.CosineDecay(
        *(0.0, work.steps - 10), warmup_target=config.learning_rate, warmup_steps=10
    )
    optimizer = keras.optimizers.AdamW(rates, weight_decay=config.weight_decay)
    network.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return network


def loaded(work: Work) -> Loader:
    """Give the project's loader of all batches."""
    batches = Batches(len(work.data), BATCH, SEED, 0, work.steps)
    return Loader(KeyedDataset(work.data, SEED), "training", batches, work.workers)


def loop(work: Work) -> None:
    """Train."""
    network = compiled(work)
    with loaded(work) as batches:
        for images, classes in batches:
            work.done(network.train_on_batch(images, classes))


if __name__ == "__main__":
    main(loop)
