"""The data: scikit-learn's handwritten digits, split, augmented and normalised.

To use your own, return your own datasets from `datasets` and names from `LABELS`. A training
set may draw its augmentation from the global generators of random and NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from gradlab.train.keyed import Dataset

LABELS = [str(digit) for digit in range(10)]
Images = np.ndarray[Any, np.dtype[np.float32]]


class Digits:
    """Grey images of shape (8, 8), from -1 to 1, and their classes."""

    def __init__(self, images: Images, classes: list[int], augmented: bool = False) -> None:
        self.images = images
        self.classes = classes
        self.augmented = augmented

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, index: int) -> tuple[Images, int]:
        image = self.images[index]
        if self.augmented:
            image = augment(image)
        return image * 2 - 1, self.classes[index]


def augment(image: Images) -> Images:
    """Rotate by up to 12 degrees, shift by up to 0.8 pixels and add noise; values from 0 to 1."""
    angle = np.deg2rad(np.random.uniform(-12, 12))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - rotation @ centre + np.random.uniform(-0.8, 0.8, 2)
    moved = ndimage.affine_transform(image, rotation, offset, order=1)
    noisy = moved + np.random.normal(0, 0.05, image.shape)
    return np.asarray(np.clip(noisy, 0, 1), np.float32)


@dataclass(frozen=True)
class Splits:
    """The three sets: to learn from, to choose the best model by, and to judge it once."""

    train: Dataset
    validation: Dataset
    test: Dataset


def datasets() -> Splits:
    """Split the digits into 60 % training, 20 % validation and 20 % test, always the same."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)
    classes = [int(digit) for digit in data.target]
    parts = np.arange(len(classes))
    train, rest = train_test_split(parts, test_size=0.4, stratify=classes, random_state=0)
    kinds = [classes[i] for i in rest]
    validation, test = train_test_split(rest, test_size=0.5, stratify=kinds, random_state=0)

    def part(indices: Any, augmented: bool = False) -> Digits:
        return Digits(images[indices], [classes[i] for i in indices], augmented)

    return Splits(part(train, augmented=True), part(validation), part(test))
