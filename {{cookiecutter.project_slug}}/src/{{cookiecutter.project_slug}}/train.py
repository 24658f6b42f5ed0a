"""Training that carries on: whatever ends a session, the same command goes on from there.

    python -m <package> train [--name default] [--max-minutes 30]
    torchrun --nproc-per-node 2 -m <package> train

All that is random in a step is a function of the seed and the step's number, so a run that
was cut off any number of times ends with the bytes of one that never was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sized
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import cross_entropy

from gradlab.base import signals
from gradlab.base.errors import GradlabError, note
from gradlab.services import machine, session
from gradlab.store import source
from gradlab.train import examples, keyed, runs, weightfile
from gradlab.train.loader import Loader, LoaderError
from gradlab.train.progress import Progress
from gradlab.train.torch import World, autocast, join, load_weights, loader, prove, weights

from .config import TrainConfig
from .data import Splits, datasets
from .evaluate import accuracy, judge
from .model import build

PROJECT = __name__.partition(".")[0]
FOLDER = Path(__file__).parent
CHECK_SECONDS = 1.0  # how often to look at the clock, record what was measured and show it
MARGIN_SECONDS = 120.0  # left for the last checkpoint before the service ends the session


def train(config: TrainConfig) -> int:
    """Start the run, carry it on, or say that it is finished; give the exit code."""
    begun, stop = time.time(), signals.take()
    world = join(config.device)
    with world.kept():
        data = datasets()
        run = _open(config, world, data)
        return Trainer(config, world, data, run, stop).run_to_end(begun)


def _open(config: TrainConfig, world: World, data: Splits) -> runs.Run | None:
    """Open the run in the first process; where that fails, all of them end."""
    run, failure = None, None
    if world.first:
        count = {"training_examples": len(cast(Sized, data.train))}
        settings = {**config.settings(), **count, "code": source.code(FOLDER)}
        splits = {"training": data.train, "validation": data.validation}
        workers = 1 if config.workers is None else config.workers
        try:
            seen = examples.look(splits, config.seed, workers)
            run = runs.open_run(
                PROJECT,
                config.name,
                settings,
                config.fresh,
                config.save_seconds,
                seen,
                config.accept_changes,
            )
        except GradlabError as error:
            failure = error
    if failure := world.share(failure):
        raise failure
    return run


class Trainer:
    """The state of a training run and what happens to it; only the first process has the run."""

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        data: Splits,
        run: runs.Run | None,
        stop: signals.Stop,
    ) -> None:
        self.config, self.world, self.data, self.run, self.stop = config, world, data, run, stop
        self.device = world.device
        self.precision = world.precision(config.precision)
        spare = min(4, max(1, machine.cpus() - 1))
        self.workers = spare if config.workers is None else config.workers
        keyed.seed_generators(keyed.key(config.seed, "weights"))
        self.network = world.place(build(config.model))
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.scaler = world.scaler(self.precision)
        self.step = 0
        self.best: dict[str, Any] = {"accuracy": -1.0, "epoch": 0, "weights": {}}
        self.losses: list[Tensor] = []
        self.unjudged: list[float] = []  # the loss of a step whose evaluation a signal ended
        self._restore(world.share((run.step, run.state) if run else (0, None)))
        model = torch.compile(self.network) if config.compile else self.network
        self.model = world.wrap(cast(torch.nn.Module, model))
        self.per_epoch = self._batches(0, 0).per_epoch
        self.total = config.epochs * self.per_epoch

    def _batches(self, start: int, stop: int) -> keyed.Batches:
        size, world = len(cast(Sized, self.data.train)), self.world
        seed, batch = self.config.seed, self.config.batch_size
        return keyed.Batches(size, batch, seed, start, stop, world.rank, world.size)

    def _restore(self, saved: tuple[int, dict[str, Any] | None]) -> None:
        self.step, state = saved
        if state is None:
            prove(self.network)
            return
        load_weights(self.network, state["network"], "the saved run")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.best = state["best"]
        self.unjudged = state.get("unjudged", [])
        if self.world.first and state["where"] != self._where():
            note(
                f"! Saved on {state['where']}; going on with {self._where()}: "
                "the same examples in the same order, but the last bits may differ."
            )

    def _state(self) -> dict[str, Any]:
        return {
            "network": weights(self.network, copied=False),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": self.best,
            "unjudged": self.unjudged,
            "where": self._where(),
        }

    def _where(self) -> str:
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        torch_version = torch.__version__.partition("+")[0]
        return (
            f"{self.device.type} ({self.precision}{threads}), "
            f"{self.world.size} process(es), torch {torch_version}"
        )

    def run_to_end(self, begun: float) -> int:
        """Train from where the run stands to its end or the session's; give the exit code."""
        deadline, minutes = session.deadline(), self.config.max_minutes
        self.ends = math.inf if minutes is None else begun + 60 * minutes
        if deadline:
            self.ends = min(self.ends, deadline - MARGIN_SECONDS)
        if self.run:
            self._announce(self.run)
            self.progress = Progress(self.step, self.total, deadline)
        self.checked, self.asked = -math.inf, 0
        try:
            if not (self.unjudged and self._end_step()):
                with self._loader() as batches:
                    for inputs, targets in batches:
                        self._train_step(inputs, targets)
                        if self._end_step():
                            break
        except LoaderError:
            self._save_what_is_done()
            raise
        return self._close()

    def _loader(self) -> Loader:
        data = keyed.KeyedDataset(self.data.train, self.config.seed)
        batches = self._batches(self.step, self.total)
        workers = self.workers if self.step < self.total else 0
        return loader(data, "training", batches, workers, self.device)

    def _train_step(self, inputs: Tensor, targets: Tensor) -> None:
        self.world.seed_step(self.config.seed, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        with autocast(self.device, self.precision):
            loss = cross_entropy(self.model(inputs), targets)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(loss.detach())
        self.step += 1
        self.stop.unsaved = True

    def _end_step(self) -> bool:
        """Judge, record, show and save what is due; tell whether to stop, in all processes."""
        judge_now = self._evaluation_is_due()
        due = judge_now or time.monotonic() - self.checked >= CHECK_SECONDS
        # One number for both, since to agree on it costs the processes a message.
        agreed = self.world.highest(1 + self.stop.asked if self.stop.asked else int(due))
        if not agreed:
            return False
        self.asked = agreed - 1
        return self._check(self._evaluate() if judge_now and not self.asked else None)

    def learning_rate(self, step: int) -> float:
        """Give the rate of a step: a linear warm-up, then a cosine down to zero."""
        warmup = max(1, round(self.config.warmup * self.total))
        if step < warmup:
            return self.config.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.total - warmup)
        return self.config.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def _evaluation_is_due(self) -> bool:
        every = self.config.evaluate_every * self.per_epoch
        return self.step % every == 0 or self.step == self.total

    def _evaluate(self) -> dict[str, float] | None:
        """Judge the model on the validation split, in the first process, and keep the best.

        None where a signal came: what is left of it is done when the run is carried on.
        """
        if not self.world.first:
            return None
        data, place = self.data.validation, (self.device, self.precision, self.workers)
        try:
            loss, counts = judge(self.network, data, *place, "validation", self.stop.check)
        except signals.Interrupted:
            return None
        if accuracy(counts) > self.best["accuracy"]:
            epoch = self.step // self.per_epoch
            best = {"accuracy": accuracy(counts), "epoch": epoch}
            self.best = {**best, "weights": weights(self.network)}
        return {"val_loss": loss, "val_accuracy": accuracy(counts)}

    def _check(self, values: dict[str, float] | None) -> bool:
        """Record, show and save what is due; tell whether to stop, the same in all processes."""
        losses = self._take_losses()
        if not all(map(math.isfinite, losses)):
            raise GradlabError(
                f"The loss became {losses[-1]} by step {self.step}: try a lower --learning-rate "
                f"or --precision fp32, and {session.ways_to_start_over()}.",
                exit_code=1,
            )
        plan = (False, 0)
        if self.run:
            self.asked = self.asked or self.stop.asked or 0
            plan = (self._record(self.run, losses, values), self.asked)
        stop, self.asked = self.world.share(plan)
        self.checked = time.monotonic()
        return stop

    def _take_losses(self) -> list[float]:
        losses = self.world.mean(torch.stack(self.losses)).tolist() if self.losses else []
        losses, self.unjudged = self.unjudged + losses, []
        self.losses.clear()
        return losses

    def _record(
        self,
        run: runs.Run,
        losses: list[float],
        values: dict[str, float] | None,
        stop: bool = False,
    ) -> bool:
        first, shown = self.step - len(losses), losses[-1]
        if values is None and self._evaluation_is_due():
            self.unjudged = [losses.pop()]
        for step, loss in enumerate(losses, first):
            line = {"loss": loss, "learning_rate": self.learning_rate(step)}
            extra = values if values and step + 1 == self.step else {}
            run.record.add(step + 1, step // self.per_epoch + 1, {**line, **extra})
        epoch = (self.step - 1) // self.per_epoch + 1
        if values and self.best["epoch"] == epoch:
            best = self.best["weights"]
            run.write_later("best.safetensors", lambda: self._file(run, best))
        run.record.flush()
        self.progress.update(self.step, epoch, shown)
        ended = time.time() >= self.ends or self.step == self.total
        stop = stop or ended or bool(self.asked)
        if stop or run.checkpoints.due:
            run.save(self.step, self._state())
        if values:
            run.draw()
        return stop

    def _save_what_is_done(self) -> None:
        """Save the steps before one whose data can't be loaded; several processes do without."""
        losses = self._take_losses() if self.run and self.world.size == 1 else []
        if self.run and losses and all(map(math.isfinite, losses)):
            self._record(self.run, losses, None, stop=True)

    def _announce(self, run: runs.Run) -> None:
        what = "starting" if self.step == 0 else "carrying on"
        if self.step >= self.total and not self.unjudged:
            what = "finished"
        note(f"Run '{self.config.name}': {what} at step {self.step:,} of {self.total:,}.")
        if run.record.undone:
            lost = f"{run.record.undone:,} steps after the last checkpoint were lost"
            note(f"{lost} and are done again.")
        note(f"On {self._where()}, {self.workers} loader worker(s); kept in {run.kept}.")

    def _close(self) -> int:
        """Part from the run in the first process, which the others wait for; give the exit code."""
        failure = None
        try:
            if self.run:
                self._part(self.run)
        except GradlabError as error:
            failure = error
        if failure := self.world.share(failure):
            raise failure
        # As a shell does, so that a caller can tell a signal from the end of the time.
        asked = self.world.share(self.asked or self.stop.asked)
        return 128 + asked if asked else 0

    def _part(self, run: runs.Run) -> None:
        self.progress.close()
        if run.wait() < self.step:  # the last checkpoint failed
            run.save(self.step, self._state())
        if self.step < self.total or self.unjudged:
            run.stop(self.step, self.total)
            return
        run.finish(
            self.step,
            {
                "best.safetensors": self._file(run, self.best["weights"]),
                "model.safetensors": self._file(run, weights(self.network)),
            },
        )
        best, epoch = self.best["accuracy"], self.best["epoch"]
        note(f"Finished. Best validation accuracy {best:.2%} in epoch {epoch}. In {run.kept}:")
        note("  model.safetensors best.safetensors metrics.jsonl curves.png tensorboard/")

    def _file(self, run: runs.Run, weights: dict[str, Tensor]) -> bytes:
        return weightfile.pack(save(weights), run.settings)
