"""What generation takes, against a plain template of the same files, and a fresh project's tests.

    python benchmarks/generation.py [--rounds 9]

The plain template holds what ours generates, byte for byte but for what Jinja would read, and asks
as many questions; as the well-known templates do, it has two hooks, which do nothing. What is
compared is the processor time of the whole command, Python's start included, in turn with the
other's, because a busy machine alters that least.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[1]
SLUG = "{{cookiecutter.project_slug}}"
RAW = (".py", ".whl")
TARGET = 1.15
TARGET_SECONDS = 20


def main() -> None:
    """Measure, and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="timings of each kind")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = committed(folder / "ours")
        plain = plain_template(folder / "plain", generated(ours, folder / "once"))
        pairs = [(seconds(ours, folder), seconds(plain, folder)) for _ in range(rounds)]
        ratio = statistics.median(own / other for own, other in pairs)
        own, other = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(f"generation: {own:.2f} s, a plain template of the same files {other:.2f} s")
        print(f"ratio {ratio:.2f}x <= {TARGET}x: {verdict(ratio <= TARGET)}")
        fresh = from_nothing(ours, folder / "fresh")
        print(f"from nothing to a fresh project's green tests: {fresh:.1f} s, ", end="")
        print(f"target {TARGET_SECONDS} s: {verdict(fresh <= TARGET_SECONDS)}")


def verdict(met: bool) -> str:
    """Say whether a target is met."""
    return "met" if met else "NOT MET"


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


def generated(template: Path, place: Path) -> Path:
    """Run cookiecutter as a user does, without its questions."""
    options = ["--no-input", "--default-config", "--output-dir", str(place)]
    command = [sys.executable, "-m", "cookiecutter", str(template), *options]
    subprocess.run(command, check=True)
    return next(place.iterdir())


def seconds(template: Path, folder: Path) -> float:
    """Take the processor time of one generation, its hooks included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    generated(template, folder / "made")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    shutil.rmtree(folder / "made")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def from_nothing(template: Path, place: Path) -> float:
    """Time generation and the fresh project's own fast tests, where torch is installed."""
    began = time.perf_counter()
    project = generated(template, place)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=project, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
