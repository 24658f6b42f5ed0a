"""Runs where Hugging Face's client is installed, and calls it for the kit: see clients/frame.py.

Promises: every request ends in time; secrets go as those of a job, which its environment has.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))

import frame
from frame import Answer

version = frame.version_of("huggingface_hub")
try:
    import httpx2 as httpx
    import huggingface_hub as hub
    from huggingface_hub.errors import HfHubHTTPError
except Exception as error:
    frame.tell({"version": version, "unusable": f"{type(error).__name__}: {error}"})
    sys.exit()

LABEL = "gradlab"
WHOLE = 10 * frame.WHOLE  # seconds for all requests that one asks for


def greeting() -> Answer:
    """Say what this is, and whether there is a token."""
    hub.set_client_factory(lambda: httpx.Client(timeout=frame.TIMEOUT, follow_redirects=True))
    return {"version": version, "login": "fine" if hub.get_token() else "missing"}


def answer(request: Answer) -> Answer:
    """Do what a request asks for."""
    try:
        with frame.limited(WHOLE):
            return {"result": frame.method(request, METHODS)}
    except frame.Unusable as error:
        return error.answer()
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        words = str(error.server_message or error)
        return {"failure": "status", "status": status, "words": words}
    except httpx.TimeoutException:
        return {"failure": "timeout", "words": f"no answer within {frame.TIMEOUT:g} seconds"}
    except httpx.TransportError as error:
        return {"failure": "connection", "words": str(error)}
    except Exception as error:
        return {"failure": "answer", "words": f"{type(error).__name__}: {error}"}


@cache
def account() -> Answer:
    """Say who this is: once, for the service limits how often it is asked."""
    return dict(hub.HfApi().whoami())


def standing(machine: str) -> Answer:
    """Say who this is, whether it can pay, and what a machine costs in an hour."""
    who = account()
    prices = {each.name: each for each in hub.HfApi().list_jobs_hardware()}
    found = prices.get(machine)
    per = {"minute": 60, "hour": 1, "second": 3600}
    cost = found.unit_cost_usd * per.get(found.unit_label, 0) if found else 0.0
    pays = bool(who.get("canPay", True))
    return {"name": who["name"], "pays": pays, "usd": cost, "known": bool(found)}


def jobs(name: str) -> list[Any]:
    """Give the jobs that have a hop's label, the first one first."""
    found = hub.HfApi().list_jobs(labels={LABEL: name}, namespace=account()["name"])
    return sorted(found, key=lambda job: str(job.created_at))


def look(name: str) -> Answer:
    """Say how a hop's job stands; nothing where there is none."""
    found = jobs(name)
    if not found:
        return {}
    job = found[0]
    words = job.status.message or ""
    return {"id": job.id, "stage": getattr(job.status.stage, "value", job.status.stage)} | {
        "words": words
    }


def begin(name: str, text: str, bag: str, machine: str, seconds: float, image: str) -> str:
    """Start a job that runs a script; give its id."""
    job = hub.HfApi().run_job(
        image=image,
        command=["python", "-c", text],
        secrets={"GRADLAB_BAG": bag},
        flavor=machine,
        timeout=int(seconds),
        labels={LABEL: name},
        name=name,
        namespace=account()["name"],
    )
    return str(job.id)


def log(name: str) -> str:
    """Give what a hop's job has printed."""
    for job in jobs(name)[:1]:
        lines = hub.HfApi().fetch_job_logs(job_id=job.id, namespace=account()["name"])
        return "".join(f"{line}\n" for line in lines)
    return ""


def cancel(name: str) -> None:
    """End the jobs of a hop that live."""
    for job in jobs(name):
        if getattr(job.status.stage, "value", job.status.stage) in ("RUNNING", "SCHEDULING"):
            hub.HfApi().cancel_job(job_id=job.id, namespace=account()["name"])


def held() -> list[Answer]:
    """List the account's jobs that live."""
    found = []
    for job in hub.HfApi().list_jobs(namespace=account()["name"]):
        stage = getattr(job.status.stage, "value", job.status.stage)
        if stage in ("RUNNING", "SCHEDULING"):
            labels = job.labels or {}
            found.append({"id": job.id, "machine": str(job.flavor), "name": labels.get(LABEL, "")})
    return found


METHODS = {each.__name__: each for each in (standing, look, begin, log, cancel, held)}

if __name__ == "__main__":
    frame.serve(greeting, answer)
