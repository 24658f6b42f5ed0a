"""The model: a small convolutional network. To use your own, return it from `build`."""

from __future__ import annotations

import jax
from flax import nnx

from .config import ModelConfig


class Block(nnx.Module):
    """A convolution that keeps height and width, and is normalised."""

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs) -> None:
        self.convolution = nnx.Conv(inputs, outputs, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(outputs, momentum=0.9, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Give features of shape (batch, height, width, outputs)."""
        return nnx.relu(self.norm(self.convolution(images)))


class Net(nnx.Module):
    """Classifies images of shape (batch, 8, 8) into logits of shape (batch, 10)."""

    def __init__(self, width: int, dropout: float, rngs: nnx.Rngs, classes: int = 10) -> None:
        self.block1 = Block(1, width, rngs)
        self.block2 = Block(width, width, rngs)
        self.block3 = Block(width, 2 * width, rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.classify = nnx.Linear(2 * width, classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Give the logits."""
        features = self.block2(self.block1(images[..., None]))
        features = self.block3(nnx.max_pool(features, (2, 2), (2, 2))).mean((1, 2))
        return self.classify(self.dropout(features))


def build(config: ModelConfig, rngs: nnx.Rngs) -> nnx.Module:
    """Build the network with fresh weights; dropout may draw from the same `rngs` in each step."""
    return Net(config.width, config.dropout, rngs)
