"""Drop what tools left in the template, where it is generated from a folder that is worked in."""

import os

CACHES = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}


def caches() -> list[str]:
    """Find the folders that tools made in the template, and nothing of the user's."""
    found = [name for name in CACHES if os.path.isdir(name)]
    for top in ("src", "tests"):
        for folder, names, _ in os.walk(top):
            found += [os.path.join(folder, name) for name in CACHES.intersection(names)]
    return found


if found := caches():
    import shutil  # here, for starting a hook takes longer than what it does

    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
