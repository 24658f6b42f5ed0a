"""How far a run is: a bar in a terminal, a plain line now and then everywhere else.

Promises: shows loss, rate, what is left to do and when the session ends; where nothing can be
shown, as on a full disk or a terminal that is gone, the work goes on.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from tqdm import tqdm

from ..base.units import clock


class Progress:
    """The progress of a run from the step it resumes at to its last."""

    def __init__(self, step: int, total: int, ends: float | None, every: float = 10.0) -> None:
        self.total = total
        self.ends = ends
        self.every = every
        self._first = step
        self._begun = self._shown = time.monotonic()
        self._bar = None
        # What shows this one's output may be a terminal where this one's own is none.
        if (sys.stderr and sys.stderr.isatty()) or os.environ.get("GRADLAB_BAR"):
            with suppress(OSError, ValueError):  # the terminal is gone
                self._bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)

    def update(self, step: int, epoch: int, loss: float) -> None:
        """Show the state after a step (from 1) of an epoch (from 1)."""
        with suppress(OSError, ValueError):
            self._show(step, epoch, loss)

    def _show(self, step: int, epoch: int, loss: float) -> None:
        facts = [f"epoch {epoch}", f"loss {loss:.4f}"]
        if self.ends is not None:
            facts.append(f"session ends in {clock(self.ends - time.time())}")
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(facts), refresh=False)
            self._bar.update(step - self._bar.n)
        elif step == self.total or time.monotonic() - self._shown >= self.every:
            self._shown = time.monotonic()
            self.say(" | ".join([f"step {step:,}/{self.total:,}", self._rate(step), *facts]))

    def _rate(self, step: int) -> str:
        rate = (step - self._first) / max(time.monotonic() - self._begun, 1e-9)
        left = clock((self.total - step) / rate) if rate else "?"
        return f"{rate:{'.3g' if rate < 100 else ',.0f'}} steps/s, {left} left"

    def say(self, text: str) -> None:
        """Print a line without breaking the bar."""
        with suppress(OSError, ValueError):
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the bar as it stands."""
        with suppress(OSError, ValueError):
            if self._bar is not None:
                self._bar.close()
