"""What a run has learned from: the code and the datasets that made each of its steps.

Promises: the same code and data give the same record on any machine. What has changed since is
told, a line for each thing. A default that was edited is a change of the code; another value that
was given is another setting, which a run refuses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..base.errors import GradlabError, note
from ..base.tables import flat, row
from ..services import session
from ..store import source
from . import examples, inputs
from .learned import RECORD, of

EXAMPLES = "training_examples"  # in a run's settings: how many there are
TITLES = ("setting", "then", "now")
State = dict[str, Any]
Config = TypeVar("Config")


class Options(Protocol):
    """What was asked for where code or data may have changed."""

    strict: bool
    accept_changes: bool


@dataclass
class Sources:
    """What decides what a training learns.

    `defaults` are the settings of no option at all, `began` those of when the run began.
    """

    settings: State
    defaults: State
    code: source.Code
    data: dict[str, str]
    seen: examples.Seen
    began: State
    changed: list[str] = field(default_factory=list)  # since a run was saved that goes on

    @classmethod
    def now(
        cls,
        config: Any,
        told: State,
        package: Path,
        seen: examples.Seen,
        given: Mapping[str, Any],
    ) -> Sources:
        """Look at what there is now; `told` are the settings that no option gives.

        Those that are `given` have no default, so that no change of one is a change of the code.
        """
        settings, defaults = ({**each.settings(), **told} for each in (config, type(config)()))
        settings.update(given)
        return cls(settings, defaults, source.code(package), inputs.digests(), seen, defaults)

    def of_run(self, saved: State | None) -> State:
        """Give the settings of a run, its record among them, that goes on from what it saved."""
        if saved and saved["finished"]:
            return dict(saved["settings"])
        step = saved["step"] if saved else 0
        record = [e for e in of(saved["settings"]) if e["after_step"] < step] if saved else []
        data = sorted(self.data.values())  # not by their names, which a job may choose
        if not record or self._differences(record[-1]):
            record += [{"after_step": step, "code": self.code, "data": data}]
        return {**self.settings, RECORD: record}

    def state(self) -> State:
        """Give what a checkpoint keeps to compare with, beside the settings."""
        return {"data": self.seen, "defaults": self.defaults, "began": self.began}

    def go_on(self, saved: State, kept: str, options: Options) -> bool:
        """Tell whether a run goes on with what has changed since, by the settings that it has.

        False where it was finished by other code or data. Raises GradlabError where other settings
        are given, and for any change that is not to be, or can't be.
        """
        self._refuse_others(saved, kept)
        self.changed = self._changed(saved)
        accept = options.accept_changes or os.environ.get("GRADLAB_ACCEPT_CHANGES")
        anew = bool(self.changed) and saved["finished"] and not (accept or options.strict)
        if not self.changed:
            self.seen = saved.get("data", {})  # the same, but for rounding
        else:
            self._tell(saved, kept, anew, options.strict)
        if anew:
            return False
        self.settings = _merged(self.settings, saved["settings"])
        self.began = saved.get("began", self.began)
        return True

    def _tell(self, saved: State, kept: str, anew: bool, strict: bool) -> None:
        lines = "\n".join(f"    {line}" for line in self.changed)
        message = f"The run in {kept} was trained by other code or data:\n{lines}\n"
        resized = saved["settings"].get(EXAMPLES) != self.settings.get(EXAMPLES)
        if strict or (resized and not anew):
            why = "--strict asks for that" if strict else "its steps have another order"
            raise GradlabError(
                f"{message}It does not go on: {why}.\n"
                f"Put them back as they were, or {session.ways_to_start_over()}."
            )
        if anew:
            way = session.way_to_accept()
            what = f"It is trained anew, and the earlier one kept: {way} takes it as it is."
        elif saved["finished"]:
            what = "It is taken as it is, as asked for."
        else:
            what = (
                f"It goes on from step {saved['step']:,} with what is there now, by the settings "
                "that it began with; its model lists which code made which steps.\n"
                f"! If you don't want that: {session.ways_to_start_over()}."
            )
        note(f"! {message}! {what}")

    def _changed(self, saved: State) -> list[str]:
        record = of(saved["settings"])
        if not record:
            note("! Saved by an earlier version, which did not note its code: taken as the same.")
            return []
        old, new = flat(saved.get("defaults", self.defaults)), flat(self.defaults)
        defaults = [
            f"the default of {name} is {new[name]}, {old[name]} before"
            for name in old.keys() & new.keys() - {EXAMPLES}
            if old[name] != new[name] and self._is_default(name, saved)
        ]
        seen = examples.changed(saved.get("data", {}), self.seen)
        return [*sorted(defaults), *self._differences(record[-1]), *seen]

    def _differences(self, then: State) -> list[str]:
        others = [name for name, digest in self.data.items() if digest not in then["data"]]
        gone = len(set(then["data"]) - {*self.data.values()}) - len(others)
        lines = [f"the dataset {name} is another one" for name in others]
        lines += ["a dataset is not read any more"] * (gone > 0)
        return source.changed(then["code"], self.code) + lines

    def _refuse_others(self, saved: State, kept: str) -> None:
        rows = [each for each in self._differing(saved) if not self._is_default(each[0], saved)]
        if rows:
            widths = (max(len(name) for name, *_ in [*rows, TITLES]), 14, 0)
            table = "\n".join(f"    {row(each, widths)}" for each in [TITLES, *rows])
            raise GradlabError(
                f"The run in {kept} was begun with other settings:\n{table}\n"
                f"Give them as then, or {session.ways_to_start_over()}."
            )

    def _differing(self, saved: State) -> list[tuple[str, Any, Any]]:
        """Give the settings that differ from those of a run: name, then, now."""
        old, new = flat(_own(saved["settings"])), flat(_own(self.settings))
        names = [name for name in old | new if old.get(name) != new.get(name)]
        return [(name, old.get(name, "-"), new.get(name, "-")) for name in names]

    def _is_default(self, name: str, saved: State) -> bool:
        """Tell whether a setting is the default, now as then."""
        # Versions before did not keep theirs: then it can't be told.
        pairs = (saved["settings"], saved.get("began")), (self.settings, self.defaults)
        return all(
            defaults is not None and flat(own).get(name) == flat(defaults).get(name)
            for own, defaults in pairs
        )


def _own(settings: State) -> State:
    return {n: value for n, value in settings.items() if n not in (RECORD, EXAMPLES, "code")}


def _merged(now: State, then: State) -> State:
    """Give the settings of then, as far as there still are such."""

    def kept(name: str, value: Any) -> Any:
        own = then.get(name, value)
        return _merged(value, own) if isinstance(value, dict) else own

    return {name: kept(name, value) for name, value in now.items()}


def adopt(config: Config, settings: State) -> Config:
    """Give a configuration the settings of a run that goes on, and give it back."""
    for each in fields(config) if is_dataclass(config) else ():
        if each.name in settings:
            value, then = getattr(config, each.name), settings[each.name]
            setattr(config, each.name, adopt(value, then) if is_dataclass(value) else then)
    return config


@contextmanager
def fitting(changed: Sequence[str]) -> Iterator[None]:
    """Say of what a run has saved, where it can't be taken up, that changed code may be why."""
    try:
        yield
    except GradlabError:
        raise
    # What code that was edited makes of a state that it doesn't know, nobody knows.
    except Exception as error:
        if not changed:
            raise
        lines = "\n".join(f"    {line}" for line in changed)
        raise GradlabError(
            f"What the run has saved does not fit the code as it is now: "
            f"{type(error).__name__}: {error}\n{lines}\n"
            f"Put it back as it was, or {session.ways_to_start_over()}."
        ) from error


def compare_model(settings: State, package: Path, model: Path, accept: bool) -> None:
    """Compare the code that trained a model with the package's code now.

    Raises GradlabError where the model itself computes otherwise, unless `accept`; says so where
    only its training would, and where several versions of the code have trained it.
    """
    record = of(settings)
    if not record:
        return
    code = record[-1]["code"]
    changed, own = source.changed(code, source.code(package)), source.model_code(package)
    then = {name: digest for name, digest in code.items() if name in own}
    if lines := [f"    {line}" for line in source.changed(then, own)]:
        message = f"{model} was trained by other code of the model:\n" + "\n".join(lines)
        if not (accept or os.environ.get("GRADLAB_ACCEPT_CHANGES")):
            raise GradlabError(
                f"{message}\nPut it back as it was, or train anew. Where the model computes the "
                f"same all the same, {session.way_to_accept()} takes it."
            )
    if changed:
        note(f"! Since {model} was trained, {', '.join(changed)}.")
    for before, after in pairwise(record):
        what = ", ".join(source.changed(before["code"], after["code"])) or "other data"
        step = f"{after['after_step']:,}"
        note(f"! {model} was trained up to step {step} by other code or data: {what}.")
