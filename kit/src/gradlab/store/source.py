"""The code that decides a run's result, as digests of its files.

Promises: comments, docstrings and formatting are no change, in any version of Python, and what
training never reaches is none of it. What can't be read is a GradlabError, for it is not absent.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..base import files
from ..base.errors import GradlabError

KIT = Path(__file__).parents[1]  # wherever it is installed
TRAIN = KIT / "train"
DECIDING = ("keyed.py", "streams.py", "devices.py")  # of it, what alters a result in any framework
FRAMEWORKS = ("torch", "jax", "keras")
OBSERVING = ("profiler.py",)
LARGEST = 1 << 20  # bytes: a larger file is data, which the examples tell
LEFT_OUT = (".pyc", ".md", ".ipynb", ".orig", ".rej", ".bak", ".log")  # by editors and others
Code = dict[str, str]


def code(package: Path, module: str = "train") -> Code:
    """Give a digest for each file of a package's folder that can decide what a module does.

    That is all but what only the other commands use, and beside the package what it imports.
    """
    top = package.parent
    with _readable():
        reached = set(_reached(top, package / f"{module}.py"))
        others = set(_reached(top, package / "__main__.py")) - reached
        inside = {path for path in _below(package) if _counts(path, package)} - others
        kit = {path for path in reached if path.is_relative_to(KIT)}
        found = {_name(p, top).as_posix(): p for p in (inside | reached) - kit | _deciding(kit)}
        return {name: digest(found[name]) for name in sorted(found)}


def model_code(package: Path) -> Code:
    """Give the digests of what decides how a saved model computes."""
    top = package.parent
    with _readable():
        found = _reached(top, package / "model.py")
        reached = {_name(path, top).as_posix(): path for path in found}
        # Not its settings' defaults: the run's own settings are kept with the model.
        kept = {n for n in reached if not n.startswith("gradlab/") and not n.endswith("/config.py")}
        return {name: digest(reached[name]) for name in sorted(kept)}


def changed(then: Code, now: Code) -> list[str]:
    """Say which files differ, a line for each."""
    words = [(name, "has changed") for name in then.keys() & now.keys() if then[name] != now[name]]
    words += [(name, "is gone") for name in then.keys() - now.keys()]
    words += [(name, "is new") for name in now.keys() - then.keys()]
    return [f"{_shown(name)} {word}" for name, word in sorted(words)]


def _shown(name: str) -> str:
    return name if name.startswith("gradlab/") else f"src/{name}"


def _name(path: Path, top: Path) -> Path:
    """Name a file from the folder that holds the project's packages, or the kit."""
    return path.relative_to(KIT.parent if path.is_relative_to(KIT) else top)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GradlabError(
            f"{error.filename} can't be read ({error.strerror}), so nobody knows by which code a "
            "model is trained.\nMend that, or take it out of the package's folder."
        ) from error


def _below(folder: Path) -> Iterator[Path]:
    """Give all files below a folder; OSError where one of the folders can't be listed."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(place, name) for name in names)


def _counts(path: Path, package: Path) -> bool:
    parts = path.relative_to(package).parts
    if path.suffix in LEFT_OUT or path.name.endswith("~"):
        return False
    # Jupyter keeps copies of what it edits in .ipynb_checkpoints, Emacs in #name#.
    if any(part.startswith((".", "#")) for part in parts):
        return False
    return path.is_file() and (path.suffix == ".py" or path.stat().st_size <= LARGEST)


def _deciding(imported: set[Path]) -> set[Path]:
    """Give the files of the kit that alter a result, by those of it that a package imports."""
    names = DECIDING if any(path.is_relative_to(TRAIN) for path in imported) else ()
    folders = [TRAIN / name for name in FRAMEWORKS if TRAIN / name / "__init__.py" in imported]
    of_frameworks = {path for folder in folders for path in folder.glob("*.py")}
    return {TRAIN / name for name in names} | {
        path for path in of_frameworks if path.name not in OBSERVING
    }


def _reached(top: Path, start: Path) -> Iterator[Path]:
    """Give a file and all below `top` that it imports, directly or not, and those of the kit.

    What the kit itself imports is not looked for: that takes longer than all the rest.
    """
    # Beside an installed package lie those of everyone else.
    installed = top.name in ("site-packages", "dist-packages")
    own = start.parent if installed else top
    seen, waiting = set[Path](), [start]
    while waiting:
        path = waiting.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        yield path
        if path.is_relative_to(KIT):
            continue
        if path.suffix == ".py" and (tree := _parse(files.read_bytes(path))):
            for name in _imports(tree, _name(path, top)):
                parts = name.split(".")
                file = (KIT.parent if parts[0] == "gradlab" else top).joinpath(*parts)
                if file.is_relative_to(KIT) or file.is_relative_to(own):
                    waiting += [file.with_suffix(".py"), file / "__init__.py"]


def _imports(tree: ast.AST, path: Path) -> Iterator[str]:
    """Give the dotted names that a module may import, its packages and what it takes of them."""
    for node in _statements(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = path.parts[: -node.level] if node.level else ()
            base = [*above, *filter(None, (node.module or "").split("."))]
            names = [".".join([*base, alias.name]) for alias in node.names]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:n]) for n in range(1, len(parts) + 1))


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Give all statements of a module, at any depth; their expressions, most of it, hold none."""
    for place in ("body", "orelse", "finalbody", "handlers", "cases"):
        for node in getattr(tree, place, ()):
            yield node
            yield from _statements(node)


@functools.lru_cache(maxsize=64)  # it is needed for the imports, and for the digest
def _parse(content: bytes) -> ast.AST | None:
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return None


def digest(path: Path) -> str:
    """Give a digest of a file; of Python's, of what it does."""
    content = files.read_bytes(path)
    tree = _parse(content) if path.suffix == ".py" else None
    with suppress(RecursionError):
        content = repr(_plain(tree)).encode() if tree else content
    return hashlib.sha256(content).hexdigest()[:16]


def _plain(node: Any) -> Any:
    """Give a syntax tree as tuples: without places, and equal for all versions of Python."""
    if isinstance(node, list):
        # A text that stands alone is a docstring, and does nothing.
        kept = [
            n for n in node if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
        ]
        return tuple(map(_plain, kept))
    if not isinstance(node, ast.AST):
        return node
    fields = [(name, _plain(value)) for name, value in ast.iter_fields(node)]
    # Newer versions have more fields, which are empty where the older ones have none.
    return (type(node).__name__, *(f for f in fields if f[1] is not None and f[1] != ()))
