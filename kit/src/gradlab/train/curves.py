"""Pictures of what was measured: the curves of a run and a confusion matrix, as PNG.

Promises: draws without a screen; reads only what was recorded since the last drawing; the curves
of a run that goes on take at most 5 % of its time.
"""

from __future__ import annotations

import io
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.files import write_durably
from .record import read

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Array = np.ndarray[Any, Any]

Points = dict[str, list[tuple[float, float]]]
NO_LOSSES = ("step", "epoch", "learning_rate")
SHARE = 0.05  # of a run's time that its curves may take
FIRST = 0.5  # seconds that the first drawing takes, which loads matplotlib
# Given, for to find margins that fit takes as long as the drawing.
MARGINS = {"left": 0.07, "right": 0.985, "bottom": 0.16, "top": 0.9, "wspace": 0.17}


class Curves:
    """The curves of metrics.jsonl over the epochs: losses left, other validation values right."""

    def __init__(self, metrics: Path, picture: Path) -> None:
        self.metrics = metrics
        self.picture = picture
        self._read = 0
        self._cost = FIRST  # of the last drawing, or of one that is to come
        self._drawn = time.monotonic()
        self._losses: dict[str, dict[int, tuple[float, int]]] = defaultdict(dict)
        self._values: Points = defaultdict(list)

    @property
    def due(self) -> bool:
        """Tell whether the run has gone on for long enough to pay for a drawing."""
        return SHARE * (time.monotonic() - self._drawn) >= self._cost

    def draw(self) -> None:
        """Take up what was recorded since the last time and write the picture."""
        begun = time.monotonic()
        try:
            self._draw()
        finally:
            self._drawn = time.monotonic()
            self._cost = self._drawn - begun

    def _draw(self) -> None:
        lines, self._read = read(self.metrics, self._read)
        for line in lines:
            self._take(line)
        means = {
            f"training {name}": [(float(epoch), total / n) for epoch, (total, n) in sums.items()]
            for name, sums in self._losses.items()
        }
        write_durably(self.picture, _png(_curves({**means, **self._values})))

    def _take(self, line: dict[str, float]) -> None:
        epoch = int(line["epoch"])
        for name, value in line.items():
            if name.startswith("val_"):
                self._values[name].append((epoch, value))
            elif name not in NO_LOSSES:
                total, count = self._losses[name].get(epoch, (0.0, 0))
                self._losses[name][epoch] = (total + value, count + 1)


def _curves(points: Points) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4))
    left, right = figure.subplots(1, 2, gridspec_kw=MARGINS)
    for name, values in points.items():
        axes = left if name.endswith("loss") or name.startswith("training") else right
        label = spelled(name)
        axes.plot(*zip(*values, strict=True), marker=".", label=label)
    for axes, title in ((left, "Loss"), (right, "Validation")):
        _label(axes, title)
    return figure


def spelled(metric: str) -> str:
    """Spell a metric out: `validation accuracy` for val_accuracy."""
    return metric.replace("val_", "validation ").replace("_", " ")


def _label(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)


def compare_curves(points: Points, title: str, picture: Path) -> None:
    """Draw one curve for each run, the best first, over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in points.items():
        axes.plot(*zip(*values, strict=True), marker=".", label=name)
    _label(axes, title)
    _written(picture, figure)


def predicted_against_true(true: Array, predicted: Array, folder: Path) -> Path:
    """Draw a point for each example, numbers of shape (n,), the true ones to the right.

    Gives the picture, which is called as this function is.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(true, predicted, s=8, alpha=0.5)
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    axes.plot([low, high], [low, high], color="grey", linewidth=1)
    axes.set(xlabel="true", ylabel="predicted")
    axes.grid(alpha=0.3)
    return _written(folder / "predicted_against_true.png", figure)


def learning_rates(rates: list[float], losses: list[float], best: int, folder: Path) -> Path:
    """Draw the loss over the learning rates that were tried, and mark the best of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses)
    axes.plot(rates[best], losses[best], "o", label=f"falls fastest: {rates[best]:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="smoothed loss")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return _written(folder / "learning_rates.png", figure)


def confusion_matrix(true: Array, predicted: Array, labels: list[str], folder: Path) -> Path:
    """Draw how often which class, of shape (n,), was taken for which, the true ones in rows.

    Gives the picture, which is called as this function is.
    """
    import numpy as np
    from matplotlib.figure import Figure

    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (true, predicted), 1)

    figure = Figure(figsize=(5.4, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="true", xticks=range(len(labels)), xticklabels=labels)
    axes.set(yticks=range(len(labels)), yticklabels=labels)
    # More numbers than this can't be read; the colours still can.
    if len(labels) <= 30:
        for (row, column), count in np.ndenumerate(counts):
            dark = count > counts.max() / 2
            colour = "white" if dark else "black"
            text = str(count) if count else ""
            axes.text(column, row, text, ha="center", va="center", color=colour)
    return _written(folder / "confusion_matrix.png", figure)


def _written(picture: Path, figure: Figure) -> Path:
    write_durably(picture, _png(figure))
    return picture


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
