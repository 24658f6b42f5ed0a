"""The card of a model: what it is, how well it does, what it was made from and how.

Promises: the same run gives the same text, so that nothing is sent again for want of a change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..base.files import digest, read_bytes, sha256
from ..base.tables import flat
from ..inventory.trainings import Training
from ..train import learned
from ..train.curves import spelled

LIBRARIES = {"pytorch": "pytorch", "jax": "flax", "keras": "keras"}
SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#])")


def text(run: Training, project: str, framework: str, folder: Path, names: list[str]) -> str:
    """Give the card, its metadata at the top, of a run whose files are laid out in a folder."""
    evaluation = _evaluation(folder) if "evaluation.json" in names else {}
    parts = [
        f"---\n{_metadata(run, project, framework, evaluation)}\n---\n",
        f"# {_plain(project)}: {_plain(run.name)}\n",
        *_measured(run, evaluation),
        *(["![Curves](curves.png)\n"] if "curves.png" in names else []),
        *_trained(run),
        *_settings(run),
        *_files(folder, names),
    ]
    return "\n".join(parts)


def _metadata(run: Training, project: str, framework: str, evaluation: Mapping[str, float]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    said, split = run.summary, "test" if evaluation else "validation"
    own = {said.metric.removeprefix("val_"): said.best} if said.best is not None else {}
    results = [
        EvalResult(
            task_type="other",
            dataset_type=project,
            dataset_name=f"{project}, {split}",
            metric_type=name,
            metric_value=value,
        )
        for name, value in (evaluation or own).items()
    ]
    data = ModelCardData(
        library_name=LIBRARIES.get(framework, framework),
        tags=["gradlab", framework],
        model_name=f"{project}-{run.name}" if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _evaluation(folder: Path) -> dict[str, float]:
    found = json.loads(read_bytes(folder / "evaluation.json"))
    numbers = {k: v for k, v in found.items() if isinstance(v, int | float)}
    return {name: value for name, value in numbers.items() if name != "examples"}


def _measured(run: Training, evaluation: Mapping[str, float]) -> Iterator[str]:
    said = run.summary
    yield "## How well it does\n\n| measure | value |\n|---|---|"
    if said.best is not None:
        name = _plain(spelled(said.metric))
        yield f"| best {name}, at step {said.best_step:,} | {said.best:.6g} |"
    if said.last is not None:
        yield f"| last {_plain(spelled(said.metric))} | {said.last:.6g} |"
    for name, value in evaluation.items():
        yield f"| test {_plain(name.replace('_', ' '))} | {value:.6g} |"
    yield ""


def _trained(run: Training) -> Iterator[str]:
    said, record = run.summary, learned.of(run.summary.settings)
    yield "## How it was trained\n"
    yield f"In {said.step:,} steps.{_cut_off(said.sessions)}\n"
    if examples := said.settings.get("training_examples"):
        yield f"It has learned from {examples:,} examples.\n"
    yield "| after step | by code | from datasets |\n|---|---|---|"
    for entry in record:
        data = ", ".join(f"`{each}`" for each in entry.get("data", ())) or "what the code brings"
        yield f"| {entry['after_step']:,} | `{_digest(entry['code'])}` | {data} |"
    yield "\nDigests are SHA-256, those of the code of the digests of its files:\n"
    for name, sha in (record[-1]["code"] if record else {}).items():
        yield f"- `{name}` `{sha}`"
    yield ""


def _cut_off(sessions: int) -> str:
    """Say how often a run was cut off."""
    if not sessions:
        return ""
    if sessions == 1:
        return " It was never cut off."
    times = "once" if sessions == 2 else f"{sessions - 1} times"
    return (
        f" It was cut off {times} and carried on from its last checkpoint, which ends with the "
        "same bytes as a run that was never cut off."
    )


def _settings(run: Training) -> Iterator[str]:
    own = {
        name: v for name, v in run.summary.settings.items() if name not in (learned.RECORD, "code")
    }
    yield "## Settings\n\n| setting | value |\n|---|---|"
    for name, value in flat(own).items():
        yield f"| {_plain(name)} | {_plain(json.dumps(value))} |"
    yield ""


def _files(folder: Path, names: list[str]) -> Iterator[str]:
    yield "## Files\n\n| file | SHA-256 |\n|---|---|"
    for name in names:
        yield f"| {_plain(name)} | `{sha256(folder / name)}` |"
    yield ""


def _digest(code: Any) -> str:
    return digest(json.dumps(code, sort_keys=True).encode())


def _plain(value: str) -> str:
    """Take from a text what Markdown and HTML would heed."""
    return SPECIAL.sub(r"\\\1", " ".join(str(value).split()))
