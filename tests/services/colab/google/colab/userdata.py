"""The user's secrets."""

from __future__ import annotations

from . import _message, errors

TIMEOUT_SECONDS = 5.0


class NotebookAccessError(Exception):
    """The notebook may not read this secret."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Notebook does not have access to secret {key}")


class SecretNotFoundError(errors.Error):
    """There is no such secret."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Secret {key} does not exist.")


class TimeoutException(errors.Error):
    """Nobody answered."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"Requesting secret {key} timed out. Secrets can only be fetched when running from "
            "the Colab UI."
        )


def get(key: str) -> str:
    """Give a secret."""
    answer = _message.blocking_request("GetSecret", {"key": key}, TIMEOUT_SECONDS)
    if answer is None:
        raise TimeoutException(key)
    if not answer["exists"]:
        raise SecretNotFoundError(key)
    if not answer["access"]:
        raise NotebookAccessError(key)
    return str(answer["payload"])
