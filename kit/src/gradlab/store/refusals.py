"""What a storage by URL refuses, and what fails on the way to it, as errors in plain words.

Promises: each names the URL, and what would do. One that passes is an OSError of `retries.PASSING`;
of the others only that a file isn't there is a FileNotFoundError: that a bucket is missing is none.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from ..services import urls

OWN = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS)


class StorageError(OSError):
    """A failure of a storage by URL; its text is for people."""

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(frozen=True)
class Refusal:
    """Codes and names of errors that mean the same, its number, and what to say after the URL."""

    codes: tuple[str, ...]
    number: int
    says: str


REFUSALS = (
    Refusal(
        ("RequestTimeTooSkewed",),
        errno.EPERM,
        "refuses this machine's clock, which is off by many minutes: set it (timedatectl set-ntp "
        "true), then give the same command again",
    ),
    Refusal(
        ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired",
         "InvalidToken", "RefreshError", "TokenRetrievalError", "UnauthorizedSSOTokenError",
         "SSOTokenLoadError"),
        errno.EACCES,
        "refuses credentials that have expired: get new ones, then give the same command again; "
        "its client looks for them in {where}",
    ),
    Refusal(
        ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError",
         "NoAuthTokenError", "LocalTokenNotFoundError", "401", "Unauthorized"),
        errno.EACCES,
        "needs credentials, and none were found: its client looks for them in {where}",
    ),
    Refusal(
        ("QuotaExceeded", "storageQuotaExceeded", "QuotaExceededException", "507",
         "XMinioStorageFull", "EntityTooLarge", "dailyLimitExceeded"),
        errno.EDQUOT,
        "is full: make room there, or ask for a larger quota",
    ),
    Refusal(
        ("NoSuchBucket", "BucketNotFound", "RepositoryNotFoundError"),
        errno.ENXIO,
        "can't be found (404): there is no such bucket. Make it first, or mend GRADLAB_STORAGE",
    ),
    Refusal(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
         "301"),
        errno.EINVAL,
        "is in another region, or at another endpoint, than the client was told: set "
        "AWS_DEFAULT_REGION or AWS_ENDPOINT_URL",
    ),
    Refusal(
        ("AccessDenied", "AllAccessDisabled", "AccountProblem", "InvalidAccessKeyId",
         "SignatureDoesNotMatch", "InvalidSecurity", "403", "Forbidden", "forbidden",
         "PermissionError", "AuthenticationException", "BadHostKeyException", "GatedRepoError"),
        errno.EACCES,
        "refuses the credentials that were found (403{code}): they have to allow listing, reading, "
        "writing and deleting there",
    ),
    Refusal(
        ("InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "Throttling",
         "ThrottlingException", "TooManyRequests", "OperationAborted", "RequestLimitExceeded",
         "ConditionalRequestConflict", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch",
         "408", "409", "425", "429", "500", "502", "503", "504",
         "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError",
         "ConnectionClosedError", "HTTPClientError", "ProxyConnectionError", "IncompleteReadError",
         "ResponseStreamingError", "ClientPayloadError", "ClientConnectorError",
         "ServerDisconnectedError", "ClientOSError", "ConnectError", "ReadError", "WriteError",
         "RemoteProtocolError", "ConnectTimeout", "ReadTimeout", "PoolTimeout", "SSHException",
         "NoValidConnectionsError", "EOFError", "ConnectionError", "ConnectionResetError",
         "ConnectionRefusedError", "ConnectionAbortedError", "BrokenPipeError", "TimeoutError",
         "FSTimeoutError", "gaierror", "IncompleteRead"),
        errno.EIO,
        "does not answer as it should ({code}), nor did it when tried again",
    ),
)  # fmt: skip
BY_CODE = {code: refusal for refusal in REFUSALS for code in refusal.codes}
VAGUE = ("400", "403", "404", "Bad Request", "Forbidden")  # all that an answer without a body tells


def codes_of(error: BaseException) -> Iterator[str]:
    """Give the codes and names of an error and of those that it comes from, the nearest last."""
    chain = list[BaseException]()
    while error and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    for each in reversed(chain):
        response = getattr(each, "response", None)
        if isinstance(response, dict):  # botocore's
            yield str(response.get("Error", {}).get("Code", ""))
            yield str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        yield str(getattr(response, "status_code", ""))
        yield str(getattr(each, "status", ""))  # aiohttp's
        yield str(getattr(each, "code", ""))  # gcsfs'
        yield from (kind.__name__ for kind in type(each).__mro__)


def said(error: BaseException, url: str) -> OSError:
    """Give what an error means; FileNotFoundError where a file isn't there."""
    if isinstance(error, StorageError):
        return error
    found = [code for code in codes_of(error) if code]
    # A cause is nearer to the truth than what a client made of it.
    known = [code for code in found if code in BY_CODE]
    if isinstance(error, FileExistsError) or {"PreconditionFailed", "412"} & {*found}:
        return FileExistsError(errno.EEXIST, "is there already", url)
    if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in found:
        return error
    if isinstance(error, OSError) and error.errno in OWN and not known:
        return error  # of this machine's own disk
    if not known:
        return StorageError(errno.EINVAL, f"{url} failed: {type(error).__name__}: {error}")
    # What is said in words counts before a number, in the order of the table.
    best = min(known, key=lambda code: (code.isdigit(), REFUSALS.index(BY_CODE[code])))
    code = best if BY_CODE[best].number == errno.EIO else "" if best.isdigit() else f" {best}"
    text = BY_CODE[best].says.format(where=urls.where_credentials_are(url), code=code)
    return StorageError(BY_CODE[best].number, f"{url} {text}")


def is_vague(error: BaseException) -> bool:
    """Tell whether an answer had no body that would say why something was refused."""
    return any(
        str(getattr(each, "response", {}).get("Error", {}).get("Code", "")) in VAGUE
        for each in (error, error.__cause__, error.__context__)
        if isinstance(getattr(each, "response", None), dict)
    )
