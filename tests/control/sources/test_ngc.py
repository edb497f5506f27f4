"""Versions in the NGC catalogue: keys and tokens, pages, downloads elsewhere, refusals."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.sources.conftest import Shelf, pin
from tests.control.sources.standins.catalogue import Catalogue
from tunesmith.api.filesets import NgcStorage
from tunesmith.errors import BadRequest, Upstream

KEY = "canary-key-1234567890"
WEIGHTS = bytes(range(256)) * 9000
FILES = {"config.json": b"{}", "folder/a b.txt": b"text", "model.safetensors": WEIGHTS}


@pytest.fixture
def catalogue() -> Iterator[Catalogue]:
    with Catalogue(KEY) as catalogue:
        catalogue.versions = {"1.0": {"old.txt": b"old"}, "1.1": FILES}
        yield catalogue


def storage(catalogue: Catalogue, **changes: str) -> NgcStorage:
    given = {"org": "acme", "team": "team-a", "target": "tiny", "target_type": "model", "api_key_secret": "ngc"}
    return NgcStorage.model_validate({"type": "ngc", "host": catalogue.url, **given, **changes})


def test_the_latest_version_is_pinned_and_all_pages_of_its_files_are_listed(catalogue: Catalogue) -> None:
    pinned = pin(storage(catalogue), catalogue.url, ngc=KEY)
    assert isinstance(pinned.storage, NgcStorage)
    assert pinned.storage.version == "1.1"
    assert {file.path: file.size for file in pinned.files} == {path: len(content) for path, content in FILES.items()}
    assert pinned.files[2].tag == f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()}"
    assert len([each for each in catalogue.asked if each.path.startswith("/token")]) == 1


def test_a_version_that_was_named_and_a_resource_are_found(catalogue: Catalogue) -> None:
    pinned = pin(storage(catalogue, version="1.0"), catalogue.url, ngc=KEY)
    assert [file.path for file in pinned.files] == ["old.txt"]
    assert pinned.storage.original_version == "1.0"
    catalogue.collection = "resources"
    assert len(pin(storage(catalogue, target_type="resource"), catalogue.url, ngc=KEY).files) == 3


def test_a_personal_key_is_sent_as_it_is(catalogue: Catalogue) -> None:
    catalogue.key = "nvapi-canary"
    assert len(pin(storage(catalogue), catalogue.url, ngc="nvapi-canary").files) == 3
    assert {each.headers["authorization"] for each in catalogue.asked} == {"Bearer nvapi-canary"}


def test_files_come_whole_by_range_and_over_cuts_and_no_token_goes_to_where_they_lie(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    shelf = Shelf(tmp_path, (catalogue.url,), {"ngc": KEY})
    catalogue.cdn.cuts[hashlib.sha256(WEIGHTS).hexdigest()] = [1_200_000]

    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, storage(catalogue))
        weights = snapshot.files[[file.path for file in snapshot.files].index("model.safetensors")]
        assert await contents.read(snapshot, weights, 100, 56) == WEIGHTS[100:156]
        brought = await contents.bring(snapshot)
        assert {file.path: shelf.bytes_of(file) for file in brought.files} == FILES
        await contents.close()

    shelf.run(run())
    shelf.database.close()
    assert not any("authorization" in each.headers for each in catalogue.cdn.asked)


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({}, "wrong-key-canary", "the key in secret 'ngc' was refused.*PATCH /secrets"),
        ({}, "nvapi-wrong", "the key in secret 'ngc' was refused"),
        ({"target": "other"}, KEY, "does not exist.*check org, team, target"),
        ({"version": "9.9"}, KEY, "NGC model 'acme/team-a/tiny:9.9' does not exist"),
        ({"api_key_secret": "none"}, KEY, "Secret not found: Secret 'default/none' not found"),
        ({"host": "https://ngc.example.org"}, KEY, "not in allowed list"),
    ],
)
def test_what_may_not_be_read_is_400_with_the_way_out_and_without_the_key(
    catalogue: Catalogue, changes: dict[str, str], key: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(BadRequest, match=said) as refused:
        pin(storage(catalogue, **changes), catalogue.url, ngc=key)
    assert key not in refused.value.message + caplog.text


def test_a_version_that_is_still_being_uploaded_is_refused(catalogue: Catalogue) -> None:
    catalogue.incomplete = True
    with pytest.raises(BadRequest, match="its status is UPLOAD_PENDING"):
        pin(storage(catalogue), catalogue.url, ngc=KEY)


def test_a_catalogue_that_is_busy_is_asked_again_and_one_that_fails_is_502(catalogue: Catalogue) -> None:
    catalogue.busy = [(429, "0"), (503, "")]
    assert len(pin(storage(catalogue), catalogue.url, ngc=KEY).files) == 3
    catalogue.busy = [(500, "")]
    with pytest.raises(Upstream, match="it answered 500"):
        pin(storage(catalogue), catalogue.url, ngc=KEY)
