"""The model: a small convolutional network. To use your own, return it from `build`."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from .config import ModelConfig

CLASSES = 10


def _block(features: Any, width: int) -> Any:
    features = layers.Conv2D(width, 3, padding="same", use_bias=False)(features)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(features))


def build(config: ModelConfig) -> keras.Model:
    """Build the network with fresh weights from Keras' global seed.

    It classifies images of shape (batch, 8, 8) into logits of shape (batch, 10).
    """
    images, width = keras.Input((8, 8)), config.width
    features = layers.Reshape((8, 8, 1))(images)
    features = _block(_block(features, width), width)
    features = _block(layers.MaxPooling2D()(features), 2 * width)
    features = layers.Dropout(config.dropout)(layers.GlobalAveragePooling2D()(features))
    return keras.Model(images, layers.Dense(CLASSES)(features))
