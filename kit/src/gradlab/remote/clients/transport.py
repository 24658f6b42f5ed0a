"""The way of an agent to a service, for clients that use `requests`.

Promises: every request ends in time and with an answer of bounded size; a key goes to no other
host; a web page is no answer; a request that the service was too busy for, or that can be repeated
without harm, is tried again a few times.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urljoin, urlsplit

import frame
import requests
from frame import Answer, Unusable, limited
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

TOO_BUSY = 429
KEYS = ("X-API-Key", "Authorization")
PROTECTED = (")]}'\n",)  # before JSON, so that no page can load it as a script


class Patience(Retry):
    """Also repeats what was refused for its rate, for nothing was done then."""

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        """Tell whether an answer is a reason to ask again."""
        return status_code == TOO_BUSY or super().is_retry(method, status_code, has_retry_after)

    def increment(self, *arguments: Any, **options: Any) -> Retry:  # type: ignore[override]
        """Count a try; raises MaxRetryError after the last one."""
        response = options.get("response")
        if response is not None and (self.get_retry_after(response) or 0) > frame.LONGEST_WAIT:
            raise MaxRetryError(options["_pool"], None)
        return super().increment(*arguments, **options)

    def sleep(self, response: Any = None) -> None:
        """Wait before the next try, which has as much time as the one before."""
        with limited(0):
            super().sleep(response)


class Transport(HTTPAdapter):
    """Carries every request of this process, and keeps the answer to the last one."""

    last: requests.Response | None = None

    def __init__(self) -> None:
        statuses, wait = (502, 503, 504), 0.5
        super().__init__(
            max_retries=Patience(
                total=3,
                read=1,
                status_forcelist=statuses,
                backoff_factor=wait,
                raise_on_status=False,
            )
        )

    def send(self, request: Any, *arguments: Any, **options: Any) -> requests.Response:
        """Send a request."""
        Transport.last = None
        keyed = any(name in request.headers for name in KEYS)
        with limited(frame.WHOLE):
            options = dict(options, timeout=frame.TIMEOUT, stream=True)
            response = super().send(request, *arguments, **options)
            if keyed and response.is_redirect:
                stay(request.url, response.headers["location"])
            read(response)
        if keyed and response.ok and not response.is_redirect:
            understand(response)
        Transport.last = response
        return response


def carry_everything() -> None:
    """Let the transport carry every request of this process."""
    requests.sessions.HTTPAdapter = Transport  # type: ignore


def stay(here: str, location: str) -> None:
    """Raise Unusable for a way to another place, which must not get the key, nor what is sent."""
    at, to = urlsplit(here), urlsplit(urljoin(here, location))
    ports = {"http": 80, "https": 443}
    places = [
        (each.scheme, each.hostname, each.port or ports.get(each.scheme)) for each in (at, to)
    ]
    upgraded = ("https", at.hostname, 443)
    if places[1] not in (places[0], upgraded):
        raise Unusable("answer", f"it leads to another place, {to.scheme}://{to.netloc}")


def read(response: requests.Response) -> None:
    """Read an answer; raises Unusable for one that is too large."""
    pieces, size = [], 0
    for piece in response.iter_content(1 << 16):
        pieces.append(piece)
        size += len(piece)
        if size > frame.LARGEST:
            response.close()
            raise Unusable("answer", f"it is larger than {frame.LARGEST >> 20} MiB")
    response._content = b"".join(pieces)
    response._content_consumed = True  # type: ignore[attr-defined, unused-ignore]


def understand(response: requests.Response) -> None:
    """Raise Unusable for what is no JSON, such as the page on which a network wants a login."""
    body = response.content.strip()
    for prefix in PROTECTED:
        body = body.removeprefix(prefix.strip().encode())
    try:
        json.loads(body.strip() or b"null")
    except ValueError:
        page = "a web page, such as a network's login" if body.startswith(b"<") else "no JSON"
        raise Unusable("answer", f"it is {page}") from None


def refusal(words_of: Any) -> Answer | None:
    """Tell of the last answer of the service if it was a refusal: some clients don't."""
    response = Transport.last
    if response is None or response.ok:
        return None
    try:
        words = words_of(response.json())
    except ValueError:
        words = response.text
    wait = response.headers.get("Retry-After", "")
    return {"failure": "status", "status": response.status_code, "words": words, "wait": wait}


def answered(do: Any, words_of: Any, strict: bool = False) -> Answer:
    """Do what a request asks for; `strict` tells the last refusal even where nothing was raised."""
    Transport.last = None
    try:
        result = do()
    except Unusable as error:
        return error.answer()
    except requests.exceptions.Timeout:
        return {"failure": "timeout", "words": f"no answer within {frame.TIMEOUT:g} seconds"}
    except requests.exceptions.ConnectionError as error:
        return {"failure": "connection", "words": str(origin(error))}
    except requests.exceptions.RequestException as error:
        return refusal(words_of) or {"failure": "connection", "words": str(origin(error))}
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        return refusal(words_of) or {"failure": "answer", "words": said}
    return (refusal(words_of) if strict else None) or {"result": result}


def origin(error: BaseException) -> BaseException:
    """Give what a connection failed of, under what the libraries made of it."""
    return origin(error.__context__) if error.__context__ else error
