"""What one would write with JAX, Flax and Optax alone: it logs nothing, keeps nothing.

Model, data and loader are the project's. The state is split from the model once, and a compiled
step takes and gives it, as Flax advises where each step counts.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax_common import BATCH, SEED, Work, main

from gradlab.train.keyed import Batches, KeyedDataset
from gradlab.train.loader import Loader


def loop(work: Work) -> None:
    """Train."""
    network = work.part("model").build(work.config.model, nnx.Rngs(SEED))
    network.train()
    graph, *parts = nnx.split(network, nnx.Param, nnx.RngState, ...)
    rates = optax.warmup_cosine_decay_schedule(0, work.config.learning_rate, 10, work.steps)
    optimizer = optax.adamw(rates, weight_decay=work.config.weight_decay)
    state = *parts, optimizer.init(parts[0])

    def loss_of(parameters: Any, others: Any, images: Any, classes: Any) -> Any:
        network = nnx.merge(graph, parameters, *others, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(network(images), classes)
        return losses.mean(), nnx.split(network, nnx.Param, nnx.RngState, ...)[2:]

    def step(state: Any, images: Any, classes: Any) -> Any:
        parameters, *others, moments = state
        learn = jax.value_and_grad(loss_of, has_aux=True)
        (loss, others), gradients = learn(parameters, others, images, classes)
        changes, moments = optimizer.update(gradients, moments, parameters)
        return (optax.apply_updates(parameters, changes), *others, moments), loss

    compiled = jax.jit(step, donate_argnums=0)
    data = KeyedDataset(work.data, SEED)
    batches = Batches(len(work.data), BATCH, SEED, 0, work.steps)
    with Loader(data, "training", batches, work.workers) as loaded:
        for images, classes in loaded:
            state, loss = compiled(state, np.asarray(images), np.asarray(classes))
            work.done(loss)


if __name__ == "__main__":
    main(loop)
