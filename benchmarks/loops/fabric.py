"""Lightning Fabric: fabric.log_dict in each step to TensorBoard, fabric.save by the clock."""

from __future__ import annotations

from common import SEED, Interval, Work, main
from lightning.fabric import Fabric, seed_everything
from lightning.fabric.loggers import TensorBoardLogger
from torch.nn.functional import cross_entropy


def loop(work: Work) -> None:
    """Train."""
    seed_everything(SEED, workers=True, verbose=False)
    fabric = Fabric(accelerator="cpu", loggers=TensorBoardLogger(work.folder))
    fabric.launch()
    network = work.network()
    network, optimizer = fabric.setup(network, work.optimizer(network))
    schedule, interval = work.schedule(optimizer.optimizer), Interval(work.every)
    for step, (inputs, targets) in enumerate(fabric.setup_dataloaders(work.loader()), 1):
        loss = cross_entropy(network(inputs), targets)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rate = schedule.get_last_lr()[0]
        schedule.step()
        fabric.log_dict({"loss": loss, "learning_rate": rate}, step)
        if interval.is_over():
            state = {"network": network, "optimizer": optimizer, "step": step}
            fabric.save(work.folder / "checkpoint.ckpt", {**state, "schedule": schedule})


if __name__ == "__main__":
    main(loop)
