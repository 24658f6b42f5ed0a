"""What is about to be removed, shown with its size, and the question whether to do it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..base.errors import GradlabError
from ..base.locks import Held
from ..base.tables import columns
from ..base.units import human
from ..store.location import Location
from ..store.shared import Keyed

YES = ("y", "yes")


def show(place: Location, rows: Sequence[tuple[str, str, int]]) -> None:
    """Print what would go: what it is, where it lies, its size in bytes; then the sum."""
    lines = [(what, where.removeprefix(f"{place.backend}/"), human(n)) for what, where, n in rows]
    print(f"In {place.backend} would go:")
    print("\n".join(f"  {line}" for line in columns(lines)))
    print(f"{len(rows)} in all, {human(sum(size for *_, size in rows))}", flush=True)


def confirmed(yes: bool) -> bool:
    """Ask whether to remove that; GradlabError where nobody can be asked, unless `yes` says it."""
    if yes:
        return True
    if not sys.stdin or not sys.stdin.isatty():
        raise GradlabError("nothing was removed, for nobody can be asked here: --yes says it")
    try:
        answer = input("Remove that? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() in YES:
        return True
    print("Nothing was removed.")
    return False


@contextmanager
def alone(place: Location) -> Iterator[None]:
    """Be the only one that removes things from a storage; GradlabError while another one does."""
    with Keyed(place.backend, place.work, place.work / ".clean.lock", "clean").lock() as lock:
        try:
            with lock.as_far_as_there_are_locks():
                lock.take()
        except Held as held:
            raise GradlabError(
                f"another process removes things from {place.backend}: {held}. Wait for its end"
            ) from None
        yield
