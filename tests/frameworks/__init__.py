"""What a project of any framework promises; PyTorch's own tests are in tests/training."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """A framework, as it is tried."""

    name: str  # of the test
    framework: str  # the answer
    env: dict[str, str] = field(default_factory=dict)
    # What of learner.py is replaced to have another optimizer.
    optimizer: tuple[str, str] = ("", "")


FRAMEWORKS = (Entry("jax", "jax", optimizer=("optax.scale_by_adam()", "optax.trace(0.9)")),)
