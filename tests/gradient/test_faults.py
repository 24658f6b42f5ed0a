"""`gradlab setup` when the service, or the way to it, fails: at each request, in each way."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from .api import Api
from .conftest import SPEC, Desk, rows

SMALL = SPEC.replace("      data: {type: dataset, with: {ref: digits}}\n", "")
SMALL = SMALL.replace(" /inputs/data", "")
REQUESTS = 21  # of a fresh set-up of SMALL
EVERYWHERE = {"refused": [500], "done but not answered": ["lost"]}
IN_TURN = {"in turn": [401, 404, 409, 429, "drop", "timeout"]}


def test_the_number_of_requests_of_a_fresh_set_up_is_known(desk: Desk, api: Api) -> None:
    desk.workflow(SMALL)
    desk.ok("setup")
    assert len(api.requests) == REQUESTS


@pytest.mark.slow
@pytest.mark.parametrize("kinds", (EVERYWHERE | IN_TURN).values(), ids=EVERYWHERE | IN_TURN)
def test_after_a_fault_in_any_request_a_second_run_completes_the_set_up(
    desk: Desk, api: Api, kinds: list[int | str]
) -> None:
    desk.workflow(SMALL)
    for nth in range(1, REQUESTS + 1):
        api.clear()
        api.fail(kinds[nth % len(kinds)], nth=nth)
        first = desk.run("setup")
        assert first.returncode == int("could not" in first.stdout), first.stdout
        api.faults.clear()
        desk.ok("setup")
        (dataset,) = api.datasets.values()
        assert [version["isCommitted"] for version in dataset["versions"]].count(True) == 1
        assert len(api.projects) == len(api.workflows) == 1
        assert api.secrets[api.projects[0]["handle"]] == {"HUB_TOKEN": "hub-secret-value"}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (403, "the API key may not do this (HTTP 403: told by the service)"),
        (404, "the service does not know this (HTTP 404: told by the service)"),
        (409, "this clashes with what is there (HTTP 409: told by the service)"),
        (422, "the service refused it (HTTP 422: told by the service)"),
        (429, "the service is too busy, or has none free (HTTP 429: told by the service)"),
        (500, "the service failed (HTTP 500: told by the service)"),
        ("drop", "the service can't be reached"),
        ("timeout", "no answer within 0.5 seconds"),
    ],
)
def test_each_kind_of_failure_is_told_in_plain_words(
    desk: Desk, api: Api, what: int | str, words: str
) -> None:
    desk.workflow(SMALL)
    api.fail(what, pattern="POST /datasets$", words="told by the service")
    text = desk.fails(1, "setup")
    assert words in text
    assert "train.yaml:" in text
    assert rows(text)["dataset", "digits-run"] == "could not"


def test_where_nothing_listens_it_says_so(desk: Desk) -> None:
    text = desk.fails(1, "setup", PAPERSPACE_CONFIG_HOST="http://127.0.0.1:1")
    assert "can't be reached (" in text and "Connection refused" in text


def test_a_time_limit_that_is_no_number_is_refused(desk: Desk, api: Api) -> None:
    text = desk.fails(2, "setup", GRADLAB_CLIENT_TIMEOUT="soon")
    assert "GRADLAB_CLIENT_TIMEOUT is 'soon'" in text
    assert api.requests == []


def test_a_service_that_is_busy_for_a_moment_is_asked_again(desk: Desk, api: Api) -> None:
    desk.workflow(SMALL)
    api.fail(429, pattern="POST /datasets$", times=2, headers={"Retry-After": "1"})
    desk.ok("setup")
    assert len(api.sent("POST /datasets$")) == 3


def test_a_service_that_wants_a_long_wait_is_left_in_peace(desk: Desk, api: Api) -> None:
    desk.workflow(SMALL)
    api.fail(429, pattern="GET /datasets$", headers={"Retry-After": "3600"})
    assert "asks to wait 3600 seconds" in desk.fails(1, "setup")
    assert len(api.sent("GET /datasets$")) == 1


def test_what_may_have_been_done_is_not_asked_for_twice(desk: Desk, api: Api) -> None:
    api.fail("lost", pattern="POST /projects/")
    desk.fails(1, "setup")
    assert len(api.sent("POST /projects/")) == 1
    api.faults.clear()
    assert rows(desk.ok("setup"))["project", "demo"] == "found"


def test_an_answer_that_makes_no_sense_is_no_traceback(desk: Desk, api: Api) -> None:
    api.fail(200, pattern="GET /projects/", words="no projects here")
    text = desk.fails(1, "setup")
    assert "the service's answer makes no sense" in text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("pattern", ["GET /projects/", "PUT /projects/secrets/"])
def test_key_and_secret_follow_no_redirect_to_another_place(
    desk: Desk, api: Api, status: int, pattern: str
) -> None:
    with Api().running() as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        api.fail(status, pattern=pattern, headers={"Location": f"{elsewhere}/projects/"})
        text = desk.fails(1, "setup")
        assert f"it leads to another place, {elsewhere}" in text
        assert other.requests == []


def test_a_redirect_to_the_same_place_is_followed(desk: Desk, api: Api) -> None:
    api.fail(307, pattern="GET /projects/", times=1, headers={"Location": f"{api.url}/projects/"})
    desk.ok("setup")


def send(handler: Any, body: bytes, kind: str = "application/json", length: int = 0) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(length or len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def trickle(handler: Any) -> None:
    send(handler, b"[", length=1000)
    for _ in range(200):
        time.sleep(0.2)
        handler.wfile.write(b" ")


def slow_headers(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(200):
        time.sleep(0.2)
        handler.wfile.write(b"X-%d: y\r\n" % number)


def endless(handler: Any) -> None:
    send(handler, b"[", length=400_000_000)
    for _ in range(400):
        handler.wfile.write(b" " * 1_000_000)


PAGE = b"<!DOCTYPE html><html><body>Welcome to the hotel. Log in.</body></html>"
ODD = {
    "a login page": (lambda handler: send(handler, PAGE, "text/html"), "it is a web page"),
    "a login page said to be JSON": (lambda handler: send(handler, PAGE), "it is a web page"),
    "text": (lambda handler: send(handler, b"hello", "text/plain"), "it is no JSON"),
    "a byte now and then": (trickle, "no whole answer within 2 seconds"),
    "headers now and then": (slow_headers, "no whole answer within 2 seconds"),
    "400 MB": (endless, "it is larger than 16 MiB"),
    "one page for ever": (
        lambda handler: send(handler, json.dumps([{"id": "x", "name": "y"}] * 20).encode()),
        "it gives one page again and again",
    ),
    **{
        f"JSON {data!r}": (lambda handler, data=data: send(handler, data), "makes no sense")
        for data in (b'"text of more than twenty letters"', b"[1, 2]", b"[null]", b"3")
    },
}  # fmt: skip


@pytest.mark.parametrize(("answer", "words"), ODD.values(), ids=ODD)
def test_an_answer_that_is_none_ends_in_time_and_in_clear_words(
    desk: Desk, api: Api, answer: Any, words: str
) -> None:
    api.fail(answer, pattern="GET /datasets$")
    began = time.monotonic()
    text = desk.fails(1, "setup")
    assert words in text
    assert time.monotonic() - began < 60
