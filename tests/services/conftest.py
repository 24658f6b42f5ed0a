"""The services, for tests of what runs on them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cloud import Cloud
from .gitserver import Server
from .machines import Machines, missing


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """What Google keeps for a user who has nothing there yet."""
    return Cloud(tmp_path / "google")


@pytest.fixture
def machines(request: pytest.FixtureRequest) -> Iterator[Machines]:
    """A maker of machines, which die with the test; skips where there can be none."""
    if reason := missing():
        pytest.skip(reason)
    assert request.config.cache is not None
    with tempfile.TemporaryDirectory(prefix="shared-") as shared:
        made = Machines(request.config.cache.mkdir("kernels"), Path(shared))
        yield made
        made.end()


@pytest.fixture
def server(machines: Machines) -> Iterator[Server]:
    """A git server, whose repositories can be cloned by path from every machine too."""
    with Server(machines.shared / "git") as running:
        yield running
