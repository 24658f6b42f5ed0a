"""`gradlab setup` when the service, or the way to it, fails: at each request, in each way."""

from __future__ import annotations

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
    text = desk.fails(2, "setup", GRADLAB_GRADIENT_TIMEOUT="soon")
    assert "GRADLAB_GRADIENT_TIMEOUT is 'soon'" in text
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
