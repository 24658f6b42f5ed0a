"""Brings a run from door to door until it is done: begins hops, and judges their ends.

Promises: what lives is adopted, and nothing is begun twice: a hop is noted before it is asked for,
and looked for by its name before it is asked for again. That a hop has succeeded is believed
when the run's own record says so, not for an exit code or a word of the service. Two hops in a
row without progress end it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ...base.errors import GradlabError
from ...run.place import Place
from ..clients.talk import Failure
from . import bootstrap, judge, progress, record
from .doors import KINDS, Doors, seconds
from .judge import Verdict
from .protocol import Door, NoRoom, Seen, Standing, Task
from .record import Hop, Submission

Say = Callable[[str], None]


class Shut(Failure):
    """No door has room now; the same command tries again."""


@dataclass
class Travel:
    """A submission on its way; `secrets` gives them when a hop begins."""

    submission: Submission
    place: Place
    root: Path
    below: str  # the project's folder in its repository
    project: str
    doors: Doors
    secrets: Callable[[], str]
    say: Say

    def advance(self) -> Submission:
        """Do what can be done now; raises Failure, or Shut, with all noted that was done."""
        while self.submission.state == "open":
            hop = self.submission.last
            if hop is None or hop.is_over:
                hop = self._next()
            if hop.state == "asked" and not (hop := self._begin(hop)):
                continue
            verdict = self.judge(hop)
            if verdict is None:
                break
            self._end(hop, verdict)
        return self.submission

    def judge(self, hop: Hop) -> Verdict | None:
        """Say what became of a hop; None while it goes on."""
        task, door = self.task(hop), self.doors[hop.door]
        seen = door.find(task)
        outcome = record.outcome(self.place, task)
        if seen.lives and not outcome:
            return None
        done = progress.finished(self.place)
        printed = ""
        if not outcome and seen.word == "failed":
            with suppress(Failure):  # it only says why
                printed = door.logs(task)
        return judge.by_record(seen, outcome, done not in ("", hop.run_before), printed)

    def stop(self) -> Submission:
        """End what lives, and the submission; what the run has saved stays."""
        hop = self.submission.last
        if hop and not hop.is_over:
            task, door = self.task(hop), self.doors[hop.door]
            door.stop(task)
            door.release(task)
            self._note(replace(hop, state="stopped", ended=record.now(), said="stopped"))
        return self._close("stopped", "stopped by gradlab stop")

    def task(self, hop: Hop) -> Task:
        """Give a hop as its door gets it."""
        kind, limit = KINDS[hop.door], seconds(hop.door, self.submission.hours)
        bag = kind.bag(hop.name)
        text = bootstrap.script(self.submission, hop, self.below, limit, bag, kind.folders)
        return Task(
            hop.name,
            text,
            self.submission.machine,
            limit,
        )

    def _next(self) -> Hop:
        """Note the next hop, at the first door that has room; raises Shut."""
        shut, tried = [], self._refused()
        for name in self.submission.doors:
            if name in tried:
                shut.append(f"{name}: {tried[name]}")
                continue
            try:
                standing = self._standing(name)
            except GradlabError as error:
                if len(self.submission.doors) == 1:
                    raise
                standing = Standing(False, str(error))
            self.say(f"{name}: {standing.said}")
            if standing.room:
                return self._note(self._hop(name))
            shut.append(f"{name}: {standing.said}")
        self._forget_refusals()
        raise Shut(
            "no door has room now; the same command tries again:\n" + "\n".join(shut), fatal=True
        )

    def _standing(self, name: str) -> Standing:
        return self.doors[name].standing(self.submission.machine)

    def _hop(self, door: str) -> Hop:
        number = len(self.submission.hops) + 1
        name = self.submission.next_name(self.project)
        before, ran = progress.measure(self.place), progress.finished(self.place)
        return Hop(number, door, name, began=record.now(), before=before, run_before=ran)

    def _begin(self, hop: Hop) -> Hop | None:
        """Start a hop unless it is there already; None where its door has no room after all."""
        task, door = self.task(hop), self.doors[hop.door]
        seen = door.find(task)
        if seen.word == "absent" and not record.outcome(self.place, task):
            try:
                door.begin(task, self.secrets())
            except NoRoom as error:
                self.say(f"{hop.door}: {error}")
                self._note(replace(hop, state="refused", ended=record.now(), said=str(error)))
                return None
            self._confirm(door, task)
            self.say(f"{hop.door}: {hop.name} has begun")
        else:
            self.say(f"{hop.door}: {hop.name} is there already: {seen.said or seen.word}")
        return self._note(replace(hop, state="running"))

    def _confirm(self, door: Door, task: Task) -> Seen:
        """Believe that a hop has begun only when the service shows it."""
        seen = door.find(task)
        if seen.word == "absent" and not record.outcome(self.place, task):
            raise Failure(
                f"{door.name} took {task.name}, but does not show it: run it again in a minute"
            )
        return seen

    def _end(self, hop: Hop, verdict: Verdict) -> None:
        """Give back what a hop had, note its end, and say what follows."""
        self.doors[hop.door].release(self.task(hop))
        hop = replace(hop, state=verdict.state, ended=record.now(), said=verdict.said)
        self._note(hop)
        self.say(f"{hop.door}: {hop.name} {hop.state}: {hop.said}")
        if verdict.state in ("done", "failed"):
            self._close(verdict.state, verdict.said)
        elif verdict.by_someone:
            self._close("stopped", verdict.said)
        elif not self._has_progressed():
            said = f"two hops in a row made no progress; the last: {hop.said}"
            self._close("failed", said)

    def _has_progressed(self) -> bool:
        """Tell whether one of the last two hops has brought the run on."""
        hops = [hop for hop in self.submission.hops if hop.state != "refused"]
        return len(hops) < 2 or progress.measure(self.place) != hops[-2].before

    def _refused(self) -> dict[str, str]:
        """Give the doors that have refused since the last hop that began, and why."""
        found = {}
        for hop in reversed(self.submission.hops):
            if hop.state != "refused":
                break
            found[hop.door] = hop.said
        return found

    def _forget_refusals(self) -> None:
        hops = self.submission.hops
        while hops and hops[-1].state == "refused":
            hops = hops[:-1]
        if hops != self.submission.hops:
            # The names of those that were refused are not given again.
            self.submission = replace(self.submission, id=record.new_id(), hops=hops)
            record.save(self.submission, self.place)

    def _note(self, hop: Hop) -> Hop:
        self.submission = record.save(self.submission.with_hop(hop), self.place)
        return hop

    def _close(self, state: record.End, said: str) -> Submission:
        closed = replace(self.submission, state=state, said=said)
        self.submission = record.save(closed, self.place)
        return self.submission
