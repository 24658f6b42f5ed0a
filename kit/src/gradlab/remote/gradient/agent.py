"""Runs where Paperspace's command line is installed, and calls it and its SDK for the kit.

A request is a line of JSON on standard input, its answer one on standard output:

    {"client": "DatasetsClient", "method": "list", "arguments": {...}}    a method of the SDK
    {"command": ["workflows", "run", ...]}                                 the command line
    {"upload": URL, "text": "...", "type": "text/plain"}                   a file of a dataset

Promises: every request to the service ends in time and with an answer of bounded size; the API key
goes to no other host; a web page is no answer; a request that the service was too busy for, or
that can be repeated without harm, is tried again a few times; a failure is told with its HTTP
status, which neither the command line nor the SDK does. Needs nothing of the kit.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import metadata
from typing import Any
from urllib.parse import urljoin, urlsplit

TIMEOUT = float(os.environ.get("GRADLAB_GRADIENT_TIMEOUT", "60"))  # seconds without a byte
WHOLE = 4 * TIMEOUT  # seconds for a whole answer, however slowly it comes
LARGEST = 16 << 20  # bytes of an answer
LONGEST_WAIT = 20.0  # seconds; where the service asks for more, the user is told so
TOO_BUSY = 429
NO_SPEC = os.path.join(os.devnull, "spec.yaml")
Answer = dict[str, Any]

# The answers' way out; whatever the command line or the SDK print goes to standard error.
answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

try:
    version = metadata.version("gradient")
except metadata.PackageNotFoundError:
    version = "unknown"
try:
    import attr
    import requests
    from gradient import api_sdk
    from gradient.api_sdk.config import config
    from gradient.main import _cli_entry_point as command_line
    from requests.adapters import HTTPAdapter
    from urllib3.exceptions import MaxRetryError
    from urllib3.util import Retry
except Exception as error:  # a ValueError or OSError: of the file that the key is stored in
    kind = "config" if isinstance(error, (ValueError, OSError)) else "unusable"
    words = f"{type(error).__name__}: {error}"
    answers.write(json.dumps({"version": version, kind: words}) + "\n")
    sys.exit()


class Unusable(BaseException):
    """An answer that is none; nothing in between takes it for a reason to try again."""

    def __init__(self, failure: str, words: str) -> None:
        super().__init__(words)
        self.failure, self.words = failure, words


def late(*_: Any) -> None:
    raise Unusable("timeout", f"no whole answer within {WHOLE:g} seconds")


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Unusable if this takes longer than so many seconds, 0 for as long as it likes."""
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)


class Patience(Retry):
    """Also repeats what was refused for its rate, for nothing was done then."""

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        """Tell whether an answer is a reason to ask again."""
        return status_code == TOO_BUSY or super().is_retry(method, status_code, has_retry_after)

    def increment(self, *arguments: Any, **options: Any) -> Retry:  # type: ignore[override]
        """Count a try; raises MaxRetryError after the last one."""
        response = options.get("response")
        if response is not None and (self.get_retry_after(response) or 0) > LONGEST_WAIT:
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
        with limited(WHOLE):
            options = dict(options, timeout=TIMEOUT, stream=True)
            response = super().send(request, *arguments, **options)
            if "X-API-Key" in request.headers and response.is_redirect:
                stay(request.url, response.headers["location"])
            read(response)
        if "X-API-Key" in request.headers and response.ok and not response.is_redirect:
            understand(response)
        Transport.last = response
        return response


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
        if size > LARGEST:
            response.close()
            raise Unusable("answer", f"it is larger than {LARGEST >> 20} MiB")
    response._content = b"".join(pieces)
    response._content_consumed = True  # type: ignore[attr-defined, unused-ignore]


def understand(response: requests.Response) -> None:
    """Raise Unusable for what is no JSON, such as the page on which a network wants a login."""
    body = response.content.strip()
    try:
        json.loads(body or b"null")
    except ValueError:
        page = "a web page, such as a network's login" if body.startswith(b"<") else "no JSON"
        raise Unusable("answer", f"it is {page}") from None


def main() -> None:
    """Say what this is, then answer requests until there are no more."""
    signal.signal(signal.SIGALRM, late)
    requests.sessions.HTTPAdapter = Transport  # type: ignore
    tell({"version": version, "key": key(), "defect": defect()})
    for line in sys.stdin:
        tell(answer(json.loads(line)))


def tell(message: Answer) -> None:
    answers.write(json.dumps(message, default=str) + "\n")
    answers.flush()


def key() -> str:
    """Tell whether an API key is there and can be one; the key itself is never told."""
    found = str(config.PAPERSPACE_API_KEY or "")
    if not found:
        return "missing"
    return "fine" if found.isascii() and found.isprintable() and " " not in found else "malformed"


def defect() -> str:
    """Tell why the command line would die, as it does with a click that is too new."""
    reply = answer({"command": ["workflows", "run", "--id", "none", "--path", NO_SPEC]})
    words = str(reply.get("result", reply))
    return "" if NO_SPEC in words else words


def answer(request: Answer) -> Answer:
    """Do what a request asks for; an answer holds a `result` or a `failure`."""
    Transport.last = None
    try:
        result = do(request)
    except Unusable as error:
        return {"failure": error.failure, "words": error.words}
    except requests.exceptions.Timeout:
        return {"failure": "timeout", "words": f"no answer within {TIMEOUT:g} seconds"}
    except requests.exceptions.RequestException as error:
        return {"failure": "connection", "words": str(origin(error))}
    except Exception as error:
        return refusal() or {"failure": "answer", "words": f"{type(error).__name__}: {error}"}
    return refusal() or {"result": result}


def do(request: Answer) -> Any:
    if "command" in request:
        return run(request["command"])
    if "upload" in request:
        headers = {"Content-Type": request["type"]}
        requests.put(request["upload"], data=request["text"].encode(), headers=headers)
        return None
    client = getattr(api_sdk.clients, request["client"])(api_key=config.PAPERSPACE_API_KEY)
    return plain(getattr(client, request["method"])(**request["arguments"]))


def run(arguments: list[str]) -> str:
    """Run the command line and give what it prints."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        command_line(arguments, prog_name="gradient", standalone_mode=False)
    return printed.getvalue()


def plain(value: Any) -> Any:
    """Make mappings of the SDK's objects."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return attr.asdict(value) if attr.has(type(value)) else value


def origin(error: BaseException) -> BaseException:
    """Give what a connection failed of, under what the libraries made of it."""
    return origin(error.__context__) if error.__context__ else error


def refusal() -> Answer | None:
    """Tell of the last answer of the service if it was a refusal: some methods don't."""
    response = Transport.last
    if response is None or response.ok:
        return None
    try:
        words = api_sdk.utils.MessageExtractor().get_message_from_response_data(response.json())
    except ValueError:
        words = response.text
    wait = response.headers.get("Retry-After", "")
    return {"failure": "status", "status": response.status_code, "words": words, "wait": wait}


if __name__ == "__main__":
    main()
