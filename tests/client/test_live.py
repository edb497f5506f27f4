"""The SDK and the commands against the real application: from files to an adapter that is switched off."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from tests.live import LiveServer, checkpoint, settings
from tunesmith import AsyncTunesmith, Tunesmith
from tunesmith.cli.main import app
from tunesmith.cli.session import Session
from tunesmith.client.errors import ConflictError, NotFoundError, UnprocessableEntityError
from tunesmith.errors import Invalid

SPEC = {
    "model": "default/base",
    "dataset": {"training": "default/rows"},
    "training": {"lora": {"rank": 4}, "max_seq_length": 64},
    "output": {"name": "triage"},
}


@pytest.fixture
def client(live):
    with Tunesmith(live.url) as made:
        yield made


@pytest.fixture
def stocked(client, tmp_path):
    """A platform with a base model and rows to train on."""
    base = tmp_path / "base"
    base.mkdir()
    for name, content in checkpoint().items():
        (base / name).write_bytes(content)
    client.files.filesets.create("base", purpose="model")
    client.files.upload(f"{base}/", fileset="base")
    client.models.create("base", fileset="default/base")
    rows = "".join(json.dumps({"prompt": f"w{i}", "completion": "w1 w2"}) + "\n" for i in range(40))
    client.files.filesets.create("rows", purpose="dataset")
    client.files.upload_content(rows, "train.jsonl", "rows")
    return client


def test_files_come_back_as_they_went(client, tmp_path):
    source = tmp_path / "things"
    (source / "deep er").mkdir(parents=True)
    (source / "deep er" / "ü #1%20.txt").write_bytes(b"\x00\xff" * 1_500_000)
    (source / "empty").write_bytes(b"")
    client.files.filesets.create("things", exist_ok=True)
    assert client.files.filesets.create("things", exist_ok=True).name == "things"
    told = []
    client.files.upload(f"{source}/", fileset="default/things", progress=lambda *now: told.append(now))
    assert told[-1] == (3_000_000, 3_000_000)
    listed = {file.path: file.size for file in client.files.list("things").data}
    assert listed == {"deep er/ü #1%20.txt": 3_000_000, "empty": 0}
    client.files.download("things", tmp_path / "back")
    assert (tmp_path / "back" / "deep er" / "ü #1%20.txt").read_bytes() == b"\x00\xff" * 1_500_000
    assert (tmp_path / "back" / "empty").read_bytes() == b""
    client.files.delete("things", "empty")
    with pytest.raises(NotFoundError, match="empty"):
        client.files.download_content("things", "empty")


def test_the_async_client_speaks_to_the_same_platform(live):
    async def run():
        async with AsyncTunesmith(live.url) as client:
            await client.files.filesets.create("things")
            await client.files.upload_content("abc", "a.txt", "things")
            assert await client.files.download_content("things", "a.txt") == b"abc"
            return [fileset.name async for fileset in await client.files.filesets.list(page_size=1)]

    assert asyncio.run(run()) == ["things"]


def test_lists_go_over_pages(client):
    for number in range(5):
        client.files.filesets.create(f"set-{number}")
    listed = client.files.filesets.list(page_size=2, sort="name")
    assert [fileset.name for fileset in listed] == [f"set-{number}" for number in range(5)]


def test_from_a_job_to_an_adapter_that_is_switched_off(stocked, small_trainer):
    job = stocked.customization.automodel.jobs.create(name="first", spec=SPEC)
    assert job.spec.output.name == "triage"
    heard = []
    last = stocked.jobs.wait("first", on_status=lambda state: heard.append(state.status), timeout=60, interval=0.05)
    assert last.status == "completed", last
    assert "active" in heard
    assert [job.name for job in stocked.jobs.list(status="completed")] == ["first"]
    assert [job.name for job in stocked.customization.automodel.jobs.list()] == ["first"]
    assert list(stocked.jobs.follow_logs("first"))
    assert stocked.adapters.retrieve("triage").enabled
    changed = stocked.models.update_adapter(
        model_name="base", workspace="default", adapter_name="triage", enabled=False
    )
    assert not changed.enabled
    assert [(it.name, it.enabled) for it in stocked.models.retrieve("base").adapters] == [("triage", False)]
    assert stocked.jobs.cancel("first").status == "completed"


def test_refusals_read_well(stocked):
    with pytest.raises(ConflictError, match="exists"):
        stocked.models.create("base", fileset="base")
    with pytest.raises(NotFoundError, match="nowhere"):
        stocked.models.retrieve("nowhere")
    with pytest.raises(UnprocessableEntityError, match="missing"):
        stocked.customization.automodel.jobs.create(spec={**SPEC, "model": "default/missing"})
    with pytest.raises(Invalid, match=r"spec\.training\.lora\.rank"):
        stocked.customization.automodel.jobs.create(spec={**SPEC, "training": {"lora": {"rank": 0}}})
    with pytest.raises(NotFoundError):
        stocked.inference.chat(model="base", messages=[{"role": "user", "content": "hi"}])


def test_health_and_status(client):
    assert client.live() == {"status": "live"}
    assert client.health() == {"status": "ready"}
    assert client.status()["status"] == "healthy"
    assert "default" in [it.name for it in client.workspaces.list()]
    assert client.workspaces.retrieve("default").name == "default"


def test_a_job_from_the_terminal(stocked, live, small_trainer, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({"backend": "automodel", **SPEC}))
    session = Session(sleep=lambda _: None)
    arguments = ["--base-url", live.url, "--output", "table", "jobs", "submit", str(path), "--watch"]
    result = CliRunner().invoke(app, arguments, obj=session)
    assert result.exit_code == 0, result.output
    assert "is completed" in result.stdout
    assert "loss" in result.stderr


def test_a_job_of_commands_reports_and_leaves_a_result(tmp_path):
    with LiveServer(replace(settings(tmp_path), allow_subprocess_jobs=True)) as server, Tunesmith(server.url) as client:
        client.files.filesets.create("scores")
        client.files.upload_content('{"exact": 1}', "a.json", "scores")
        command = {"provider": "subprocess", "command": ["echo", "hello"]}
        step = {"name": "greet", "executor": command}
        made = client.jobs.create(source="me", name="greeter", spec={}, platform_spec={"steps": [step]})
        assert made.platform_spec.steps[0].name == "greet"
        heard = list(client.jobs.events("greeter", patience=5))
        assert heard[-1].event == "end"
        assert heard[-1].state.status == "completed"
        assert "hello" in [line.message for event in heard for line in event.lines]
        (found,) = client.jobs.steps.list("greeter")
        assert client.jobs.steps.retrieve("greet", job="greeter").id == found.id
        (task,) = client.jobs.tasks.list("greet", job="greeter").data
        assert client.jobs.tasks.retrieve(task.name, job="greeter", step="greet").status == "completed"
        client.jobs.update_status_details("greeter", body={"note": "well done"})
        assert client.jobs.retrieve("greeter").status_details["note"] == "well done"
        client.jobs.results.create("scores", job="greeter", artifact_url="scores#a.json")
        assert [result.name for result in client.jobs.results.list("greeter").data] == ["scores"]
        written = client.jobs.results.download("scores", tmp_path / "down.json", job="greeter")
        assert (
            written.read_text()
            == '{"exact": 1}'
            == client.jobs.results.download_content("scores", job="greeter").decode()
        )
        assert "subprocess" in [profile.provider for profile in client.jobs.list_execution_profiles()]


def test_a_job_in_the_shorthand_rests_and_goes_on(stocked, small_trainer):
    stocked.files.upload_content("slow", "behaviour.txt", "rows")
    spec = {"model": "base", "dataset": "rows", "training": {"type": "sft", "peft": {"type": "lora"}, "batch_size": 1}}
    job = stocked.customization.jobs.create(name="first", spec=spec, idempotency_key="once")
    assert stocked.customization.jobs.create(name="again", spec=spec, idempotency_key="once").name == "first"
    assert job.spec["training"]["peft"] == {"type": "lora", "rank": 8, "alpha": 32}
    states = stocked.jobs.events("first", kinds=["status"])
    next(event for event in states if event.state.status_details.get("step"))
    stocked.jobs.pause("first")
    next(event for event in states if event.state.status == "paused")
    stocked.jobs.resume("first")
    assert [event.state.status for event in states][-1] == "completed"
    assert len(stocked.jobs.metrics("first")["train_loss"]) == stocked.jobs.get_status("first").status_details["step"]
    stocked.jobs.delete("first")
    with pytest.raises(NotFoundError):
        stocked.jobs.retrieve("first")
