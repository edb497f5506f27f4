"""Objects below a prefix of an S3 bucket, by boto3 (the extra `s3`).

A bucket has no commits: its list is what it holds at the moment of looking. Each read names the ETag that was listed,
so an object that was replaced is noticed, never mixed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NoReturn

import boto3
from botocore import exceptions
from botocore.client import Config

from tunesmith.api.filesets import S3Storage
from tunesmith.control.sources.base import CHUNK, Busy, Changed, Interrupted, Pinned, Secrets, changed, unreachable
from tunesmith.errors import BadRequest
from tunesmith.store.filesets import StoredFile

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_SECONDS = 15
READ_SECONDS = 60
BUSY: Final = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "503",
    "429",
}
DENIED: Final = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "403", "401"}
MISSING: Final = {"NoSuchBucket", "NoSuchKey", "404"}


class S3:
    """Amazon's S3, or another that an operator has allowed."""

    async def pin(self, storage: S3Storage, secrets: Secrets) -> Pinned:
        """The objects that are below the prefix now."""
        return Pinned(storage, tuple(await asyncio.to_thread(_list, storage, secrets)))

    async def read(
        self, storage: S3Storage, secrets: Secrets, file: StoredFile, start: int, stop: int
    ) -> AsyncIterator[bytes]:
        """Some bytes of the object that was listed; Changed when it is another by now."""
        body = await asyncio.to_thread(_open, storage, secrets, file, start, stop)
        try:
            while chunk := await asyncio.to_thread(_next, storage, file, body):
                yield chunk
        finally:
            body.close()


def _list(storage: S3Storage, secrets: Secrets) -> list[StoredFile]:
    """Blocking: every object, whatever the number of pages."""
    prefix = _prefix(storage)
    found = []
    with _explained(storage):
        pages = (
            _client(storage, secrets).get_paginator("list_objects_v2").paginate(Bucket=storage.bucket, Prefix=prefix)
        )
        for page in pages:
            for entry in page.get("Contents", ()):
                key = entry["Key"]
                if not key.endswith("/"):  # a console's way to show a folder
                    found.append(StoredFile(key.removeprefix(prefix), None, entry["Size"], f"etag:{entry['ETag']}"))
    return found


def _open(storage: S3Storage, secrets: Secrets, file: StoredFile, start: int, stop: int) -> Any:
    request: dict[str, Any] = {"Bucket": storage.bucket, "Key": _prefix(storage) + file.path}
    if file.tag:
        request["IfMatch"] = file.tag.removeprefix("etag:")
    if start > 0 or stop < file.size:
        request["Range"] = f"bytes={start}-{stop - 1}"
    with _explained(storage, file):
        answer = _client(storage, secrets).get_object(**request)
    if "Range" in request and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
        answer["Body"].close()
        raise Interrupted(unreachable(storage, "it does not honour Range requests"))
    return answer["Body"]


def _next(storage: S3Storage, file: StoredFile, body: Any) -> bytes:
    with _explained(storage, file):
        chunk: bytes = body.read(CHUNK)
    return chunk


def _client(storage: S3Storage, secrets: Secrets) -> S3Client:
    """A client with the credentials that the storage names, or the platform's own if it says so."""
    key, secret = secrets.get("access_key_id_secret"), secrets.get("secret_access_key_secret")
    if not storage.use_sdk_auth and not (key and secret):
        raise BadRequest(
            "storage: name both access_key_id_secret and secret_access_key_secret, or set use_sdk_auth to true to use "
            "the server's own credentials"
        )
    if storage.use_sdk_auth and (key or secret):
        raise BadRequest("storage.use_sdk_auth: true contradicts the secrets that are named; leave one of them out")
    return _connected(storage.region, storage.endpoint_url, storage.signature_version, key, secret)


@lru_cache(maxsize=8)  # making one takes longer than most requests
def _connected(
    region: str | None, endpoint: str | None, signature: str, key: str | None, secret: str | None
) -> S3Client:
    config = Config(
        signature_version=signature,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1},  # `Sources` tries again
        ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]
    )
    return boto3.session.Session().client(
        "s3",
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=config,
    )


@contextmanager
def _explained(storage: S3Storage, file: StoredFile | None = None) -> Iterator[None]:
    """Whatever boto raises inside, as what it means to the user."""
    try:
        yield
    except (exceptions.ClientError, exceptions.BotoCoreError, OSError) as error:
        _explain(storage, error, file)


def _explain(storage: S3Storage, error: Exception, file: StoredFile | None) -> NoReturn:
    if not isinstance(error, exceptions.ClientError):
        if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
            raise BadRequest("storage.use_sdk_auth: the server has no AWS credentials; name secrets instead") from None
        if isinstance(error, (exceptions.ParamValidationError, exceptions.InvalidRegionError)):
            raise BadRequest(f"storage.bucket, region: {error}") from None
        raise Interrupted(unreachable(storage, type(error).__name__)) from None
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if file and (code in ("PreconditionFailed", "InvalidRange", "412", "416") or (code in MISSING and status == 404)):
        raise Changed(changed(file, "the object was replaced or removed")) from None
    if code in BUSY or status in (429, 503):
        raise Busy(unreachable(storage, f"it is busy ({code})")) from None
    if status >= 500:
        raise Interrupted(unreachable(storage, f"it answered {status} ({code})")) from None
    if code in DENIED or status in (401, 403):
        keys = f"'{storage.access_key_id_secret}'" if storage.access_key_id_secret else "the server's credentials"
        why = f"may not be read with {keys} ({code}): check the keys and that they allow s3:ListBucket and s3:GetObject"
    elif code in MISSING:
        why = "does not exist: check storage.bucket, region and endpoint_url"
    else:
        why = f"cannot be read ({code}): check storage.bucket, region and signature_version"
    raise BadRequest(f"Access denied or invalid storage: bucket '{storage.bucket}' {why}") from None


def _prefix(storage: S3Storage) -> str:
    """The prefix as a directory: `a` means what is below `a/`."""
    prefix = storage.prefix.strip("/")
    return f"{prefix}/" if prefix else ""
