"""Accelerate: accelerator.log in each step to TensorBoard, accelerator.save_state by the clock."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from common import SEED, Interval, Work, main
from torch.nn.functional import cross_entropy


def loop(work: Work) -> None:
    """Train."""
    set_seed(SEED)
    kept = ProjectConfiguration(str(work.folder), automatic_checkpoint_naming=True, total_limit=2)
    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_config=kept)
    accelerator.init_trackers("bench")
    network = work.network()
    optimizer = work.optimizer(network)
    parts = (network, optimizer, work.loader(), work.schedule(optimizer))
    network, optimizer, loader, schedule = accelerator.prepare(*parts)
    interval = Interval(work.every)
    for step, (inputs, targets) in enumerate(loader, 1):
        loss = cross_entropy(network(inputs), targets)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        rate = schedule.get_last_lr()[0]
        schedule.step()
        accelerator.log({"loss": loss.item(), "learning_rate": rate}, step)
        if interval.is_over():
            accelerator.save_state()
    accelerator.end_training()


if __name__ == "__main__":
    main(loop)
