"""What one would write without a framework: it logs nothing, keeps nothing."""

from __future__ import annotations

import torch
from common import SEED, Work, main
from torch.nn.functional import cross_entropy


def loop(work: Work) -> None:
    """Train."""
    torch.manual_seed(SEED)
    network = work.network()
    optimizer = work.optimizer(network)
    schedule = work.schedule(optimizer)
    for inputs, targets in work.loader():
        loss = cross_entropy(network(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()


if __name__ == "__main__":
    main(loop)
