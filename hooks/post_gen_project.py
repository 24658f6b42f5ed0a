"""Keep the licence that was chosen; drop the others and what tools left in the template."""

from __future__ import annotations

import os

# tojson leaves no single quote in the text, so nothing in it can end the string. Neither json nor
# pathlib is imported: starting a hook takes longer than what it does.
LICENSE = r'''{{ cookiecutter.license | tojson }}'''.strip('"')  # fmt: skip
CACHES = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}


def caches() -> list[str]:
    """Find the folders that tools made in the template, and nothing of the user's."""
    found = [name for name in CACHES if os.path.isdir(name)]
    for top in ("src", "tests"):
        for folder, names, _ in os.walk(top):
            found += [os.path.join(folder, name) for name in CACHES.intersection(names)]
    return found


# By name: generated over an existing project, nothing that the user put there is touched.
for name in ("Apache-2.0", "BSD-3-Clause", "MIT"):
    if name == LICENSE:
        os.replace(f"LICENSE.{name}", "LICENSE")
    else:
        os.remove(f"LICENSE.{name}")

if found := caches():
    import shutil

    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
