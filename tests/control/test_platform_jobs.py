"""Platform jobs in real processes: steps in order, what workers say, cancel, pause, servers that come and go."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.control.platform import Platform, allowing, python, shell
from tests.live import FILES, JOBS, LiveServer, eventually
from tests.postgres import postgres_server, postgres_url  # noqa: F401 fixtures
from tunesmith.control import backup
from tunesmith.store.database import Database

LONG = "echo started; sleep 60"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A user where platform jobs are allowed."""
    with LiveServer(allowing(tmp_path)) as server:
        user = Platform(server.http)
        yield user
        user.sweep(tmp_path / "data")


def started(platform: Platform, name: str = "job") -> None:
    """Wait until the job's process has said so."""
    eventually(lambda: "started" in platform.log(name), f"the process of {name}")


# -- steps -----------------------------------------------------------------------------------------------------------


def test_steps_run_in_order_and_each_appears_when_the_one_before_is_completed(
    platform: Platform, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    wait = f"until [ -e {go} ]; do sleep 0.02; done; echo one > $NEMO_JOB_PERSISTENT_JOB_STORAGE_PATH/note"
    made = platform.post(shell("first", wait), shell("second", "cat $NEMO_JOB_PERSISTENT_JOB_STORAGE_PATH/note")).json()
    assert made["status"] == "created"
    assert made["fileset"] == "job-fileset-job"
    assert [step["name"] for step in made["platform_spec"]["steps"]] == ["first", "second"]
    eventually(lambda: platform.state()["status"] == "active", "the first step")
    assert [step["name"] for step in platform.state()["steps"]] == ["first"]
    go.touch()
    state = platform.wait()
    assert [(step["name"], step["status"]) for step in state["steps"]] == [
        ("first", "completed"),
        ("second", "completed"),
    ]
    assert state["status"] == "completed"
    assert state["status_details"]["message"] == "Job completed successfully with exit code 0"
    assert [task["status"] for step in state["steps"] for task in step["tasks"]] == ["completed", "completed"]
    assert platform.log() == ["one"]


def test_a_worker_is_told_who_and_where_it_is_and_gets_its_secrets(platform: Platform) -> None:
    secrets = "/apis/secrets/v2/workspaces/default/secrets"
    assert platform.http.post(secrets, json={"name": "pass", "value": "open sesame"}).status_code == 201
    code = (
        "import os, json; path = os.environ['NEMO_JOB_STEP_CONFIG_FILE_PATH']; "
        "print(json.dumps({**os.environ, 'config': json.load(open(path))}))"
    )
    variables = [{"name": "PLAIN", "value": "a b"}, {"name": "PASS", "from_secret": {"name": "pass"}}]
    state = platform.run(python("tell", code, environment=variables, config={"depth": 3}))
    assert state["status"] == "completed", state
    told = json.loads(platform.log()[0])
    job = platform.http.get(f"{JOBS}/job").json()
    assert told["NEMO_JOB_ID"] == "job"
    assert told["NEMO_JOB_WORKSPACE"] == "default"
    assert told["NEMO_JOB_STEP"] == "tell"
    assert told["NEMO_JOB_ATTEMPT_ID"] == job["attempt_id"]
    assert told["NEMO_JOB_TASK"] == state["steps"][0]["tasks"][0]["name"]
    assert told["NMP_BASE_URL"] == told["TUNESMITH_BASE_URL"] == str(platform.http.base_url).rstrip("/")
    assert told["config"] == {"depth": 3}
    assert (told["PLAIN"], told["PASS"]) == ("a b", "open sesame")
    assert told["CUDA_VISIBLE_DEVICES"] == ""
    assert "open sesame" not in json.dumps(job)


def test_a_step_that_fails_ends_the_job_with_its_last_words(platform: Platform) -> None:
    state = platform.run(shell("bad", "echo so long; echo oh no >&2; exit 3"), shell("never", "true"))
    assert state["status"] == "error"
    assert state["error_details"]["message"] == "Job exited with code 3"
    assert state["error_details"]["type"] == "StepError"
    assert "oh no" in state["error_details"]["detail"]
    assert state["steps"][0]["error_details"] == state["error_details"]
    assert [step["name"] for step in state["steps"]] == ["bad"]
    assert sorted(platform.log()) == ["[stderr] oh no", "so long"]


def test_a_program_that_is_not_there_is_named(platform: Platform) -> None:
    state = platform.run({"name": "lost", "executor": {"provider": "subprocess", "command": ["/no/such/thing"]}})
    assert state["error_details"]["message"] == "Job exited with code 127"
    assert "/no/such/thing" in state["error_details"]["detail"]


def test_a_cpu_container_is_run_as_a_process(platform: Platform) -> None:
    container = {"image": "busybox", "entrypoint": ["/bin/sh"], "command": ["-c", "echo inside"]}
    state = platform.run({"name": "boxed", "executor": {"provider": "cpu", "container": container}})
    assert state["status"] == "completed"
    executor = platform.http.get(f"{JOBS}/job").json()["platform_spec"]["steps"][0]["executor"]
    assert executor == {"provider": "subprocess", "profile": "default", "command": ["/bin/sh", "-c", "echo inside"]}
    assert platform.log() == ["inside"]


def test_a_step_that_is_silent_for_too_long_is_ended(platform: Platform) -> None:
    state = platform.run(shell("mute", LONG, lifecycle={"staleness_timeout_seconds": 1}))
    assert state["status"] == "error"
    assert state["error_details"]["type"] == "StepTimeoutError"
    assert (
        "no status, task or output for 1 s (lifecycle.staleness_timeout_seconds)" in state["error_details"]["message"]
    )


def test_fifty_quick_jobs_are_all_completed(platform: Platform) -> None:
    for number in range(50):
        assert platform.post(shell("only", "true"), name=f"quick-{number}").status_code == 201

    def completed() -> int:
        found = platform.http.get(JOBS, params={"filter[status]": "completed", "page_size": 100}).json()
        return int(found["pagination"]["total_results"])

    eventually(lambda: completed() == 50, "50 completed jobs")


# -- what workers say ------------------------------------------------------------------------------------------------


def test_what_a_worker_says_of_its_step_and_tasks_is_the_jobs_too(platform: Platform) -> None:
    platform.post(shell("work", LONG), shell("after", "true"))
    started(platform)
    step = f"{JOBS}/job/steps/work"
    task = platform.http.put(f"{step}/tasks/task-one", json={"status": "active", "status_details": {"rows": 7}})
    assert task.status_code == 200, task.text
    assert platform.http.get(f"{step}/tasks/task-one").json()["status_details"] == {"rows": 7}
    again = {"status": "completed", "status_details": {"more": 1}}
    assert platform.http.put(f"{step}/tasks/task-one", json=again).json()["status_details"] == {"rows": 7, "more": 1}
    assert platform.http.patch(f"{JOBS}/job/status-details", json={"note": "mine"}).json() is None
    details = platform.state()["status_details"]
    assert (details["rows"], details["more"], details["note"]) == (7, 1, "mine")
    moved = platform.http.patch(f"{step}/status", json={"status": "created"})
    assert moved.status_code == 409
    assert moved.headers["x-should-retry"] == "false"
    assert "Cannot update job step 'work' to status 'created' from its current state." in moved.json()["detail"]
    before = platform.http.get(f"{JOBS}/job").json()["updated_at"]
    done = platform.http.patch(f"{step}/status", json={"status": "completed", "status_details": {"done": True}})
    assert done.status_code == 200, done.text
    assert done.json()["config"] == {"_step_spec_name": "work"}
    assert platform.state()["status"] == "active"
    assert [each["status"] for each in platform.state()["steps"]] == ["completed", "created"]
    assert platform.http.get(f"{JOBS}/job").json()["updated_at"] == before


def test_an_error_that_a_worker_reports_stands_though_its_process_ends_well(platform: Platform) -> None:
    report = (
        "import json, os, urllib.request as u\n"
        "e = os.environ\n"
        "url = f\"{e['NMP_JOBS_URL']}/apis/jobs/v2/workspaces/{e['NEMO_JOB_WORKSPACE']}/jobs/{e['NEMO_JOB_ID']}\"\n"
        "body = json.dumps({'status': 'error', 'error_details': {'message': 'bad luck'}}).encode()\n"
        "url += f\"/steps/{e['NEMO_JOB_STEP']}/status\"\n"
        "u.urlopen(u.Request(url, body, {'content-type': 'application/json'}, method='PATCH'))\n"
    )
    state = platform.run(python("report", report))
    assert state["status"] == "error"
    assert state["error_details"] == {"message": "bad luck"}
    eventually(lambda: platform.http.delete(f"{JOBS}/job").status_code == 204, "the job to be deleted")


def test_steps_are_listed_over_all_jobs_and_by_status(platform: Platform) -> None:
    platform.run(shell("only", "true"), name="done")
    platform.post(shell("work", LONG), name="busy")
    started(platform, "busy")

    def listed(name: str, **query: str) -> list[tuple[str, str]]:
        page = platform.http.get(f"{JOBS}/{name}/steps", params=query).json()
        return [(each["job"], each["name"]) for each in page["data"]]

    assert listed("-") == [("done", "only"), ("busy", "work")]
    assert listed("-", **{"filter[status]": "active,pending"}) == [("busy", "work")]
    assert listed("done") == [("done", "only")]
    assert listed("gone") == []
    found = platform.http.get(f"{JOBS}/done/steps").json()["data"][0]
    assert found["step_spec"]["executor"]["command"] == ["/bin/sh", "-c", "true"]
    assert platform.http.get(f"{JOBS}/done/steps/none").json()["detail"] == (
        "Step 'none' for job 'done' not found in workspace 'default'."
    )


def test_logs_are_narrowed_to_attempt_step_and_task(platform: Platform) -> None:
    state = platform.run(shell("one", "echo 1"), shell("two", "echo 2"))
    first, second = state["steps"]
    attempt = platform.http.get(f"{JOBS}/job").json()["attempt_id"]
    assert platform.log() == ["1", "2"]
    assert platform.log(step_id=first["id"]) == platform.log(step_id="one") == ["1"]
    assert platform.log(task_id=second["tasks"][0]["name"]) == ["2"]
    assert platform.log(attempt_id=attempt) == ["1", "2"]
    assert platform.log(attempt_id="another") == []


# -- results ---------------------------------------------------------------------------------------------------------


def test_results_are_registered_and_downloaded(platform: Platform) -> None:
    platform.run(shell("only", "true"))
    for path, content in {"out/a.json": b"{}", "out/deep/b.txt": b"hello"}.items():
        assert platform.http.put(f"{FILES}/job-fileset-job/-/{path}", content=content).status_code == 200
    results = f"{JOBS}/job/results"

    def register(name: str, url: str) -> int:
        body = {"artifact_url": url, "artifact_storage_type": "fileset"}
        return platform.http.post(f"{results}/{name}", json=body).status_code

    assert register("numbers", "job-fileset-job#out/a.json") == 201
    assert register("numbers", "job-fileset-job#out/a.json") == 409
    assert register("folder", "fileset://default/job-fileset-job#out/") == 201
    assert register("missing", "default/job-fileset-job#none") == 201
    assert register("wrong", "/a/b/c/d") == 422
    job = platform.http.get(f"{JOBS}/job").json()
    listed = platform.http.get(results, params={"sort": "-name"}).json()["data"]
    assert [(each["name"], each["job"]) for each in listed] == [
        (name, job["id"]) for name in ("numbers", "missing", "folder")
    ]
    file = platform.http.get(f"{results}/numbers/download")
    assert file.headers["content-type"] == "application/json"
    assert file.headers["content-disposition"] == 'attachment; filename="numbers"'
    assert file.content == b"{}"
    packed = platform.http.get(f"{results}/folder/download")
    assert packed.headers["content-disposition"] == 'attachment; filename="folder.tar.gz"'
    with tarfile.open(fileobj=io.BytesIO(packed.content), mode="r:gz") as archive:
        assert archive.getnames() == ["a.json", "deep/b.txt"]
        inside = archive.extractfile("deep/b.txt")
        assert inside is not None
        assert inside.read() == b"hello"
    assert platform.http.get(f"{results}/missing/download").status_code == 404
    assert platform.http.get(f"{results}/none").json()["detail"] == (
        "Result 'none' for job 'job' not found in workspace 'default'."
    )


# -- cancel, pause, delete -------------------------------------------------------------------------------------------


def test_a_job_that_has_not_begun_is_cancelled_at_once(tmp_path: Path) -> None:
    with LiveServer(allowing(tmp_path, platform_job_slots=1)) as server:
        platform = Platform(server.http)
        platform.post(shell("work", LONG), name="first")
        started(platform, "first")
        platform.post(shell("work", "true"), name="second")
        assert platform.http.post(f"{JOBS}/second/cancel").json()["status"] == "cancelled"
        assert platform.http.post(f"{JOBS}/first/cancel").json()["status"] == "cancelling"
        state = platform.wait("first")
        assert state["status"] == "cancelled"
        assert state["status_details"]["message"] == "Job was cancelled with exit code -15"
        assert platform.http.post(f"{JOBS}/first/cancel").json()["status"] == "cancelled"


def test_a_paused_step_starts_again_from_its_beginning(platform: Platform, tmp_path: Path) -> None:
    again = tmp_path / "again"
    platform.post(shell("work", f"echo started; [ -e {again} ] || sleep 60"))
    started(platform)
    assert platform.http.post(f"{JOBS}/job/pause").json()["status"] == "pausing"
    cancelled = platform.http.post(f"{JOBS}/job/cancel")
    if cancelled.status_code == 409:  # it may have been paused by then
        assert cancelled.json()["detail"].startswith("Cannot cancel job 'job' from its current state.")
    assert platform.wait("job", "paused", "cancelled")["status"] == "paused"
    again.touch()
    assert platform.http.post(f"{JOBS}/job/resume").json()["status"] == "resuming"
    assert platform.wait()["status"] == "completed"
    assert platform.log() == ["started", "started"]


def test_a_deleted_job_is_gone_with_its_fileset_and_its_processes(platform: Platform, tmp_path: Path) -> None:
    platform.post(python("work", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"))
    pid = int(eventually(platform.log, "its pid")[0])
    job_id = platform.state()["id"]
    assert platform.http.get(f"{FILES}/job-fileset-job").status_code == 200
    assert platform.http.delete(f"{JOBS}/job").status_code == 204
    assert platform.http.get(f"{JOBS}/job").status_code == 404
    assert platform.http.get(f"{FILES}/job-fileset-job").status_code == 404
    eventually(lambda: not psutil.pid_exists(pid), "the process to be gone")
    eventually(lambda: not (tmp_path / "data" / "runs" / job_id).exists(), "the run to be gone")
    assert platform.run(shell("again", "true"))["status"] == "completed"


def test_a_workspace_goes_with_the_jobs_that_run_in_it(platform: Platform) -> None:
    workspaces = "/apis/entities/v2/workspaces"
    assert platform.http.post(workspaces, json={"name": "lab"}).status_code == 201
    jobs = JOBS.replace("default", "lab")
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    body = {"name": "job", "source": "tests", "spec": {}, "platform_spec": {"steps": [python("work", code)]}}
    assert platform.http.post(jobs, json=body).status_code == 201
    said = eventually(lambda: platform.http.get(f"{jobs}/job/logs").json()["data"], "its pid")
    assert platform.http.delete(f"{workspaces}/lab").status_code in (200, 204)
    eventually(lambda: not psutil.pid_exists(int(said[0]["message"])), "the process to be gone")
    eventually(lambda: platform.http.post(workspaces, json={"name": "lab"}).status_code == 201, "the name to be free")


# -- servers that come and go ----------------------------------------------------------------------------------------


def test_the_next_server_takes_up_what_runs_and_starts_nothing_twice(tmp_path: Path) -> None:
    go, count = tmp_path / "go", tmp_path / "count"
    wait = f"echo x >> {count}; echo started; until [ -e {go} ]; do sleep 0.02; done"
    with LiveServer(allowing(tmp_path)) as server:
        platform = Platform(server.http)
        platform.post(shell("work", wait), shell("after", "echo after"))
        started(platform)
    with LiveServer(allowing(tmp_path)) as server:
        platform = Platform(server.http)
        assert platform.state()["status"] == "active"
        go.touch()
        assert platform.wait()["status"] == "completed"
        assert platform.log() == ["started", "after"]
    assert count.read_text() == "x\n"


def test_a_process_that_a_dying_server_did_not_record_is_adopted(tmp_path: Path) -> None:
    go, count = tmp_path / "go", tmp_path / "count"
    with LiveServer(allowing(tmp_path)) as server:
        platform = Platform(server.http)
        platform.post(shell("work", f"echo x >> {count}; echo started; until [ -e {go} ]; do sleep 0.02; done"))
        started(platform)
    with sqlite3.connect(tmp_path / "data" / "tunesmith.db") as database:  # as if it had died right after the launch
        database.execute("update job_steps set keeper = null, status = 'pending'")
        database.execute("update jobs set status = 'pending'")
    with LiveServer(allowing(tmp_path)) as server:
        platform = Platform(server.http)
        platform.wait("job", "active")
        go.touch()
        assert platform.wait()["status"] == "completed"
    assert count.read_text() == "x\n"


def test_platform_jobs_run_on_postgresql(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with LiveServer(allowing(tmp_path, database_url=request.getfixturevalue("postgres_url"))) as server:
        platform = Platform(server.http)
        state = platform.run(shell("one", "echo 1"), shell("two", "exit 5"))
        assert state["error_details"]["message"] == "Job exited with code 5"
        assert [each["name"] for each in platform.http.get(f"{JOBS}/-/steps").json()["data"]] == ["one", "two"]


def test_the_end_of_a_step_is_not_lost_when_no_server_sees_it(tmp_path: Path) -> None:
    with LiveServer(allowing(tmp_path)) as server:
        platform = Platform(server.http)
        platform.post(shell("work", "echo started; sleep 0.5; exit 4"))
        started(platform)
    time.sleep(1.0)
    with LiveServer(allowing(tmp_path)) as server:
        state = Platform(server.http).wait()
        assert state["error_details"]["message"] == "Job exited with code 4"


def test_a_job_whose_run_a_backup_does_not_hold_is_over(tmp_path: Path) -> None:
    with LiveServer(allowing(tmp_path)) as server:
        platform = Platform(server.http)
        platform.post(shell("work", "echo started; sleep 2"))
        started(platform)
    database = Database(tmp_path / "data" / "tunesmith.db")
    asyncio.run(database.write(backup.settle))
    database.close()
    with LiveServer(allowing(tmp_path)) as server:
        state = Platform(server.http).state()
        assert state["status"] == "error"
        assert "restored from a backup" in state["error_details"]["message"]


def test_a_keeper_that_is_killed_ends_the_job_and_leaves_no_process(platform: Platform, tmp_path: Path) -> None:
    platform.post(python("work", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"))
    pid = int(eventually(platform.log, "its pid")[0])
    run = tmp_path / "data" / "runs" / platform.state()["id"] / "steps" / "work"
    os.kill(json.loads((run / "step.1.keeper.json").read_text())["pid"], signal.SIGKILL)
    state = platform.wait()
    assert state["status"] == "error"
    assert "its keeper was lost" in state["error_details"]["message"]
    eventually(lambda: not psutil.pid_exists(pid), "the process to be gone")
