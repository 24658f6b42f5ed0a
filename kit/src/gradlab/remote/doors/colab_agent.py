"""Runs where Google's command line for Colab is installed, and calls its modules for the kit.

The command line itself is not called: it notes keys and code in ~/.config/colab-cli, ends with
exit code 0 on failures, and releases a machine after SIGINT only. See clients/frame.py.

Promises: a hop has one machine, found again by an id that is made of its name; a machine that was
taken, and on which nothing began, is given back, also where the kit has ended.
"""

from __future__ import annotations

import base64
import os
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))

import frame
from frame import Answer

version = frame.version_of("google-colab-cli")
try:
    import requests
    import transport
    from colab_cli import auth
    from colab_cli import client as colab
    from colab_cli.contents import ContentsClient
    from colab_cli.runtime import ColabRuntime
    from colab_cli.state import SessionState
except Exception as error:
    frame.tell({"version": version, "unusable": f"{type(error).__name__}: {error}"})
    sys.exit()

TOP = "content"
READY, TRIES, PAUSE = 60.0, 4, 0.5  # seconds for a kernel to begin, and between two looks
# Keeps the kernel busy, for an idle machine is taken away; then gives the machine back.
BEGIN = """\
import os, subprocess, sys
def _hop():
    try:
        os.close(os.open("/content/{name}.begun", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return print("begun before", flush=True)
    with open("/content/{name}.log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-u", "/content/{name}.py"], cwd="/content",
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    print("begun", flush=True)
    code = str(process.wait())
    with open("/content/{name}.part", "w") as file:
        file.write(code)
    os.rename("/content/{name}.part", "/content/{name}.code")
    try:
        from google.colab import runtime
        runtime.unassign()
    except Exception as error:
        print(error)
_hop()
"""
taken: set[str] = set()  # endpoints on which nothing has begun


def greeting() -> Answer:
    """Say what this is, and whether there is anything to log in with: never asks anybody."""
    transport.carry_everything()
    adc = os.environ.get("GRADLAB_COLAB_AUTH") == "adc"
    there = adc or os.path.exists(auth.TOKEN_CONFIG_PATH)
    return {"version": version, "login": "fine" if there else "missing"}


def answer(request: Answer) -> Answer:
    """Do what a request asks for."""
    try:
        return transport.answered(lambda: frame.method(request, METHODS), lambda said: str(said))
    finally:
        give_back()


def give_back() -> None:
    """Give back machines on which nothing has begun."""
    for endpoint in list(taken):
        try:
            service().unassign(endpoint)
            taken.discard(endpoint)
        except Exception as error:
            print(f"{endpoint} could not be given back: {error}")


def service() -> Any:
    """Give the client, logged in."""
    if not hasattr(service, "client"):
        adc = os.environ.get("GRADLAB_COLAB_AUTH") == "adc"
        provider = auth.AuthProvider.ADC if adc else auth.AuthProvider.OAUTH2
        try:
            credentials = auth.get_credentials(provider=provider)
        except (SystemExit, EOFError):
            raise frame.Unusable("status", "the login is not valid any more", 401) from None
        service.client = colab.Client(colab.Prod(), credentials)  # type: ignore[attr-defined]
    return service.client  # type: ignore[attr-defined]


def usage() -> Answer:
    """Give the balance of units, what is used of them in an hour, and how many machines."""
    found = service().get_consumption_user_info()
    return {
        "balance": found.paid_compute_units_balance,
        "rate": found.consumption_rate_hourly,
        "machines": found.assignments_count,
    }


def known_as(name: str) -> uuid.UUID:
    """Give the id by which Colab knows a hop: that of a notebook."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"gradlab:{name}")


def kind(machine: str) -> dict[str, Any]:
    """Give what a machine is asked for by."""
    if not machine:
        return {"variant": colab.Variant.DEFAULT, "accelerator": colab.Accelerator.NONE}
    accelerator = colab.Accelerator(machine)
    tpu = machine.startswith("V")
    return {"variant": colab.Variant.TPU if tpu else colab.Variant.GPU, "accelerator": accelerator}


def assigned(name: str, machine: str) -> Any:
    """Give the machine of a hop, None if it has none; none is taken."""
    found = service()._get_assignment(known_as(name), **kind(machine))
    return found if isinstance(found, colab.Assignment) else None


def contents(found: Any) -> Any:
    """Give the files of a machine."""
    proxy = found.runtime_proxy_info
    state = SessionState(
        name="gradlab",
        token=proxy.token,
        url=proxy.url,
        endpoint=found.endpoint,
        variant="",
        accelerator="",
    )
    return ContentsClient(state)


def read(files: Any, name: str) -> str | None:
    """Read a file of a machine, None if it isn't there."""
    try:
        found = files._request("GET", f"{TOP}/{name}", params={"content": "1", "type": "file"})
    except FileNotFoundError:
        return None
    text = str(found.get("content") or "")
    if found.get("format") == "base64":
        return base64.b64decode(text).decode("utf-8", "replace")
    return text


def write(files: Any, name: str, text: str) -> None:
    """Write a file on a machine, from memory."""
    data = {
        "name": name,
        "path": f"{TOP}/{name}",
        "type": "file",
        "format": "base64",
        "content": base64.b64encode(text.encode()).decode(),
        "chunk": 1,
    }
    files._request("PUT", data["path"], json_data=data)


def look(name: str, machine: str) -> Answer:
    """Say how a hop stands; nothing where it has no machine."""
    found = assigned(name, machine)
    if found is None:
        return {}
    files = contents(found)
    code = read(files, f"{name}.code")
    if code is not None:
        return {"state": "ended", "code": code.strip()}
    begun = read(files, f"{name}.begun") is not None
    return {"state": "running" if begun else "taken"}


def begin(name: str, machine: str, text: str, bag: str) -> Answer:
    """Take a machine for a hop, or that which it has, and begin it there."""
    try:
        found = service().assign(known_as(name), **kind(machine))
    except colab.TooManyAssignmentsError as error:
        return {"full": str(error)}
    except colab.ColabRequestError as error:
        if error.response.status_code == 400:
            return {"full": f"the account is not entitled to {machine or 'a machine'}"}
        note_taken(name, machine)
        raise
    except BaseException:
        note_taken(name, machine)  # the answer was lost, not the machine
        raise
    taken.add(found.endpoint)
    files = contents(found)
    if read(files, f"{name}.begun") is None:
        got = accelerator_of(found.endpoint)
        if got != (machine or "NONE"):
            return {"full": f"it gives {got} where {machine or 'no GPU'} was asked for"}
        write(files, f"{name}.py", text)
        write(files, f"{name}.bag", bag)
        try:
            run(found, name)
        except Exception:
            # What has begun all the same keeps its machine.
            if read(files, f"{name}.begun") is None:
                raise
    taken.discard(found.endpoint)
    return {"endpoint": found.endpoint}


def note_taken(name: str, machine: str) -> None:
    """Note a machine that a hop has and that nobody was told of, so that it is given back."""
    with suppress(Exception):
        found = assigned(name, machine)
        if found and read(contents(found), f"{name}.begun") is None:
            taken.add(found.endpoint)


def accelerator_of(endpoint: str) -> str:
    """Name what a machine has, for not always it is what was asked for."""
    found = {each.endpoint: each for each in service().list_assignments()}
    return str(found[endpoint].accelerator.value) if endpoint in found else "none"


def run(found: Any, name: str) -> None:
    """Begin a hop in the machine's kernel, and leave that busy; raises where it has not begun.

    What was sent to a kernel that is only starting may be lost, so it is sent again. The connection
    ends with this process: to close it takes the client 10 seconds.
    """
    proxy, files = found.runtime_proxy_info, contents(found)
    headers = {"X-Colab-Runtime-Proxy-Token": proxy.token}
    place = f"{proxy.url.rstrip('/')}/api/kernels"
    there = requests.get(place, headers=headers, params={"colab-runtime-proxy-token": proxy.token})
    there.raise_for_status()
    kernels = [kernel["id"] for kernel in there.json()]
    runtime = ColabRuntime(proxy.url, proxy.token, kernel_id=kernels[0] if kernels else None)
    client = runtime.kernel_client._manager.client
    for _ in range(TRIES):
        client.execute(BEGIN.replace("{name}", name), silent=True)
        end = time.monotonic() + READY / TRIES
        while time.monotonic() < end:
            if read(files, f"{name}.begun") is not None:
                return
            time.sleep(PAUSE)
    raise frame.Unusable("answer", f"the kernel did not begin it within {READY:g} seconds")


def log(name: str, machine: str) -> str:
    """Give what a hop has printed on its machine, as long as it has one."""
    found = assigned(name, machine)
    return "" if found is None else read(contents(found), f"{name}.log") or ""


def unassign(name: str, machine: str) -> None:
    """Give back the machine of a hop, if it has one."""
    if found := assigned(name, machine):
        service().unassign(found.endpoint)


def held() -> list[Answer]:
    """List the account's machines."""
    found = service().list_assignments()
    return [{"endpoint": each.endpoint, "machine": each.accelerator.value} for each in found]


METHODS = {each.__name__: each for each in (usage, look, begin, log, unassign, held)}

if __name__ == "__main__":
    frame.serve(greeting, answer)
    give_back()
    os._exit(0)
