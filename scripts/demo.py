"""Generate a project in ./demo and run its train workflow; what is there carries on.

python scripts/demo.py FRAMEWORK
"""

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
    """Run it all; fail where the model is worse than it should be."""
    begun, framework = time.monotonic(), sys.argv[1]
    project = DEMO / framework / PACKAGE
    if project.exists():
        print(f"{project} is there already: carrying on (make clean starts anew).")
    else:
        answers = {"framework": framework}
        options = {"extra_context": answers, "output_dir": str(project.parent)}
        cookiecutter(str(ROOT), no_input=True, default_config=True, **options)
    generated = time.monotonic()
    run(project, "run", "train")
    trained = time.monotonic()
    print("\ndatasets")
    run(project, "datasets")
    storage = project / "storage"
    entry = max((storage / "models" / PACKAGE).glob("*.json"), key=lambda p: p.stat().st_mtime)
    model = json.loads(entry.read_text())
    accuracy = model["metrics"]["accuracy"]
    folder = storage / "datasets" / model["model"].split()[-1].replace(":", "/") / "data"
    print(f"\nmodel          {model['name']} {model['id']}, {accuracy:.2%} right on the test split")
    for name in ("best.safetensors", "curves.png", "confusion_matrix.png"):
        print(f"               {folder / name}")
    print(f"metrics        in the dataset {PACKAGE}-run: runs/train/metrics.jsonl")
    # Written by make when it has installed all that this needs.
    stamp = Path(sys.prefix, f".{framework}")
    installed = f"install {stamp.read_text().strip()} s (once), " if stamp.exists() else ""
    made, ran = generated - begun, trained - generated
    print(f"time           {installed}generate {made:.1f} s, workflow {ran:.1f} s")
    return 0 if accuracy >= ENOUGH else 1


def run(project: Path, *command: str) -> None:
    """Run gradlab in the project's own folder."""
    # With TensorFlow, which may be set too, 1.8 GB more would have been installed.
    environment = {"KERAS_BACKEND": "jax", **os.environ}
    environment.pop("GRADLAB_STORAGE", None)
    subprocess.run(
        [sys.executable, "-m", "gradlab", *command], cwd=project, env=environment, check=True
    )


if __name__ == "__main__":
    sys.exit(main())
