"""Garbage collection: what nothing needs goes, what anything needs stays, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from tests.live import FILES, LiveServer, Wire
from tunesmith.control.garbage import collect_alone
from tunesmith.control.services import Services
from tunesmith.store.database import Tx
from tunesmith.store.filesets import StoredFile
from tunesmith.store.ids import now
from tunesmith.store.tables import job_steps, jobs

GC = "/apis/files/v2/gc"


@pytest.fixture
def services(live: LiveServer) -> Services:
    return live.server.config.app.state.services


def collect(wire: Wire, **asked: Any) -> dict[str, Any]:
    answer = wire.http.post(GC, json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def held(services: Services) -> int:
    return len(list(services.blobs.all()))


def test_bytes_go_when_their_last_file_does(wire: Wire, services: Services) -> None:
    wire.fileset("one", {"a": b"shared", "b": b"only here"})
    wire.fileset("two", {"c": b"shared"})
    assert collect(wire)["blobs"] == 0
    wire.http.delete(f"{FILES}/one")
    counted = collect(wire, dry_run=True)
    assert (counted["blobs"], counted["blob_bytes"], counted["dry_run"]) == (1, 9, True)
    assert held(services) == 2
    done = collect(wire)
    assert (done["blobs"], done["bytes"], done["dry_run"]) == (1, 9, False)
    assert wire.http.get(f"{FILES}/two/-/c").content == b"shared"
    wire.http.put(f"{FILES}/two/-/c", content=b"other")
    assert collect(wire)["blobs"] == 1
    assert held(services) == 1


def test_a_request_that_cannot_be_meant_is_422(wire: Wire) -> None:
    for wrong in ({"dry_run": "perhaps"}, {"colour": "red"}, []):
        assert wire.http.post(GC, json=wrong).status_code == 422


@pytest.mark.usefixtures("small_trainer")
def test_a_job_keeps_its_inputs_though_their_fileset_is_deleted(wire: Wire, services: Services) -> None:
    wire.model()
    wire.dataset(behaviour="hang")
    assert wire.submit().status_code == 201
    wire.wait("job", "active")
    wire.http.delete(f"{FILES}/rows")
    wire.http.delete(f"{FILES}/base")
    assert collect(wire)["blobs"] == 0
    assert wire.state()["status"] == "active"
    wire.http.post("/apis/jobs/v2/workspaces/default/jobs/job/cancel")
    wire.wait()
    assert collect(wire)["blobs"] == 0


@pytest.mark.usefixtures("small_trainer")
def test_an_old_job_loses_inputs_and_artifact_and_keeps_plan_and_logs(wire: Wire, services: Services) -> None:
    wire.model()
    wire.dataset()
    assert wire.submit().status_code == 201
    assert wire.wait()["status"] == "completed"
    (run,) = (services.data_dir.root / "runs").iterdir()
    assert (run / "inputs").is_dir()
    (run / ".artifact.tmp").mkdir()  # as a trainer leaves it that dies while it writes
    assert collect(wire)["runs"] == 0

    def grow_old(tx: Tx) -> None:
        then = now() - timedelta(days=31)
        tx.connection.execute(update(jobs).values(created_at=then))
        tx.connection.execute(update(job_steps).values(updated_at=then))

    asyncio.run(services.database.write(grow_old))
    wire.http.delete(f"{FILES}/rows")
    assert collect(wire, dry_run=True)["runs"] == 1
    assert (run / "inputs").is_dir()
    done = collect(wire)
    assert done["runs"] == 1
    assert done["blobs"] >= 1
    assert not any((run / part).exists() for part in ("inputs", "checkpoints", "artifact", ".artifact.tmp"))
    assert (run / "plan.json").is_file()
    assert wire.http.get("/apis/jobs/v2/workspaces/default/jobs/job/logs").status_code == 200
    assert wire.http.get(f"{FILES}/base/-/config.json").status_code == 200
    assert collect(wire)["runs"] == 0


def test_a_run_that_belongs_to_no_job_goes_once_it_is_old(wire: Wire, services: Services) -> None:
    left = services.data_dir.run("platform-job-gone")
    left.mkdir(parents=True)
    (left / "checkpoint").write_bytes(b"x" * 100)
    assert collect(wire)["leftovers"] == 0
    os.utime(left, (0, 0))
    done = collect(wire)
    assert (done["leftovers"], done["leftover_bytes"]) == (1, 100)
    assert not left.exists()


def test_a_soft_link_of_a_run_holds_its_blob(wire: Wire, services: Services) -> None:
    wire.fileset("rows", {"f": b"linked"})
    (blob,) = services.blobs.all()
    left = services.data_dir.run("platform-job-young") / "inputs"
    left.mkdir(parents=True)
    (left / "f").symlink_to(services.blobs.path(blob.digest))
    wire.http.delete(f"{FILES}/rows")
    assert collect(wire)["blobs"] == 0
    (left / "f").unlink()
    assert collect(wire)["blobs"] == 1


def test_the_copy_of_a_remote_file_goes_when_nobody_reads_it(wire: Wire, services: Services) -> None:
    storage = {"type": "huggingface", "repo_id": "a/b", "revision": "c" * 40, "endpoint": "http://127.0.0.1:1"}
    wire.fileset("far", {})

    def keep() -> str:
        with services.blobs.writer() as writer:
            writer.write(b"remote")
            return writer.keep()

    digest = keep()

    def make_remote(tx: Tx) -> None:
        from tunesmith.refs import Ref
        from tunesmith.store.tables import filesets

        tx.connection.execute(update(filesets).values(storage=storage))
        tx.filesets.relist(Ref("default", "far"), [StoredFile("f", None, 6, "git:1")])
        tx.filesets.fetched(Ref("default", "far"), StoredFile("f", None, 6, "git:1"), digest)

    asyncio.run(services.database.write(make_remote))
    assert collect(wire)["cached_files"] == 0
    os.utime(services.blobs.path(digest), (0, 0))
    assert collect(wire, dry_run=True)["cached_files"] == 1
    done = collect(wire)
    assert (done["cached_files"], done["blobs"]) == (1, 1)
    answer = wire.http.get(f"{FILES}/far/files", params={"include_cache_status": True})
    (file,) = answer.json()["data"]
    assert (file["digest"], file["cache_status"]) == (None, "not_cached")


def test_a_directory_is_collected_by_whoever_has_it(tmp_path: Path) -> None:
    from tests.live import settings

    with LiveServer(settings(tmp_path)) as live:
        wire = Wire(live.http)
        wire.fileset("rows", {"f": b"123"})
        wire.http.delete(f"{FILES}/rows")
        assert collect_alone(settings(tmp_path)) is None
    found = collect_alone(settings(tmp_path))
    assert found is not None
    assert (found.blobs, found.bytes) == (1, 3)


def test_uploads_survive_a_collector_that_never_rests(wire: Wire, live: LiveServer) -> None:
    import httpx

    wire.fileset("rows", {})

    async def race() -> None:
        async with httpx.AsyncClient(base_url=live.url, timeout=60) as http:
            over = asyncio.Event()

            async def collect_on() -> None:
                while not over.is_set():
                    assert (await http.post(GC, json={})).status_code == 200

            async def put_and_remove(i: int) -> None:
                for _ in range(8):
                    await http.put(f"{FILES}/rows/-/gone{i}", content=b"same bytes")
                    await http.delete(f"{FILES}/rows/-/gone{i}")
                    await http.put(f"{FILES}/rows/-/kept{i}", content=b"same bytes")
                    answer = await http.get(f"{FILES}/rows/-/kept{i}")
                    assert answer.content == b"same bytes", answer.text
                    await http.delete(f"{FILES}/rows/-/kept{i}")

            collecting = asyncio.create_task(collect_on())
            await asyncio.gather(*(put_and_remove(i) for i in range(4)))
            over.set()
            await collecting

    asyncio.run(race())
