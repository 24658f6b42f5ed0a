"""Training that carries on: whatever ends a session, the same command goes on from there.

    python -m <package> train [--name default] [--max-minutes 30]

A step learns from one batch. Every few epochs an evaluation measures the validation split; every
few seconds a checkpoint keeps all that it takes to go on, and to end as if nothing had been.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from gradlab.base import signals
from gradlab.services import machine, session
from gradlab.train import devices, measures, provenance, runs, sharded, streams
from gradlab.train.loader import LoaderError
from gradlab.train.pace import Pace

from . import task
from .config import TrainConfig
from .data import Splits, datasets
from .learner import Learner, Lines, Losses, Values


def train(config: TrainConfig) -> int:
    """Start the run, carry it on, or say that it is finished; give the exit code."""
    trainer = Trainer(config)
    with trainer.world.kept():
        return trainer.run_to_end(datasets())


class Trainer:
    """The state of a training run and what happens to it; only the first process has the run.

    It evaluates and saves alone, but where the network is split: then all do, as a team.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.learner, self.stop = config, Learner(config), signals.take()
        self.world, self.team = self.learner.world, self.learner.team
        self.pace = Pace(self.world, self.stop, session.ends(config.max_minutes))
        self.workers = machine.loader_workers(config.workers)
        self.losses: list[Losses] = []  # of the steps that are not recorded yet
        self.unjudged: Lines = []  # the step whose evaluation a signal ended
        self.best: dict[str, Any] = {"value": None, "step": 0, "weights": {}}

    def run_to_end(self, data: Splits) -> int:
        """Train from where the run stands to its end or the session's; give the exit code."""
        self.data = data
        self._plan()
        self.run = devices.in_first(self.world, self._open)
        self.saver = sharded.saver(self.run, self.team)
        self._take_up()
        try:
            if not (self.unjudged and self._end_step()):
                self._learn()
        except LoaderError:
            # What was done before it; several processes and data without an index do without.
            alone = self.world.size == 1 and self.examples.indexed
            if self.run and alone and (self.losses or self.unjudged):
                self._record(self.run, self._lines(judged=False), None)
                self._save(self.run)
            raise
        self._part()
        self.learner.close()
        return self.pace.exit_code(self._is_finished())

    def _plan(self) -> None:
        """Lay out the steps of the run, by its settings."""
        config = self.config
        self.examples = streams.source(self.data.train, config.seed)
        self.plan = self.examples.plan(config.batch_size, config.steps_per_epoch, self.world)
        self.per_epoch, self.total = self.plan.per_epoch, config.steps(self.plan.per_epoch)

    def _open(self) -> runs.Run:
        """Open the run, which keeps the settings that it began with, and says what has changed."""
        splits = {"training": self.examples, "validation": self.data.validation}
        told = {"training_examples": self.plan.size, "best": list(task.BEST)}
        package, given = Path(__file__).parent, self.learner.settings
        keep = sharded.keep(self.team)
        return runs.open_run(self.config, told, package, splits, self.workers, given, keep)

    def _take_up(self) -> None:
        """Begin anew, or where the newest checkpoint is."""
        run = self.run
        taken = sharded.taken_up(self.world, run, self.saver)
        self.step, state, self.settings, changed = taken
        provenance.adopt(self.config, self.settings)
        self._plan()
        with provenance.fitting(changed):
            self.learner.start(self.total, state["learner"] if state else None, self.examples)
            self.examples.start(state.get("data", {}) if state else None)  # lazy networks drew one
            if state:
                self.best, self.unjudged = state["best"], state["unjudged"]
        if state and not self.unjudged:
            self._end_early()
        if run:
            run.announce(self.total, self.learner.where(), self.examples.workers(self.workers))

    def _learn(self) -> None:
        """Take one step after the other, until the run is over or has to stop."""
        batches = self.plan.between(self.step, self.total)
        workers = self.examples.workers(self.workers) if self.step < self.total else 0
        with self.learner.load_batches(self.examples, "training", batches, workers) as loaded:
            for batch in self.learner.profiled(loaded, self.run):
                self.losses.append(self.learner.step(self.step, batch))
                self.step += 1
                self.stop.unsaved = True
                if self._end_step():
                    break

    def _end_step(self) -> bool:
        """Evaluate, record, show and save what is due; tell whether to stop, in all processes."""
        evaluate = self._evaluation_is_due()
        if not self.pace.is_due(evaluate):
            return False
        judge = self.saver and evaluate and not self.pace.asked
        values, run = self._evaluate() if judge else None, self.run
        lines = self._lines(judged=values is not None)
        if run:
            self._record(run, lines, values)
        over = self.pace.is_over() or self.step == self.total
        stop, save = self.pace.agree(over, over or bool(run and run.checkpoints.due))
        if self.saver and save:
            self._save(self.saver)
        if run and values:
            run.draw()
        return stop

    def _evaluation_is_due(self) -> bool:
        every = self.config.evaluate_every * self.per_epoch
        return self.step % every == 0 or self.step == self.total

    def _evaluate(self) -> Values | None:
        """Measure the validation split, and keep the best weights; None where a signal came."""
        data, look = self.data.validation, self.pace.look if self.team else self.stop.check
        try:
            found, _ = measures.measure(self.learner, data, "validation", task, self.workers, look)
        except signals.Interrupted:
            return None
        values = {f"val_{name}": value for name, value in found.items()}
        if self.team:
            values = self.world.share(values)  # as the first has the buffers
        name, way = self.settings["best"]
        if measures.is_better(values, self.best["value"], (name, way)):
            self.best = {"value": values[name], "step": self.step}
            self.best["weights"] = self.learner.weights()
            best, settings = self.learner.whole(self.best["weights"]), self.settings
            if self.run:
                self.run.write_later("best.safetensors", lambda: self.learner.file(best, settings))
        self._end_early()
        return values

    def _end_early(self) -> None:
        """Make this step the last, where no evaluation has been better for too long."""
        if self.step - self.best["step"] >= self.config.waits(self.per_epoch):
            self.total = self.step

    def _lines(self, judged: bool) -> Lines:
        """Give the losses of the steps that are not recorded yet; GradlabError if one is none.

        The last one waits for its evaluation, if that is due and was not done.
        """
        lines, self.unjudged = self.unjudged + self.learner.values(self.losses), []
        self.losses.clear()
        measures.refuse_infinite(lines, self.step)
        if self.saver and not judged and self._evaluation_is_due():
            self.unjudged = lines[-1:]
        return lines

    def _record(self, run: runs.Run, lines: Lines, values: Values | None) -> None:
        """Record and show some steps, but for one that waits for its evaluation."""
        first, shown = self.step - len(lines), lines[-1]["loss"]
        for step, line in enumerate(lines[: len(lines) - len(self.unjudged)], first):
            rate = {"learning_rate": self.learner.learning_rate(step)}
            extra = values if values and step + 1 == self.step else {}
            run.record.add(step + 1, step // self.per_epoch + 1, {**line, **rate, **extra})
        run.record.flush()
        run.progress.update(self.step, (self.step - 1) // self.per_epoch + 1, shown)

    def _save(self, saver: sharded.Saver) -> None:
        learner, data = self.learner.state(), self.examples.state()
        state = {"learner": learner, "data": data, "best": self.best, "unjudged": self.unjudged}
        saver.save(self.step, {**state, "where": self.learner.where()}, self.step == self.total)

    def _is_finished(self) -> bool:
        return self.step >= self.total and not self.unjudged

    def _part(self) -> None:
        """Leave the results, or what it takes to carry on."""
        if self.saver and self.saver.wait() < self.step:  # the last checkpoint failed
            self._save(self.saver)
        run, files = cast(runs.Run, self.run), None
        if self.saver and self._is_finished():
            files = self.learner.files(self.best["weights"], self.settings)
        at = self.step, self.total, self.per_epoch
        devices.in_first(self.world, lambda: run.leave(*at, files, self.best))
