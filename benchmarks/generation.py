"""What generation takes, against a plain template of the same files, and a fresh project's tests.

    python benchmarks/generation.py [--rounds 15]

The plain template holds what ours generates, byte for byte but for what Jinja would read, and asks
as many questions; as the well-known templates do, it has two hooks, which do nothing. What is
compared is the processor time of the whole command, Python's start included.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from measure import Row, alone, interleaved, processor, ratio, seconds
from ours import TEMPLATE, generated

ROUNDS = 15
SLUG = "{{cookiecutter.project_slug}}"
RAW = (".py", ".whl")


def rows(rounds: int) -> Iterator[Row]:
    """Measure generation, and a fresh project's tests."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = committed(folder / "ours")
        plain = plain_template(folder / "plain", generated(template, folder / "once"))
        kinds = {
            "ours": lambda: cost(template, folder),
            "plain": lambda: cost(plain, folder),
        }
        times = interleaved("generation", kinds, rounds)
        base = "a plain template of its files"
        yield ratio("generating a project", base, times, ("ours", "plain"), 1.1)
        fresh = from_nothing(template, folder / "fresh")
        yield seconds("from nothing to a project's green tests", "", [fresh], 20)


def committed(place: Path) -> Path:
    """Copy the template as a clone has it: without caches, which would be generated too."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=TEMPLATE, check=True, capture_output=True, text=True)
    for name in listed.stdout.split("\0"):
        if name and (TEMPLATE / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TEMPLATE / name, place / name)
    return place


def plain_template(place: Path, project: Path) -> Path:
    """Make a template of a project's files, with eight questions and two hooks."""
    shutil.copytree(project, place / SLUG)
    for path in (place / SLUG).rglob("*"):
        if path.is_file() and path.suffix not in RAW:
            text = path.read_text("utf-8")
            path.write_text(text.replace("{{", "((").replace("{%", "(%").replace("{#", "(#"))
    (place / "hooks").mkdir()
    for name in ("pre_gen_project.py", "post_gen_project.py"):
        (place / "hooks" / name).touch()
    questions = {"project_slug": project.name, **{f"question_{n}": "answer" for n in range(7)}}
    raw = {"_copy_without_render": [f"*{suffix}" for suffix in RAW]}
    (place / "cookiecutter.json").write_text(json.dumps(questions | raw))
    return place


def cost(template: Path, folder: Path) -> float:
    """Take the processor time of one generation, its hooks included."""
    took = processor(lambda: generated(template, folder / "made"))
    shutil.rmtree(folder / "made")
    return took


def from_nothing(template: Path, place: Path) -> float:
    """Time generation and the fresh project's own fast tests, where torch is installed."""
    began = time.perf_counter()
    project = generated(template, place)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=project, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    alone(__doc__, rows, ROUNDS)
