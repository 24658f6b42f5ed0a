"""Keep the licence that was chosen; drop the others and what tools left in the template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

# tojson leaves no single quote in the text, so nothing in it can end the string.
LICENSE: str = json.loads(r'''{{ cookiecutter.license | tojson }}''')  # fmt: skip

# By name: generated over an existing project, nothing that the user put there is touched.
for name in ("Apache-2.0", "BSD-3-Clause", "MIT"):
    path = Path(f"LICENSE.{name}")
    if name == LICENSE:
        path.replace("LICENSE")
    else:
        path.unlink()

for name in ("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"):
    for folder in [Path(name), *Path("src").rglob(name), *Path("tests").rglob(name)]:
        shutil.rmtree(folder, ignore_errors=True)
