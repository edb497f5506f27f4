"""Every way Tunesmith says no: one class per kind, with a stable code and an HTTP status.

The tree::

    TunesmithError
      NotFound            404
      Conflict            409
      Forbidden           403
      BadRequest          400
      TooSlow             408
      RangeUnfit          416
      Invalid             422
        NotBuilt          422
      DiskFull            507
      Upstream            502
      Unavailable         503
      DataError           a row or a file of a data set; ends a job, never a request
      EngineError         an engine process could not do what its plan says
      ServerStartError    `tunesmith up` could not start

A message names the field by its dotted path (or the file, line and key), the value, the rule and the way out.
"""

from __future__ import annotations


class TunesmithError(Exception):
    """Something was refused or failed; the message is written for the user."""

    code = "error"
    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFound(TunesmithError):
    """The thing named does not exist in the workspace named."""

    code = "not_found"
    status = 404


class Conflict(TunesmithError):
    """The request is lawful but collides with what exists; repeating it will not help."""

    code = "conflict"
    status = 409


class Forbidden(TunesmithError):
    """The caller may not do this here."""

    code = "forbidden"
    status = 403


class BadRequest(TunesmithError):
    """A query, filter, path or reference cannot be understood."""

    code = "bad_request"
    status = 400


class TooSlow(TunesmithError):
    """The sender of a body went silent; nothing was stored."""

    code = "too_slow"
    status = 408


class RangeUnfit(TunesmithError):
    """The bytes that a Range header asks for are not in the file."""

    code = "range_unfit"
    status = 416


class Invalid(TunesmithError):
    """The request can be read but breaks a rule."""

    code = "invalid"
    status = 422


class NotBuilt(Invalid):
    """The request is lawful, but this version of Tunesmith cannot do it yet."""

    code = "not_built_yet"


class DiskFull(TunesmithError):
    """The data directory has no room left; nothing was stored."""

    code = "disk_full"
    status = 507


class Upstream(TunesmithError):
    """A server that this request was passed on to could not be reached or refused us."""

    code = "upstream"
    status = 502


class Unavailable(TunesmithError):
    """What was asked for is on its way up; the same request will do a little later."""

    code = "unavailable"
    status = 503


class DataError(TunesmithError):
    """A data set breaks a rule; names file, line and key. Found before any slot is taken."""

    code = "DatasetFormatError"
    status = 422


class EngineError(TunesmithError):
    """An engine process cannot do what its plan says; `code` is the error type shown on the job."""

    code = "GenericTrainingError"

    def __init__(self, message: str, code: str = "GenericTrainingError") -> None:
        super().__init__(message)
        self.code = code


class ServerStartError(TunesmithError):
    """The platform cannot start here: the data directory is in use, or the port is taken."""

    code = "server_start"
