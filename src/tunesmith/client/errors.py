"""Every way a call of the SDK fails, beside `tunesmith.errors`, which the SDK raises for what it refuses itself.

The tree::

    TunesmithError
      APIError                      the platform was asked, and there is no good answer
        APIConnectionError          no answer at all
          APITimeoutError           not in time
        APIResponseError            an answer this client cannot read
        APIStatusError              an answer that says no
          BadRequestError           400
          AuthenticationError       401
          PermissionDeniedError     403
          NotFoundError             404
          ConflictError             409
          UnprocessableEntityError  422
          RateLimitError            429
          InternalServerError       500 and above
      DeploymentFailed              a deployment that was waited for went to ERROR
      SpecFailed                    a model that was waited for has a checkpoint that cannot be read
      WaitTimeoutError              what was waited for did not happen in time

NotFoundError is also a `tunesmith.errors.NotFound`, UnprocessableEntityError an `Invalid`, and so on: whoever catches
those need not know whether the client or the platform noticed first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from tunesmith.errors import BadRequest, Conflict, Forbidden, Invalid, NotFound, TunesmithError
from tunesmith.refs import FIRST_LOOK, NAME_PATTERN, NAME_RULE
from tunesmith.spec.hints import hinted

_WHERE = frozenset({"body", "query", "path", "header"})
_PROSE_LIMIT = 2000  # characters of an answer that is no JSON


class APIError(TunesmithError):
    """The platform was asked, and there is no good answer."""

    code = "api"


class APIConnectionError(APIError):
    """The platform could not be reached, or went away before it answered."""

    code = "api_connection"

    @classmethod
    def at(cls, address: str, cause: Exception) -> APIConnectionError:
        """With the address, the cause and the way out."""
        return cls(
            f"cannot reach Tunesmith at {address} ({cause or type(cause).__name__}): start it with `tunesmith up`, "
            "or name another address with --base-url or TUNESMITH_BASE_URL"
        )


class APITimeoutError(APIConnectionError):
    """The platform did not answer in time."""

    code = "api_timeout"

    @classmethod
    def at(cls, address: str, cause: Exception) -> APITimeoutError:
        """With the address, and the way out."""
        return cls(
            f"Tunesmith at {address} did not answer in time ({type(cause).__name__}): try again, or give it longer "
            "with Tunesmith(timeout=...)"
        )


class APIResponseError(APIError):
    """The platform answered something that this version of the client cannot read."""

    code = "api_response"


class APIStatusError(APIError):
    """The platform said no."""

    code = "api_status"

    def __init__(self, status_code: int, body: Any, request: str = "") -> None:
        self.status_code = status_code
        self.body = body
        """The answer: parsed if it was JSON, text otherwise."""
        self.detail = readable(body) or f"{request or 'the request'} was answered with status {status_code}"
        """What the platform said, readable; a broken rule a line: `spec.training.lora.rank: message`."""
        super().__init__(self.detail)

    @staticmethod
    def of(status_code: int, body: Any, request: str = "") -> APIStatusError:
        """The error for a status."""
        kind = InternalServerError if status_code >= 500 else BY_STATUS.get(status_code, APIStatusError)
        return kind(status_code, body, request)


class BadRequestError(APIStatusError, BadRequest):
    """400: a query, path or reference cannot be understood."""

    code = "bad_request"


class AuthenticationError(APIStatusError):
    """401: the platform wants to know who is asking."""

    code = "unauthenticated"


class PermissionDeniedError(APIStatusError, Forbidden):
    """403: this may not be done here."""

    code = "forbidden"


class NotFoundError(APIStatusError, NotFound):
    """404: the thing named does not exist in the workspace named."""

    code = "not_found"


class ConflictError(APIStatusError, Conflict):
    """409: the request collides with what exists; repeating it will not help."""

    code = "conflict"


class UnprocessableEntityError(APIStatusError, Invalid):
    """422: the request breaks a rule."""

    code = "invalid"


class RateLimitError(APIStatusError):
    """429: too many requests at once."""

    code = "rate_limit"


class InternalServerError(APIStatusError):
    """500 and above: the platform, or a server behind it, failed."""

    code = "server"


class DeploymentFailed(TunesmithError):
    """A deployment that was waited for went to ERROR; the message is the deployment's own."""

    code = "deployment_failed"


class SpecFailed(TunesmithError):
    """A model that was waited for has a checkpoint that cannot be read; the message says what is wrong with it."""

    code = "spec_failed"


class WaitTimeoutError(TunesmithError, TimeoutError):
    """What was waited for did not happen in time; it goes on without the waiter."""

    code = "wait_timeout"


BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


AWAY = (502, 503, 504)


def away(error: APIError) -> bool:
    """Whether the platform may come back: nobody there, or only a proxy."""
    return isinstance(error, APIConnectionError) or (isinstance(error, APIStatusError) and error.status_code in AWAY)


def refusal(error: ValidationError, backend: str | None = None) -> Invalid:
    """What the client's own look at a request found wrong, in the same words as the platform's.

    With `backend` the request holds a spec of it, and a field that belongs to another backend is told so.
    """
    found: Iterable[Mapping[str, Any]] = error.errors(include_url=False)
    return Invalid("\n".join(lines(hinted(list(found), backend, start=1) if backend else found)))


def readable(body: Any) -> str:
    """The text of an error body: its `detail` when that is a string, a broken rule a line when it is a list."""
    detail = body.get("detail", body) if isinstance(body, Mapping) else body
    if isinstance(detail, str):
        return detail.strip()[:_PROSE_LIMIT]
    if isinstance(detail, list) and all(isinstance(item, Mapping) for item in detail):
        return "\n".join(lines(detail))
    return "" if detail is None else str(detail)[:_PROSE_LIMIT]


def lines(errors: Iterable[Mapping[str, Any]]) -> list[str]:
    """`dotted.path: message` for each of pydantic's errors; the path starts below body, query or path."""
    found = []
    for error in errors:
        loc = [str(part) for part in error.get("loc", ())]
        where = ".".join(loc[1:] if loc and loc[0] in _WHERE else loc)
        message = str(error.get("msg", error)).removeprefix("Value error, ")
        context = error.get("ctx")
        if isinstance(context, Mapping) and context.get("pattern") in (NAME_PATTERN, FIRST_LOOK):
            message = f"'{str(error.get('input', ''))[:80]}' is not a lawful name: {NAME_RULE}"
        named = not where or message.startswith(f"{where}:")
        found.append(message if named else f"{where}: {message}")
    return found
