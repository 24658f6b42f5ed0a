"""Keep the licence that was chosen; drop the others and what tools left in the template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

# tojson leaves no single quote in the text, so nothing in it can end the string.
LICENSE: str = json.loads(r'''{{ cookiecutter.license | tojson }}''')  # fmt: skip

for path in Path().glob("LICENSE.*"):
    if path.name == f"LICENSE.{LICENSE}":
        path.rename("LICENSE")
    else:
        path.unlink()

for pattern in ("__pycache__", ".*_cache"):
    for folder in list(Path().rglob(pattern)):
        shutil.rmtree(folder)
