"""Lightning's Trainer: self.log_dict in each step to TensorBoard, ModelCheckpoint by the clock.

Switched off are the progress bar, the summary of the model and validation with its sanity check,
which the other loops don't have either. The loader is one epoch, of as many steps as the others do,
so that no workers are started anew.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import lightning
from common import SEED, Work, main
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn.functional import cross_entropy


class Module(lightning.LightningModule):  # type: ignore[misc]
    """The project's model, as Lightning wants it."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work
        self.network = work.network()

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Give the loss of a batch."""
        inputs, targets = batch
        loss = cross_entropy(self.network(inputs), targets)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict({"loss": loss, "learning_rate": rate})
        return loss

    def configure_optimizers(self) -> Any:
        """Give the optimizer, and the schedule by steps."""
        optimizer = self.work.optimizer(self.network)
        schedule = {"scheduler": self.work.schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def loop(work: Work) -> None:
    """Train."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    lightning.seed_everything(SEED, workers=True, verbose=False)
    every = timedelta(seconds=work.every)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=TensorBoardLogger(work.folder),
        log_every_n_steps=1,
        callbacks=[ModelCheckpoint(work.folder, train_time_interval=every)],
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(work), work.loader())


if __name__ == "__main__":
    main(loop)
