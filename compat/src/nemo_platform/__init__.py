"""The import names of `nemo_platform`, on top of Tunesmith's SDK."""

from importlib.metadata import PackageNotFoundError, version

try:
    _published = version("nemo-platform")
except PackageNotFoundError:
    pass
else:
    raise ImportError(
        f"tunesmith-nemo-compat cannot be used beside nemo-platform {_published}: both are `nemo_platform`. The "
        "published client works with Tunesmith as it is, so keep that one: pip uninstall tunesmith-nemo-compat, then "
        "pip install --force-reinstall nemo-platform. Or keep this one: pip uninstall nemo-platform "
        "tunesmith-nemo-compat, then pip install tunesmith-nemo-compat."
    )

from tunesmith.client.aio.client import AsyncTunesmith as AsyncNeMoPlatform
from tunesmith.client.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
)
from tunesmith.client.sync.client import Tunesmith as NeMoPlatform

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncNeMoPlatform",
    "AuthenticationError",
    "BadRequestError",
    "ConflictError",
    "InternalServerError",
    "NeMoPlatform",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "UnprocessableEntityError",
]
