"""Remote bytes: by Range, through the cache, fetched whole; cut, resumed, wrong, and wanted by many at once."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.control.sources.conftest import Shelf, collect
from tests.control.sources.standins.hub import Hub
from tests.live import eventually
from tunesmith.api.filesets import HuggingFaceStorage
from tunesmith.control import contents as contents_module
from tunesmith.control.contents import Progress
from tunesmith.control.sources.fetch import Mismatch
from tunesmith.errors import BadRequest, DiskFull, Upstream
from tunesmith.refs import Ref
from tunesmith.store import blobs
from tunesmith.store.partials import Partials

LARGE = b"".join(number.to_bytes(4, "big") for number in range(1 << 20))
"""4 MiB in which every part is another."""
SMALL = b'{"model_type": "llama"}'
CANARY = "hf_canary1234567890"


def remote(hub: Hub, **changes: str) -> HuggingFaceStorage:
    return HuggingFaceStorage.model_validate({"type": "huggingface", "repo_id": "acme/tiny", **changes})


async def until(true: Callable[[], bool]) -> None:
    """Let others work until it is true."""
    await asyncio.to_thread(eventually, true, "the fetch to get there")


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents_module, "LATER_SECONDS", ())


@pytest.fixture
def tiny(hub: Hub) -> Hub:
    hub.add("acme/tiny", {"config.json": SMALL, "model.safetensors": LARGE})
    return hub


def test_a_part_is_read_by_range_and_nothing_is_kept(tiny: Hub, shelf: Shelf) -> None:
    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, remote(tiny))
        weights = snapshot.files[1]
        assert await contents.read(snapshot, weights, 8, 1000) == LARGE[8:1008]
        assert await collect(contents, snapshot, weights, start=len(LARGE) - 10) == LARGE[-10:]
        assert [each.range for each in tiny.cdn.asked] == ["bytes=8-1007", f"bytes={len(LARGE) - 10}-{len(LARGE) - 1}"]
        assert contents.cache_status(await shelf.now(), weights) == "not_cached"
        await contents.close()

    shelf.run(run())


def test_the_first_whole_download_is_kept_and_the_second_asks_nobody(tiny: Hub, shelf: Shelf) -> None:
    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, remote(tiny))
        assert await collect(contents, snapshot, snapshot.files[1]) == LARGE
        now = await shelf.now()
        assert now.files[1].digest == hashlib.sha256(LARGE).hexdigest()
        assert contents.cache_status(now, now.files[1]) == "cached"
        assert await collect(contents, now, now.files[1]) == LARGE
        assert await collect(contents, now, now.files[1], start=5, stop=9) == LARGE[5:9]
        assert len(tiny.cdn.asked) == 1
        await contents.close()

    shelf.run(run())


def test_what_does_not_fit_the_disk_is_not_begun(tiny: Hub, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "RESERVE_BYTES", 1 << 60)

    async def run() -> None:
        contents = shelf.contents()
        with pytest.raises(DiskFull, match="free some space"):
            await contents.bring(await shelf.fileset(contents, remote(tiny)))
        await contents.close()

    shelf.run(run())
    assert not tiny.cdn.asked


def test_a_token_goes_to_the_hub_and_not_to_where_it_redirects(hub: Hub, shelf: Shelf) -> None:
    hub.add("acme/tiny", {"model.safetensors": LARGE}, token=CANARY)

    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, remote(hub, token_secret="hub"))
        assert (await contents.bring(snapshot)).files[0].digest
        await contents.close()

    shelf.run(run())
    assert {each.headers.get("authorization") for each in hub.asked} == {f"Bearer {CANARY}"}
    assert [each.headers.get("authorization") for each in hub.cdn.asked] == [None]


def test_a_fileset_is_brought_whole_with_progress(tiny: Hub, shelf: Shelf) -> None:
    async def run() -> None:
        contents, progress = shelf.contents(), Progress()
        snapshot = await contents.bring(await shelf.fileset(contents, remote(tiny)), progress)
        assert [shelf.bytes_of(file) for file in snapshot.files] == [SMALL, LARGE]
        assert (progress.total_files, progress.downloaded_files) == (2, 2)
        assert progress.total_bytes == progress.downloaded_bytes == len(SMALL) + len(LARGE)
        assert await shelf.now() == snapshot
        assert await contents.bring(snapshot) is snapshot
        await contents.close()

    shelf.run(run())
    assert list((shelf.root / "blobs" / "partial").iterdir()) == []


def test_a_stream_that_is_cut_goes_on_where_it_ended(tiny: Hub, shelf: Shelf) -> None:
    tiny.cdn.cuts["model.safetensors"] = []
    digest = hashlib.sha256(LARGE).hexdigest()
    tiny.cdn.cuts[digest] = [1_500_000, 100_000]

    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, remote(tiny))
        assert await collect(contents, snapshot, snapshot.files[1]) == LARGE
        await contents.close()

    shelf.run(run())
    assert [each.range for each in tiny.cdn.asked] == [
        None,
        f"bytes=1500000-{len(LARGE) - 1}",
        f"bytes=1600000-{len(LARGE) - 1}",
    ]


def test_a_server_that_ignores_ranges_is_read_from_its_start(tiny: Hub, shelf: Shelf) -> None:
    tiny.cdn.ignores_range = True
    tiny.cdn.cuts[hashlib.sha256(LARGE).hexdigest()] = [2_000_000]

    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, remote(tiny))
        assert await contents.read(snapshot, snapshot.files[1], 100, 50) == LARGE[100:150]
        assert shelf.bytes_of((await contents.bring(snapshot)).files[1]) == LARGE
        await contents.close()

    shelf.run(run())


def test_a_fetch_that_was_stopped_goes_on_in_the_next_servers_life(tiny: Hub, shelf: Shelf) -> None:
    tiny.cdn.hold[hashlib.sha256(LARGE).hexdigest()] = 3 << 20

    async def stopped() -> None:
        contents, progress = shelf.contents(), Progress()
        snapshot = await shelf.fileset(contents, remote(tiny))
        task = asyncio.create_task(contents.bring(snapshot, progress))
        await until(lambda: progress.downloaded_bytes >= 2 << 20)
        assert contents.cache_status(snapshot, snapshot.files[1]) == "caching"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await contents.close()

    async def gone_on() -> None:
        contents = shelf.contents()
        snapshot = await contents.bring(await shelf.now())
        assert [shelf.bytes_of(file) for file in snapshot.files] == [SMALL, LARGE]
        await contents.close()

    shelf.run(stopped())
    tiny.cdn.release.set()
    shelf.run(gone_on())
    first, second = (each.range for each in tiny.cdn.asked)
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").partition("-")[0]) >= 2 << 20


def test_a_file_is_fetched_once_however_many_want_it(tiny: Hub, shelf: Shelf) -> None:
    digest = hashlib.sha256(LARGE).hexdigest()
    tiny.cdn.hold[digest] = 1 << 20

    async def run() -> None:
        contents = shelf.contents()
        first = await shelf.fileset(contents, remote(tiny))
        second = await shelf.fileset(contents, remote(tiny), "twin")
        tasks = [asyncio.create_task(contents.bring(snapshot)) for snapshot in (first, second, first)]
        readers = [asyncio.create_task(collect(contents, second, second.files[1])) for _ in range(3)]
        await until(lambda: bool(tiny.cdn.asked))
        tiny.cdn.release.set()
        for snapshot in await asyncio.gather(*tasks):
            assert shelf.bytes_of(snapshot.files[1]) == LARGE
        assert await asyncio.gather(*readers) == [LARGE] * 3
        await contents.close()

    shelf.run(run())
    assert len(tiny.cdn.asked) == 1


def test_bytes_that_are_here_under_the_digest_that_the_hub_names_are_not_fetched(tiny: Hub, shelf: Shelf) -> None:
    async def run() -> None:
        contents = shelf.contents()
        with shelf.blobs.writer() as writer:
            writer.write(LARGE)
            writer.keep()
        snapshot = await contents.bring(await shelf.fileset(contents, remote(tiny)))
        assert shelf.bytes_of(snapshot.files[1]) == LARGE
        assert (await shelf.now()).files[1].digest == snapshot.files[1].digest
        await contents.close()

    shelf.run(run())
    assert not tiny.cdn.asked


def test_bytes_that_are_not_what_the_hub_said_are_thrown_away(hub: Hub, shelf: Shelf) -> None:
    hub.add("acme/tiny", {"model.safetensors": LARGE}, false_digests={"model.safetensors": "ab" * 32})

    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, remote(hub))
        with pytest.raises(Mismatch, match=r"'model.safetensors' came with sha256 .* had said abab"):
            await contents.bring(snapshot)
        with pytest.raises(Mismatch):  # a reader never gets the last bytes of a wrong file
            await collect(contents, snapshot, snapshot.files[0])
        assert await shelf.now() == snapshot
        await contents.close()

    shelf.run(run())
    assert list((shelf.root / "blobs" / "partial").iterdir()) == []


def test_a_damaged_partial_file_is_noticed_and_fetched_anew(
    tiny: Hub, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents_module, "LATER_SECONDS", (0.0,))

    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, remote(tiny))
        identity = contents._identity(snapshot, snapshot.files[1])
        with contents.partials.open(*identity) as partial:
            partial.append(bytes(1000))
        assert shelf.bytes_of((await contents.bring(snapshot)).files[1]) == LARGE
        await contents.close()

    shelf.run(run())


def test_a_small_file_is_held_against_its_git_id(tiny: Hub, shelf: Shelf) -> None:
    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, remote(tiny))
        wrong = replace(snapshot, files=(replace(snapshot.files[0], tag="git:" + "0" * 40),))
        with pytest.raises(Mismatch, match="came with git"):
            await contents.bring(wrong)
        await contents.close()

    shelf.run(run())


def test_a_file_that_is_gone_or_of_another_length_is_an_error_that_names_it(tiny: Hub, shelf: Shelf) -> None:
    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, remote(tiny))
        tiny.repositories["models/acme/tiny"].files = {"config.json": b"{}"}
        with pytest.raises(BadRequest, match="has no such file"):
            await contents.read(snapshot, snapshot.files[1])
        with pytest.raises(Exception, match=r"'config.json' has changed .* 2 bytes, not 23"):
            await contents.read(snapshot, snapshot.files[0])
        await contents.close()

    shelf.run(run())


def test_a_storage_that_stays_away_is_an_error_that_names_it(tiny: Hub, shelf: Shelf) -> None:
    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, remote(tiny))
        tiny.busy = [(500, "")] * 100
        with pytest.raises(Upstream, match=f"Storage backend unavailable: {tiny.url}: it answered 500"):
            await contents.bring(snapshot)
        await contents.close()

    shelf.run(run())


def test_a_reader_who_hangs_up_stops_the_fetch_and_what_came_is_kept(tiny: Hub, shelf: Shelf) -> None:
    tiny.cdn.hold[hashlib.sha256(LARGE).hexdigest()] = 2 << 20

    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, remote(tiny))
        chunks = contents.stream(snapshot, snapshot.files[1])
        assert await anext(chunks) == LARGE[: 1 << 20]
        await chunks.aclose()  # type: ignore[attr-defined]
        assert contents.cache_status(snapshot, snapshot.files[1]) == "not_cached"
        assert sum(path.stat().st_size for path in contents.partials.root.iterdir()) >= 1 << 20
        await contents.close()

    shelf.run(run())


def test_partial_files_that_nobody_goes_on_with_are_dropped_after_a_week(shelf: Shelf) -> None:
    with Partials(shelf.blobs).open("old") as old, Partials(shelf.blobs).open("new") as new:
        old.append(b"1")
        new.append(b"1")
    os.utime(old.path, (time.time() - 8 * 24 * 3600,) * 2)
    Partials(shelf.blobs)
    assert not old.path.exists()
    assert new.path.exists()


def test_what_is_dropped_from_the_cache_is_fetched_again(tiny: Hub, shelf: Shelf) -> None:
    async def run() -> None:
        contents = shelf.contents()
        snapshot = await contents.bring(await shelf.fileset(contents, remote(tiny)))
        shelf.blobs.path(snapshot.files[1].digest or "").unlink()
        assert await collect(contents, snapshot, snapshot.files[1]) == LARGE
        assert shelf.bytes_of((await shelf.now()).files[1]) == LARGE
        await contents.close()

    shelf.run(run())


def test_what_was_fetched_counts_only_for_the_version_it_was_fetched_for(tiny: Hub, shelf: Shelf) -> None:
    async def run() -> None:
        contents = shelf.contents()
        snapshot = await shelf.fileset(contents, remote(tiny))
        await contents.bring(snapshot)
        other = replace(snapshot.files[1], tag="sha256:" + "1" * 64)
        await shelf.database.write(lambda tx: tx.filesets.relist(Ref("default", "remote"), [snapshot.files[0], other]))
        now = await shelf.now()
        assert [bool(file.digest) for file in now.files] == [True, False]
        await contents.close()

    shelf.run(run())
