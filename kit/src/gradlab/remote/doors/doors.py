"""The doors by name, each opened once it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ...base.errors import GradlabError
from ...services import limits
from ..clients.environment import Client
from ..clients.talk import Advice, Judge, Talk, connect
from . import colab, huggingface, kaggle
from .protocol import Door

LONGEST = 24.0  # hours, where no limit is known


@dataclass(frozen=True)
class Kind:
    """What makes a door: its client and agent, and what is known of it before it is opened."""

    client: Client
    agent: Path
    advice: Advice
    defect: Judge
    opens: Callable[[Talk], Door]
    service: str  # of the services' table
    refuse_machine: Callable[[str], None]
    bag: Callable[[str], str] = lambda _: ""
    folders: Sequence[str] = ("/tmp",)
    hidden: Sequence[str] = ()


KINDS: Mapping[str, Kind] = {
    "kaggle": Kind(
        kaggle.CLIENT,
        kaggle.AGENT,
        kaggle.ADVICE,
        kaggle.defect,
        kaggle.Kaggle,
        "kaggle",
        kaggle.refuse_machine,
        kaggle.bag,
        kaggle.FOLDERS,
        kaggle.HIDDEN,
    ),
    "colab": Kind(
        colab.CLIENT,
        colab.AGENT,
        colab.ADVICE,
        colab.defect,
        colab.Colab,
        "colab",
        colab.refuse_machine,
        colab.bag,
        colab.FOLDERS,
    ),
    "huggingface": Kind(
        huggingface.CLIENT,
        huggingface.AGENT,
        huggingface.ADVICE,
        huggingface.defect,
        huggingface.HuggingFace,
        "huggingface",
        huggingface.refuse_machine,
    ),
}


def parse(text: str) -> list[str]:
    """Read a list of doors; GradlabError for one that is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names or [""]:
        if name == "gradient":
            raise GradlabError(
                "gradient keeps a run's things itself, so it can't go on elsewhere: --to gradient "
                "alone, or a list of the others"
            )
        if name not in KINDS:
            raise GradlabError(
                f"there is no door {name!r}: --to takes gradient, or {', '.join(KINDS)}"
            )
    return list(dict.fromkeys(names))


def seconds(door: str, hours: float) -> float:
    """Give how long a hop may last: as asked, or else as the services' table says."""
    most = limits.of(KINDS[door].service).hours or LONGEST
    return 3600 * min(hours or most, most)


@dataclass
class Doors:
    """Opens doors, and closes them again at the end."""

    root: Path
    _open: dict[str, Door] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Doors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Door:
        """Open a door; GradlabError where its client is not there."""
        if name not in self._open:
            kind = KINDS[name]
            parts = (kind.client, kind.agent, kind.advice, kind.defect, self.root, kind.hidden)
            self._open[name] = kind.opens(self._stack.enter_context(connect(*parts)))
        return self._open[name]
