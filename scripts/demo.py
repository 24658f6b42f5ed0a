"""Generate a project in ./demo, train it and judge it; what is there carries on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo"
PACKAGE = "my_model"
ENOUGH = 0.97


def main() -> int:
    """Run the demonstration; fail where the model is worse than it should be."""
    begun = time.monotonic()
    project = DEMO / PACKAGE
    if project.exists():
        print(f"{project} is there already: carrying on (make clean starts anew).")
    else:
        cookiecutter(str(ROOT), no_input=True, default_config=True, output_dir=str(DEMO))
    generated = time.monotonic()
    run(project, "train")
    trained = time.monotonic()
    run(project, "evaluate")
    folder = project / "storage" / "runs" / "default"
    accuracy = json.loads((folder / "evaluation.json").read_text())["accuracy"]
    print(f"\ntest accuracy  {accuracy:.2%}")
    print(f"model          {folder / 'model.safetensors'}")
    print(f"curves         {folder / 'curves.png'}")
    print(f"metrics        {folder / 'metrics.jsonl'}")
    print(f"time           generate {generated - begun:.1f} s, train {trained - generated:.1f} s")
    return 0 if accuracy >= ENOUGH else 1


def run(project: Path, command: str) -> None:
    """Run a command of the project in its own folder."""
    environment = {**os.environ, "PYTHONPATH": "src"}
    environment.pop("GRADLAB_STORAGE", None)
    subprocess.run(
        [sys.executable, "-m", PACKAGE, command], cwd=project, env=environment, check=True
    )


if __name__ == "__main__":
    sys.exit(main())
