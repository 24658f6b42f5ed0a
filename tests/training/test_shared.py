"""`gradlab publish`: what lies on the Hub, what goes wrong on the way, and what is said.

Its real client against a stand-in on this machine that keeps state.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from gradlab.base.errors import GradlabError
from gradlab.share import hub as client

from ..lab import Lab
from ..services.bucket import Fault
from ..services.hub import Hub, serve

URL, NAME = "hf://me/digits", "me/digits"
SENT = {"best.safetensors", "model.safetensors", "config.json", "metrics.jsonl", "curves.png"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as found:
        yield found


@pytest.fixture
def lab(cut_off: Lab, lab: Lab, hub: Hub, tmp_path: Path) -> Lab:
    """A run that was cut off, and the Hub."""
    lab.take(cut_off.storage)
    lab.env |= {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_writes"}
    # Xet's own protocol the stand-in does not speak.
    lab.env |= {"HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hf")}
    return lab


def test_a_model_is_shared_with_all_that_it_was_made_from_and_once(lab: Lab, hub: Hub) -> None:
    assert "is cut off at step" in lab.run("gradlab", "publish", URL, "--run", "default", code=2)
    assert not hub.requests, "nothing is asked for what can't be sent"
    lab.train("--save-seconds", "0")
    (lab.folder() / "model.onnx").write_bytes(b"as export.py writes it")
    text = lab.run("gradlab", "publish", URL, "--dry-run")
    laid = Path(text.partition("They lie in ")[2].partition(";")[0])
    assert not hub.requests and {path.name for path in laid.iterdir()} > SENT

    output = lab.run("gradlab", "publish", URL)
    (repository,) = hub.repositories.values()
    assert "Sent in one commit" in output and len(repository.messages) == 1
    files = repository.files
    assert files.keys() == {*SENT, "README.md", "model.onnx"}
    for name in (*SENT, "model.onnx"):
        assert files[name] == (lab.folder() / name).read_bytes(), name
    card = ModelCard(files["README.md"].decode())
    (row,) = json.loads(lab.run("gradlab", "runs", "--json"))
    (result,) = card.data.eval_results or ()
    assert result.metric_value == row["best"] and card.data.library_name == "pytorch"
    times = "once" if row["sessions"] == 2 else f"{row['sessions'] - 1} times"
    assert f"It was cut off {times}" in card.text
    assert lab.sha() in card.text and f"`{row['code']}" in card.text
    assert "| epochs | 6 |" in card.text and "my_model/model.py" in card.text

    hub.requests.clear()
    assert "has all of it already" in lab.run("gradlab", "publish", URL)
    assert len(repository.messages) == 1 and not [r for r in hub.requests if r.startswith("P")]
    (lab.folder() / "model.onnx").unlink()
    lab.run("gradlab", "publish", URL)
    assert "model.onnx" not in repository.files and len(repository.messages) == 2
    assert "hf_writes" not in output + text


def test_killed_while_it_is_sent_nothing_is_seen_of_it(lab: Lab, hub: Hub) -> None:
    lab.train("--save-seconds", "0")
    hub.faults.append(Fault("POST", "/commit/", seconds=0, cut="request", times=1))
    sending = lab.start("gradlab", "publish", URL)
    while not [each for each in hub.requests if each.startswith("PUT")]:
        assert sending.poll() is None, sending.communicate()
        time.sleep(0.001)
    sending.send_signal(signal.SIGKILL)
    sending.communicate()
    assert not hub.repositories[NAME].files
    lab.run("gradlab", "publish", URL)
    assert hub.repositories[NAME].files.keys() > SENT and len(hub.repositories[NAME].messages) == 1


# Of the client itself: in this process, which has loaded it once.


@pytest.fixture
def folder(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(client, "WAITS", (0.01, 0.01))
    monkeypatch.setenv("HF_TOKEN", "hf_writes")
    for name in ("model.safetensors", "README.md"):
        (tmp_path / name).write_text(f"what {name} holds")
    return tmp_path


def bring(folder: Path) -> str:
    names = ("model.safetensors", "README.md")
    return client.Hub(NAME, private=False).bring(folder, names, names, "a run")


REFUSED = {
    401: "HF_TOKEN",
    403: "the role `write`",
    404: "no such repository",
    409: "something else is changing",
    429: "too many requests",
    500: "a failure of its own (500)",
    503: "a failure of its own (503)",
}


@pytest.mark.parametrize("status", REFUSED)
def test_what_is_refused_is_said_in_plain_words(folder: Path, hub: Hub, status: int) -> None:
    hub.faults.append(Fault("POST", "/commit/", status=status))
    with pytest.raises(GradlabError) as refused:
        bring(folder)
    assert REFUSED[status] in str(refused.value) and f"{status}" in str(refused.value)
    assert f"{hub.address}/{NAME} did not take the model" in str(refused.value)
    assert "hf_writes" not in str(refused.value)
    hub.faults.clear()
    assert bring(folder)


@pytest.mark.parametrize("token", ["hf_unknown", "hf_reads", ""])
def test_a_token_that_will_not_do_is_told(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "none"))
    said = {"hf_unknown": "does not know the token", "hf_reads": "may not write", "": "no token"}
    with pytest.raises(GradlabError, match=said[token]):
        bring(folder)
    assert not hub.repositories


@pytest.mark.parametrize("cut", ["request", "answer"])
def test_a_commit_that_was_lost_on_the_way_is_there_once(folder: Path, hub: Hub, cut: str) -> None:
    hub.faults.append(Fault("POST", "/commit/", cut=cut, times=1))
    bring(folder)
    assert len(hub.repositories[NAME].messages) == 1
    assert bring(folder) == ""


def test_what_another_has_changed_meanwhile_is_looked_at_again(folder: Path, hub: Hub) -> None:
    hub.faults.append(Fault("POST", "/commit/", status=412, times=1))
    assert bring(folder)
    assert hub.repositories[NAME].files.keys() == {"model.safetensors", "README.md"}


def test_without_a_network_it_says_so(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(GradlabError, match="can't be reached"):
        bring(folder)
