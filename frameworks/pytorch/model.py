"""The model: a small convolutional network. To use your own, return it from `build`."""

from __future__ import annotations

from torch import Tensor, nn

from .config import ModelConfig


def _block(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Net(nn.Module):
    """Classifies images of shape (batch, 8, 8) into logits of shape (batch, 10)."""

    def __init__(self, width: int, dropout: float, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(1, width),
            _block(width, width),
            nn.MaxPool2d(2),
            _block(width, 2 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits."""
        logits: Tensor = self.classify(self.features(images.unsqueeze(1)))
        return logits


def build(config: ModelConfig) -> nn.Module:
    """Build the network with fresh weights from torch's global generator."""
    return Net(config.width, config.dropout)
