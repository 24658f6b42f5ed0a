"""What a hub refuses, and what fails on the way to it, in plain words, without a token."""

from __future__ import annotations

from collections.abc import Iterator

from ..base.errors import GradlabError

AGAIN = (409, 412, 429, 500, 502, 503, 504)  # which pass
SAYS = {
    401: "it does not know the token that was found: make one at /settings/tokens that may write, "
    "and set HF_TOKEN, or give  hf auth login",
    403: "the token that was found may not write there: it needs the role `write`, and you have to "
    "be a member of the organization",
    404: "there is no such repository, or the token that was found may not see it",
    409: "something else is changing the repository: give the same command again in a moment",
    412: "somebody else has changed the repository meanwhile: give the same command again",
    413: "what is sent is larger than it takes",
    429: "too many requests came from here: give the same command again in some minutes",
}
CLIENTS = ("httpx", "httpcore")  # whose errors are of the network, but for an answer's status
NETWORK = ("ConnectionError", "TimeoutError", "gaierror")
OFFLINE = "OfflineModeIsEnabled"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and those that it comes from."""
    seen = list[BaseException]()
    while error and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def status(error: BaseException) -> int:
    """Give the HTTP status that an error comes from, 0 if it comes from none."""
    for each in chain(error):
        if code := getattr(getattr(each, "response", None), "status_code", 0):
            return int(code)
    return 0


def is_of_network(error: BaseException) -> bool:
    """Tell whether no answer came."""
    kinds = [kind for each in chain(error) for kind in type(each).__mro__]
    return any(k.__module__.startswith(CLIENTS) or k.__name__ in NETWORK for k in kinds)


def passes(error: BaseException) -> bool:
    """Tell whether the same may work a moment later."""
    return status(error) in AGAIN or (not status(error) and is_of_network(error))


def said(error: BaseException, where: str, token: str) -> GradlabError:
    """Say what an error of a hub's client means, and what would do."""
    code = status(error)
    if any(type(each).__name__ == OFFLINE for each in chain(error)):
        why = "HF_HUB_OFFLINE is set, so that nothing is sent: unset it"
    elif code in SAYS:
        why = f"{SAYS[code]} ({code})"
    elif code >= 500:
        why = f"it has a failure of its own ({code}): give the same command again later"
    elif not code and is_of_network(error):
        why = "it can't be reached: give the same command again when there is a network"
    else:
        why = f"{type(error).__name__}: {error}"
    text = f"{where} did not take the model: {why}."
    return GradlabError(text.replace(token, "***") if token else text, exit_code=1)
