"""After any kills a tracker has each step once, as metrics.jsonl has it; and nobody waits."""

from __future__ import annotations

import os
import random
import socket
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .conftest import Server, Tracked, free_port

KILLS = int(os.environ.get("KILLS", 2))
STEPS = 100  # in a session at most


def wait_for_a_change(tracked: Tracked) -> None:
    """Wait until the tracker's library writes something, or for some seconds."""
    end, before = time.monotonic() + 8, mark(tracked)
    while time.monotonic() < end and mark(tracked) == before:
        time.sleep(0.005)


def mark(tracked: Tracked) -> list[tuple[Path, int]]:
    if tracked.cloud and "WANDB_API_KEY" in tracked.env:
        return [(Path("sent"), sum(map(len, tracked.cloud.history.values())))]
    kept = tracked.folder / "trackers"
    found = [*kept.glob(".mlflow"), *tracked.storage.parent.glob("trackio/*.db*")]
    return [(path, path.stat().st_mtime_ns) for path in [*found, *kept.rglob("*.wandb")]]


@pytest.mark.slow
def test_after_kills_each_step_is_there_once(tracked: Tracked) -> None:
    seed = int(os.environ.get("SEED", time.time_ns() % 1000))
    print(f"seed {seed}")
    moment = random.Random(seed)
    steps = (KILLS + 1) * STEPS
    for number in range(KILLS):
        process = tracked.start(LIMIT=moment.randint(STEPS // 4, STEPS), STEPS=steps)
        if number % 2 == 0:
            wait_for_a_change(tracked)
        time.sleep(moment.uniform(0, 0.5 if number % 2 == 0 else 4))
        tracked.kill(process, alone=moment.random() < 0.3)
    output = tracked.train(STEPS=steps, GRADLAB_TRACKER_SECONDS=60)
    assert "!" not in output
    recorded = tracked.recorded()
    assert [line["step"] for line in recorded] == [*range(1, steps + 1)]
    [shown] = tracked.shown()
    assert shown == recorded


@pytest.fixture
def local(clients: None, tmp_path: Path) -> Tracked:
    return Tracked(tmp_path / "storage", "trackio", {"TRACKIO_DIR": str(tmp_path / "trackio")})


@pytest.fixture
def remote(clients: None, tmp_path: Path) -> Tracked:
    url = f"http://someone:hidden@127.0.0.1:{free_port()}"
    return Tracked(tmp_path / "storage", "mlflow", {"MLFLOW_TRACKING_URI": url})


@pytest.mark.slow
def test_a_server_that_is_down_gets_all_from_the_same_command_later(
    remote: Tracked, server: Server
) -> None:
    output = remote.train()
    assert output.count("! MLflow has not all steps: ") == 1
    assert "the same command sends the rest" in output and "hidden" not in output
    remote.env |= server.env()
    assert "!" not in remote.train(GRADLAB_TRACKER_SECONDS=60)
    [shown] = remote.shown()
    assert shown == remote.recorded()


def test_a_server_that_never_answers_holds_up_nothing(remote: Tracked) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        remote.env["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        output = remote.train(GRADLAB_TRACKER_SECONDS=1)
    assert "! MLflow has not all steps yet: the same command sends the rest." in output
    assert time.monotonic() - begun < 30, "it waited for a minute's worth of retries"


def test_steps_that_are_done_otherwise_again_get_a_run_of_their_own(local: Tracked) -> None:
    local.train(STOP=1, LIMIT=60)
    [before] = local.shown()
    for path in sorted((local.folder / "checkpoints").glob("*.safetensors"))[1:]:
        path.write_bytes(b"damaged")
    assert "can't take back" in local.train(OTHER="0.5")
    shown = local.shown()
    assert before in shown and local.recorded() in shown and len(shown) == 2


def test_a_run_that_starts_over_is_another_run(local: Tracked) -> None:
    local.train(STEPS=40)
    local.train(STEPS=40, FRESH=1)
    assert local.shown() == [local.recorded()] * 2


def test_what_another_machine_finds_in_the_storage_tells_it_the_run(local: Tracked) -> None:
    scratch = local.storage.with_name("scratch")
    local.env |= {"GRADLAB_STORAGE_SLOW": "1", "GRADLAB_SCRATCH": str(scratch)}
    local.train(STOP=1, LIMIT=60)
    scratch.rename(scratch.with_name("lost"))
    local.train()
    assert local.shown() == [local.recorded()]


def test_tensorboard_has_all_steps_once_it_is_wanted_again(local: Tracked) -> None:
    local.tracker = "tensorboard"
    local.train(STOP=1, LIMIT=40)
    local.tracker = "none"
    local.train(STOP=1, LIMIT=40)
    local.tracker = "tensorboard"
    local.train(STEPS=120)
    events = EventAccumulator(str(local.folder / "tensorboard")).Reload()
    assert [each.step for each in events.Scalars("loss")] == [*range(1, 121)]
