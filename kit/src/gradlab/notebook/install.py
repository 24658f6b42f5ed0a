r"""Installs the project beside what a service brought, which stays as it is.

    PYTHONPATH=vendor/gradlab-VERSION-py3-none-any.whl \
      python -m gradlab.notebook.install [EXTRA ...]

Promises: uses the standard library only, for nothing is installed yet, and so it runs in the
project's wheel of the kit; that kit is the one that is installed afterwards. Whatever else is
there is a constraint for pip, so that no package that a running notebook has loaded is replaced
under it; afterwards every version is compared with the one before. Where the project can't be
installed like that, only what services build upon must stay (`KEPT`), and what moved is named.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

from ..services.origin import VENDOR, is_the_kit_of, wheel

# What notebooks have loaded before their first cell, and what is built for the machine's GPU.
KEPT = re.compile(
    r"(torch\w*|triton|nvidia-.*|numpy|pillow|jax|jaxlib|jax-.*|tensorflow"
    r"|ipython|ipykernel|ipywidgets|jupyter-.*|notebook|tornado|pyzmq|traitlets|google-colab)"
)
# Of PEP 440; what distributions of Linux install has others, which pip refuses to read.
VERSION = re.compile(
    r"(\d+!)?\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9]+([._-][a-z0-9]+)*)?", re.I
)
PIP = ("-m", "pip", "install", "--no-input", "--disable-pip-version-check")
SATISFIED = ("Requirement already satisfied", "WARNING: Running pip as")
REQUIREMENTS = "requirements.txt"
LAST_LINES = 30
Versions = dict[str, str]


def main(extras: list[str]) -> int:
    """Install the project in the current folder, with extras; give the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - for who opens the notebook on an old machine
        print(f"This project needs Python 3.11 or newer; here is {sys.version.split()[0]}.")
        return 1
    from ..services.session import project_name, project_root  # which an older Python can't load

    root = project_root()
    project, before = _normal(project_name(root)), _installed()
    before.pop(project, None)
    kept = {name: version for name, version in before.items() if KEPT.fullmatch(name)}
    print(f"Installing {project} beside {len(before)} packages ...", flush=True)
    _renew_kit(root)
    if failure := _install(extras, before, kept):
        print(
            f"{failure}\n"
            "pip could not install the project beside what is installed; its words are above.\n"
            f"Where they name a requirement, relax it in {REQUIREMENTS} and pyproject.toml: lower "
            "bounds are best."
        )
        return 1
    return _report(before, kept, project)


def _install(extras: list[str], before: Versions, kept: Versions) -> str:
    """Install the project and move nothing, or only what may be moved; give why pip can't."""
    target = ["--editable", "." + f"[{','.join(extras)}]" * bool(extras)]
    target += ["--requirement", REQUIREMENTS] * Path(REQUIREMENTS).is_file()
    target += ["--find-links", VENDOR] * Path(VENDOR).is_dir()
    if not _pip(target, before).returncode or not (done := _pip(target, kept)).returncode:
        return ""
    lines = [line for line in done.stdout.splitlines() if not line.startswith(SATISFIED)]
    return "\n".join(lines[-LAST_LINES:])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed() -> Versions:
    """Give what is installed: of each package the one that Python would import."""
    importlib.invalidate_caches()
    found: Versions = {}
    for package in distributions(path=_places()):
        # A package that was half removed has neither.
        name, version = package.metadata["Name"], package.metadata["Version"]
        if name and version:
            found.setdefault(_normal(name), version)
    return found


def _places() -> list[str]:
    """List where packages are looked for, but for the wheel in which this may run."""
    return [path for path in sys.path if not path.endswith(".whl")]


def _renew_kit(root: Path) -> None:
    """Put the project's kit in the place of another one, which may be of the same version."""
    installed = next(iter(distributions(name="gradlab", path=_places())), None)
    folder = Path(str(installed.locate_file("gradlab"))) if installed else None
    own = wheel(root)
    if own and folder and folder.is_dir() and not is_the_kit_of(own, folder):
        _pip(["--force-reinstall", "--no-deps", str(own)], {})


def _pip(target: list[str], constraints: Versions) -> subprocess.CompletedProcess[str]:
    fixed = {name: version for name, version in constraints.items() if name != "gradlab"}
    readable = {name: v for name, v in fixed.items() if VERSION.fullmatch(v)}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}=={version}\n" for name, version in sorted(readable.items()))
        file.flush()
        command = [sys.executable, *PIP, "--constraint", file.name, *target]
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )


def _report(before: Versions, kept: Versions, project: str) -> int:
    """Say what came and what moved; 1 if something moved that must not."""
    after = _installed()
    came = [f"{name} {after[name]}" for name in sorted(after.keys() - before.keys() - {project})]
    moved = {name: after.get(name) for name in before if after.get(name) != before[name]}
    print(f"Installed {project}" + (f" and, for it, {', '.join(came)}." if came else "."))
    for name, version in moved.items():
        print(f"! {name} {before[name]} became {version or 'nothing'}.")
    if moved.keys() & kept.keys():
        print("That is loaded here already: restart the session, then run all cells again.")
        return 1
    shown = [f"{name} {before[name]}" for name in ("torch", "numpy", "pillow") if name in before]
    stayed = f"{len(before) - len(moved)} of {len(before)}"
    print(f"As it was: {', '.join([*shown, f'{stayed} packages in all'])}.")
    return 0


if __name__ == "__main__":
    from ..base.streams import guarded, prepare

    prepare()
    sys.exit(guarded("gradlab.notebook.install", lambda: main(sys.argv[1:])))
