"""Buckets: pages, prefixes, credentials, objects that are replaced under our hands. The server is moto's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from tests.control.sources.conftest import REMOTE, Shelf, collect, pin
from tunesmith.api.filesets import S3Storage
from tunesmith.control.sources import registry
from tunesmith.control.sources.base import Changed
from tunesmith.control.sources.registry import Sources
from tunesmith.errors import BadRequest, Upstream
from tunesmith.settings import Settings

LARGE = bytes(range(256)) * 10_000
KEYS = {"key_id": "AKIACANARY", "key": "canary-secret-key"}


class Bucket:
    """A bucket of moto's server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=KEYS["key_id"],
            aws_secret_access_key=KEYS["key"],
        )

    def put(self, files: dict[str, bytes], bucket: str = "rows") -> None:
        for key, content in files.items():
            self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def storage(self, **changes: object) -> S3Storage:
        named = {"access_key_id_secret": "key_id", "secret_access_key_secret": "key"}
        given = {"bucket": "rows", "region": "us-east-1", "endpoint_url": self.url, **named, **changes}
        return S3Storage.model_validate({"type": "s3", **given})


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto: str) -> Iterator[Bucket]:
    bucket = Bucket(moto)
    bucket.client.create_bucket(Bucket="rows")
    yield bucket
    for page in bucket.client.get_paginator("list_objects_v2").paginate(Bucket="rows"):
        keys = [{"Key": entry["Key"]} for entry in page.get("Contents", ())]
        if keys:
            bucket.client.delete_objects(Bucket="rows", Delete={"Objects": keys})
    bucket.client.delete_bucket(Bucket="rows")


def test_what_is_below_the_prefix_is_listed_with_etags(bucket: Bucket) -> None:
    bucket.put({"data/a.jsonl": b"1", "data/deep/b.jsonl": b"22", "data/": b"", "database/c": b"3", "d": b"4"})
    pinned = pin(bucket.storage(prefix="/data"), bucket.url, **KEYS)
    assert [(file.path, file.size) for file in pinned.files] == [("a.jsonl", 1), ("deep/b.jsonl", 2)]
    assert all((file.tag or "").startswith('etag:"') for file in pinned.files)


def test_more_objects_than_fit_a_page_are_all_listed(bucket: Bucket) -> None:
    for number in range(1003):  # in moto's own memory: a thousand requests take ten seconds
        s3_backends["123456789012"]["aws"].put_object("rows", f"{number:05}", b"")
    assert len(pin(bucket.storage(), bucket.url, **KEYS).files) == 1003


def test_objects_are_read_by_range_and_brought_whole(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put({"large": LARGE, "small": b"{}", "empty": b""})
    shelf = Shelf(tmp_path, (bucket.url,), KEYS)

    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, bucket.storage())
        by_path = {file.path: file for file in snapshot.files}
        assert await contents.read(snapshot, by_path["large"], 1000, 24) == LARGE[1000:1024]
        assert await collect(contents, snapshot, by_path["empty"]) == b""
        brought = await contents.bring(snapshot)
        assert {file.path: shelf.bytes_of(file) for file in brought.files} == {
            "large": LARGE,
            "small": b"{}",
            "empty": b"",
        }
        await contents.close()

    shelf.run(run())
    shelf.database.close()


def test_an_object_that_was_replaced_is_noticed_and_the_list_is_made_anew(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put({"kept": b"kept", "large": LARGE})
    shelf = Shelf(tmp_path, (bucket.url,), KEYS)

    async def run() -> None:
        contents = shelf.contents()
        snapshot = await contents.bring(await shelf.fileset(contents, bucket.storage()))
        assert await contents.refresh(REMOTE) is False
        bucket.put({"large": LARGE[::-1], "new": b"new"})
        assert await contents.refresh(REMOTE) is True
        now = await shelf.now()
        assert {file.path: bool(file.digest) for file in now.files} == {"kept": True, "large": False, "new": False}
        assert shelf.bytes_of((await contents.bring(now)).files[1]) == LARGE[::-1]
        assert shelf.bytes_of(snapshot.files[1]) == LARGE  # what was pinned stays
        bucket.put({"new": b"old"})
        with pytest.raises(Changed, match="'new' has changed in its storage since it was listed"):
            await contents.read(snapshot, now.files[2], 1, 1)
        await contents.close()

    shelf.run(run())
    shelf.database.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bucket": "none-such"}, "bucket 'none-such' does not exist: check storage.bucket"),
        ({"bucket": "Not A Bucket!"}, "storage.bucket"),
        ({"access_key_id_secret": None}, "name both access_key_id_secret and secret_access_key_secret"),
        ({"use_sdk_auth": True}, "use_sdk_auth: true contradicts the secrets"),
        ({"access_key_id_secret": "none"}, "Secret not found: Secret 'default/none' not found"),
        ({"endpoint_url": "http://127.0.0.1:1"}, "not in allowed list"),
    ],
)
def test_what_cannot_be_read_is_400_with_the_way_out(bucket: Bucket, changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadRequest, match=said) as refused:
        pin(bucket.storage(**changes), bucket.url, **KEYS)
    assert KEYS["key"] not in refused.value.message


def test_the_servers_own_credentials_are_used_where_that_is_asked_for(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-server")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-server")
    bucket.put({"a": b"1"})
    own = bucket.storage(use_sdk_auth=True, access_key_id_secret=None, secret_access_key_secret=None)
    assert [file.path for file in pin(own, bucket.url).files] == ["a"]


def test_a_storage_that_is_not_there_is_502(bucket: Bucket) -> None:
    nowhere = "http://127.0.0.1:9"
    with pytest.raises(Upstream, match=f"Storage backend unavailable: {nowhere}"):
        pin(bucket.storage(endpoint_url=nowhere), nowhere, **KEYS)


def test_without_boto3_the_answer_names_the_extra(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tunesmith.control.sources.s3", raising=False)
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setattr(registry, "ATTEMPTS", 1)
    sources = Sources(Settings(allowed_endpoints=(bucket.url,)), object())
    with pytest.raises(BadRequest, match=r"pip install 'tunesmith\[s3\]'"):
        sources._source(bucket.storage())
