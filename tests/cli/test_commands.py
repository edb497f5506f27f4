"""The commands as a user types them, against a platform with prepared answers."""

from __future__ import annotations

import json
import subprocess
import sys

import httpx
import pytest

from tests.cli.terminal import run
from tests.client import samples
from tests.client.samples import Platform, events, page, state, told
from tunesmith import __version__

SPEC = "model: default/smol\ndataset: {training: default/triage}\ntraining: {lora: {rank: 16}}\n"


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(SPEC)
    return str(path)


def test_version():
    assert run(Platform(), "--version").stdout == f"tunesmith {__version__}\n"


def test_a_pipe_gets_json():
    result = run(Platform(page(samples.JOB)), "jobs", "list")
    assert [job["name"] for job in json.loads(result.stdout)] == ["first"]


def test_a_terminal_gets_a_table():
    result = run(Platform(page(samples.JOB)), "--output", "table", "jobs", "list")
    assert result.stdout.splitlines()[0].split() == ["NAME", "STATUS", "PROGRESS", "BACKEND", "MODEL", "CREATED"]
    assert result.stdout.splitlines()[1].split()[:5] == ["first", "active", "40%", "automodel", "default/smol"]


def test_a_list_shows_jobs_of_every_kind():
    others = [
        {**samples.JOB, "name": "second", "status_details": {"backend": "unsloth"}, "spec": samples.SPECS["unsloth"]},
        {**samples.JOB, "name": "third", "status_details": {}, "source": "evaluator", "spec": {}},
    ]
    platform = Platform(page(*others))
    result = run(platform, "--output", "table", "jobs", "list", "--status", "active,paused", "--source", "unsloth")
    assert [line.split()[:5] for line in result.stdout.splitlines()[1:]] == [
        ["second", "active", "-", "unsloth", "default/smol"],
        ["third", "active", "-", "evaluator", "-"],
    ]
    assert "filter%5Bstatus%5D=active%2Cpaused&filter%5Bsource%5D=unsloth" in platform.sent[0]


def test_an_empty_table_says_what_to_do():
    result = run(Platform(page(pages=0)), "--output", "table", "jobs", "list")
    assert "tunesmith jobs submit FILE" in result.stdout


@pytest.mark.parametrize(
    ("command", "answer", "shown"),
    [
        (["models", "show", "smol"], samples.MODEL, ["default/smol", "llama", "134,515,008", "triage"]),
        (["models", "list"], page(samples.MODEL), ["smol", "134,515,008"]),
        (["adapters", "list"], page(samples.ADAPTER), ["triage", "default/smol", "16", "yes"]),
        (["files", "list"], page(samples.FILESET), ["triage", "dataset"]),
        (["files", "list", "triage"], {"data": [samples.FILE]}, ["a.jsonl", "3 B"]),
        (["deployments", "show", "smol"], samples.DEPLOYMENT, ["smol", "READY"]),
    ],
)
def test_what_tables_show(command, answer, shown):
    result = run(Platform(answer), "--output", "table", *command)
    assert result.exit_code == 0, result.output
    assert [text for text in shown if text not in result.stdout] == []


def test_the_workspace_goes_along():
    platform = Platform(page())
    run(platform, "--workspace", "theirs", "models", "list")
    assert "/workspaces/theirs/models" in platform.sent[0]


def test_a_refusal_is_one_line_and_exit_code_1():
    result = run(Platform(httpx.Response(404, json={"detail": "Job 'x' not found"})), "jobs", "show", "x")
    assert (result.exit_code, result.stderr, result.stdout) == (1, "Job 'x' not found\n", "")


def test_nobody_there_is_one_line_and_the_way_out():
    platform = Platform(by=lambda _: httpx.ConnectError("Connection refused"))
    result = run(platform, "--base-url", "http://127.0.0.1:9", "models", "list")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "http://127.0.0.1:9" in result.stderr
    assert "`tunesmith up`" in result.stderr


def test_a_job_is_submitted_from_a_file(spec):
    platform = Platform(samples.AUTOMODEL_JOB)
    result = run(
        platform,
        *("--output", "table", "jobs", "submit", spec, "--name", "first"),
        *("--set", "training.lora.rank=64", "--set", "optimizer.learning_rate=1e-3"),
    )
    assert result.exit_code == 0, result.output
    assert "first is created" in result.stdout
    assert platform.body["name"] == "first"
    assert platform.body["spec"]["training"]["lora"] == {"rank": 64}
    assert platform.body["spec"]["optimizer"] == {"learning_rate": 0.001}


def test_a_job_is_submitted_from_the_standard_input():
    platform = Platform(samples.AUTOMODEL_JOB)
    document = {"backend": "automodel", "name": "named-inside", "spec": samples.JOB_SPEC}
    result = run(platform, "jobs", "submit", "-", stdin=json.dumps(document))
    assert result.exit_code == 0, result.output
    assert platform.body == {"name": "named-inside", "spec": samples.JOB_SPEC}
    assert json.loads(result.stdout)["name"] == "first"


def test_broken_rules_are_a_line_each_and_exit_code_2(spec):
    platform = Platform()
    result = run(platform, "jobs", "submit", spec, "--set", "training.lora.rank=0", "--set", "batch.size=3")
    assert result.exit_code == 2
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [
        "spec.training.lora.rank",
        "spec.batch.size",
    ]
    assert platform.sent == []


def test_rules_only_the_platform_knows_read_the_same(spec):
    detail = [{"type": "value_error", "loc": ["body", "spec", "model"], "msg": "Value error, no such model"}]
    result = run(Platform(httpx.Response(422, json={"detail": detail})), "jobs", "submit", spec)
    assert (result.exit_code, result.stderr) == (2, "spec.model: no such model\n")


@pytest.mark.parametrize("backend", ["automodel", "unsloth", "rl"])
@pytest.mark.parametrize("said", ["in the file", "on the command line"])
def test_a_job_goes_to_the_backend_that_is_named(tmp_path, backend, said):
    path, platform = tmp_path / "job.json", Platform(samples.JOBS[backend])
    spec = samples.SPECS[backend]
    path.write_text(json.dumps({"backend": backend, **spec} if said == "in the file" else spec))
    option = [] if said == "in the file" else ["--backend", backend]
    result = run(platform, "jobs", "submit", str(path), *option)
    assert result.exit_code == 0, result.output
    assert platform.sent == [f"POST /apis/customization/v2/workspaces/default/{backend}/jobs"]
    assert platform.body == {"spec": spec}


def test_a_job_in_the_shorthand_goes_through_its_door(tmp_path):
    path, platform = tmp_path / "job.json", Platform(samples.SHORTHAND_JOB)
    path.write_text(json.dumps(samples.SHORTHAND))
    result = run(platform, "--output", "table", "jobs", "submit", str(path), "--set", "training.peft.rank=4")
    assert result.exit_code == 0, result.output
    assert platform.sent == ["POST /apis/customization/v2/workspaces/default/jobs"]
    assert platform.body["spec"]["training"]["peft"]["rank"] == 4


def test_a_job_that_is_written_for_another_backend_is_told_so(tmp_path):
    path, platform = tmp_path / "job.json", Platform()
    path.write_text(json.dumps(samples.SPECS["unsloth"]))
    result = run(platform, "jobs", "submit", str(path))
    assert result.exit_code == 2
    assert "is written for the unsloth backend" in result.stderr
    assert "add `backend: unsloth` to it, or --backend unsloth to the command" in result.stderr
    assert platform.sent == []


def test_a_field_that_the_platform_names_itself_is_named_once(spec):
    detail = [{"type": "value_error", "loc": ["body", "spec", "model"], "msg": "spec.model: 'x' is no model"}]
    result = run(Platform(httpx.Response(422, json={"detail": detail})), "jobs", "submit", spec)
    assert result.stderr == "spec.model: 'x' is no model\n"


def test_what_stands_beside_a_spec_goes_along(tmp_path):
    document = {
        "name": "inside",
        "description": "as a file says",
        "project": "mail",
        "custom_fields": {"team": "mail", "priority": 1},
        "spec": samples.JOB_SPEC,
    }
    path, platform = tmp_path / "job.json", Platform(samples.AUTOMODEL_JOB)
    path.write_text(json.dumps(document))
    result = run(platform, "jobs", "submit", str(path), "--name", "outside", "--priority", "7")
    assert result.exit_code == 0, result.output
    assert platform.body == {**document, "name": "outside", "custom_fields": {"team": "mail", "priority": 7}}


def test_a_missing_file_is_one_line():
    result = run(Platform(), "jobs", "submit", "nowhere.yaml")
    assert result.exit_code == 1
    assert "nowhere.yaml" in result.stderr
    assert result.stderr.count("\n") == 1


def training(status="active", **details):
    return state("active", steps=[samples.step("training", status, phase="training")], max_steps=54, **details)


def test_a_watched_job_tells_its_progress_and_ends_with_it(spec):
    states = [
        state("pending"),
        training(step=1, train_loss=2.5, lr=1e-3, warnings=["a row was cut"]),
        training(step=2, train_loss=2.0, lr=1e-3, warnings=["a row was cut"]),
        training(step=27, train_loss=1.25, lr=5e-4, tokens_per_second=321.4, eta_seconds=65),
        state("completed", step=54, max_steps=54),
    ]
    platform = Platform(samples.AUTOMODEL_JOB, told(*states), states[-1])
    result = run(platform, "--output", "table", "jobs", "submit", spec, "--watch")
    assert result.exit_code == 0, result.output
    assert "first is completed" in result.stdout
    assert result.stderr.splitlines() == [
        "job first",
        "pending",
        "warning: a row was cut",
        "training  1/54  loss 2.500  lr 1.0e-03",
        "training  27/54  loss 1.250  321 tok/s  1:05 left  lr 5.0e-04",
        "completed  54/54",
    ]


def test_a_watched_job_that_fails_says_why(spec):
    failed = state("error", error_details={"message": "train.jsonl line 3: no messages", "type": "DatasetFormatError"})
    result = run(Platform(samples.AUTOMODEL_JOB, told(failed), failed), "jobs", "submit", spec, "--watch")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-2:] == [
        "train.jsonl line 3: no messages",
        "`tunesmith jobs logs first` shows what its processes wrote",
    ]
    assert json.loads(result.stdout)["status"] == "error"


def test_a_watched_job_may_wait_rest_and_lose_its_server(spec):
    gone = httpx.ConnectError("Connection refused")
    queue = {"position": 2, "of": 3, "reason": "waits for 1 of 1 devices"}
    before = told(
        state("active", phase="queued", queue=queue),
        state("active", phase="queued", queue={**queue, "position": 1}),
        training(step=1, train_loss=2.5),
        state("pausing", step=1, max_steps=54),
        state("paused", paused_because="server stopped", paused_at_step=1),
    )
    done = state("completed", step=54, max_steps=54)
    after = told(
        state("resuming", phase="queued", queue={**queue, "position": 1, "of": 1}),
        training(step=54, train_loss=0.5),
        done,
    )
    platform = Platform(samples.AUTOMODEL_JOB, before, *[gone] * 7, after, done)
    result = run(platform, "--base-url", "http://here", "jobs", "submit", spec, "--watch")
    assert result.exit_code == 0, result.output
    said = result.stderr.splitlines()
    assert said[6].startswith("no answer, asking again for 5 minutes: cannot reach Tunesmith at http://here")
    assert said[1:6] + said[7:] == [
        "queued  2 of 3: waits for 1 of 1 devices",
        "queued  1 of 3: waits for 1 of 1 devices",
        "training  1/54  loss 2.500",
        "pausing  1/54",
        "paused  at step 1; the server was stopped, and goes on with it when it is up again",
        "resuming  1 of 1: waits for 1 of 1 devices",
        "training  54/54  loss 0.500",
        "completed  54/54",
    ]


def test_a_platform_that_stays_away_is_not_waited_for_for_ever(spec, monkeypatch):
    monkeypatch.setattr("tunesmith.cli.watch.PATIENCE_SECONDS", 0.0)
    platform = Platform(by=lambda _: httpx.ConnectError("Connection refused"))
    result = run(platform, "jobs", "watch", "first")
    assert result.exit_code == 1
    assert "cannot reach Tunesmith" in result.stderr


def test_logs_are_the_lines_of_all_pages():
    first = {**samples.LOG_PAGE, "next_page": "two"}
    assert run(Platform(first, samples.LOG_PAGE), "jobs", "logs", "first").stdout == "hello\nhello\n"


def test_logs_are_followed_to_the_end():
    platform = Platform(samples.LOG_PAGE, state("completed"), samples.LOG_PAGE)
    assert run(platform, "jobs", "logs", "first", "-f").stdout == "hello\n"


def test_a_job_is_cancelled():
    platform = Platform({**samples.JOB, "status": "cancelling"})
    assert run(platform, "--output", "table", "jobs", "cancel", "first").stdout == "first is cancelling\n"
    assert platform.sent[0].endswith("/jobs/first/cancel")


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("pause", "pausing", "first is pausing; `tunesmith jobs resume first` lets it go on\n"),
        ("resume", "resuming", "first is resuming; `tunesmith jobs watch first` follows it\n"),
        ("pause", "completed", "first is completed\n"),
    ],
)
def test_a_job_rests_and_goes_on(command, status, said):
    platform = Platform({**samples.JOB, "status": status})
    assert run(platform, "--output", "table", "jobs", command, "first").stdout == said
    assert platform.sent[0].endswith(f"/jobs/first/{command}")


def test_a_job_is_deleted():
    platform = Platform(httpx.Response(204))
    assert run(platform, "--output", "table", "jobs", "delete", "first").stdout == "first is deleted\n"
    assert platform.sent == ["DELETE /apis/jobs/v2/workspaces/default/jobs/first"]


def shown(job, **now):
    """What `jobs show` says, a line of the table a line: {first word: the rest}."""
    result = run(Platform({**samples.JOB, **job}, state(**now)), "--output", "table", "jobs", "show", "first")
    assert result.exit_code == 0, result.output
    return {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.splitlines() if line[0] != " "}


def test_show_says_where_a_job_waits_and_why():
    queue = {"position": 2, "of": 5, "reason": "waits for 1 of 1 devices"}
    card = shown({"custom_fields": {"priority": 3}}, status="active", phase="queued", queue=queue)
    assert card["queue"] == "2 of 5: waits for 1 of 1 devices"
    assert (card["status"], card["phase"], card["priority"]) == ("active", "queued", "3")
    assert card["next"] == "`tunesmith jobs watch first` follows it"


def test_show_says_how_a_running_job_is_doing():
    now = {"step": 27, "max_steps": 54, "train_loss": 1.5, "attempt": 2, "resumed_from_step": 20, "backend": "unsloth"}
    card = shown({"spec": samples.SPECS["unsloth"]}, status="active", warnings=["a row was cut"], **now)
    assert card["progress"].startswith("27/54 loss 1.500")
    assert card["attempt"] == "2, went on from the checkpoint of step 20"
    assert (card["model"], card["dataset"], card["backend"]) == ("default/smol", "default/triage", "unsloth")
    assert card["warnings"] == "a row was cut"


def test_show_says_what_a_crash_would_cost_and_what_the_model_says_by_now():
    samples_ = [{"prompt": "who?", "said": "me", "wanted": "you"}, {"prompt": "where?", "said": "", "wanted": "there"}]
    now = {"step": 27, "max_steps": 54, "peak_memory_bytes": 2_140_000_000, "utilisation": 0.537, "samples": samples_}
    card = shown({}, status="active", checkpoint_step=20, at_stake_seconds=61.3, **now)
    assert card["risk"] == "a crash costs up to 1:01 of work; the last checkpoint is of step 20"
    assert card["progress"].endswith("2.1 GB 54% of peak")
    assert card["samples"] == "who?"
    assert "risk" not in shown({}, status="completed", checkpoint_step=54, at_stake_seconds=61.3)
    text = run(Platform(samples.JOB, state("active", **now)), "--output", "table", "jobs", "show", "first").stdout
    assert [line.split() for line in text.splitlines() if "wanted:" in line or "said:" in line] == [
        ["wanted:", "you"],
        ["said:", "me"],
        ["wanted:", "there"],
        ["said:"],
    ]


def test_show_says_what_a_job_made_and_how_to_ask_it():
    card = shown({}, status="completed", adapter="default/mail", exported_step=54, exported_because="the last step")
    assert (card["makes"], card["weights"]) == ("adapter default/mail", "of step 54, the last step")
    assert card["next"] == "`tunesmith deploy default/smol` serves it"
    card = shown({}, status="completed", adapter="default/mail", deployment="default/d", replaced_version=1)
    assert (card["deployment"], card["next"]) == ("default/d", "`tunesmith chat default/mail` talks to it")
    assert card["makes"] == "adapter default/mail; what it was before is version 1"


def test_show_says_why_a_job_failed_and_where_to_look():
    card = shown({}, status="error", error_details={"message": "out of luck"})
    assert card["error"] == "out of luck"
    assert card["next"] == "`tunesmith jobs logs first` shows what its processes wrote"


def test_show_says_how_a_paused_job_goes_on():
    card = shown({}, status="paused", paused_at_step=7, paused_because="asked for")
    assert card["paused"] == "at step 7; `tunesmith jobs resume first` lets it go on"


def test_show_gives_a_pipe_the_job_with_its_steps():
    now = state("active", steps=[samples.step("training", "active")])
    answer = json.loads(run(Platform(samples.JOB, now), "jobs", "show", "first").stdout)
    assert (answer["spec"], [step["name"] for step in answer["steps"]]) == (samples.JOB_SPEC, ["training"])


def test_a_model_is_served_with_its_adapters():
    pending = {**samples.DEPLOYMENT, "status": "PENDING"}
    platform = Platform(samples.MODEL, samples.CONFIG, pending, pending, samples.DEPLOYMENT, {"ready": True})
    result = run(platform, "--output", "table", "deploy", "smol")
    assert result.exit_code == 0, result.output
    assert json.loads(platform.bodies[1])["model_spec"] == {
        "model_namespace": "default",
        "model_name": "smol",
        "lora_enabled": True,
    }
    assert "smol is READY" in result.stdout
    assert "tunesmith chat default/triage" in result.stdout


def test_a_config_from_before_is_used_again_if_it_serves_the_same():
    taken = httpx.Response(409, json={"detail": "exists"})
    platform = Platform(samples.MODEL, taken, samples.CONFIG, samples.DEPLOYMENT)
    assert run(platform, "deploy", "smol", "--no-wait").exit_code == 0
    other = {**samples.CONFIG, "model_entity_id": "default/other"}
    result = run(Platform(samples.MODEL, taken, other), "deploy", "smol", "--no-wait")
    assert result.exit_code == 1
    assert "--name" in result.stderr


def test_serving_stops_when_the_process_is_gone():
    platform = Platform(
        httpx.Response(202, text="null"), {**samples.DEPLOYMENT, "status": "DELETING"}, httpx.Response(404)
    )
    assert run(platform, "--output", "table", "deployments", "delete", "smol").stdout == "smol is deleted\n"


def deltas(*pieces):
    return [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]


def test_an_answer_is_streamed_as_text():
    platform = Platform(events(*deltas("Hel", "lo!"), "[DONE]"))
    result = run(platform, "chat", "triage", "hi", "--system", "Be kind.", "--max-tokens", "9")
    assert result.stdout == "Hello!\n"
    assert platform.body["max_tokens"] == 9
    assert [message["role"] for message in platform.body["messages"]] == ["system", "user"]


def test_an_answer_is_json_when_json_is_asked_for():
    result = run(Platform(samples.ANSWER), "--output", "json", "chat", "triage", "hi")
    assert json.loads(result.stdout) == samples.ANSWER


def test_a_conversation_remembers_what_was_said_and_survives_a_refusal():
    platform = Platform(
        events(*deltas("Hello!"), "[DONE]"),
        httpx.Response(400, json={"detail": "too long"}),
        events(*deltas("Fine."), "[DONE]"),
    )
    result = run(platform, "chat", "triage", stdin="hi\n\nlong\nhow are you\n")
    assert result.stdout == "Hello!\nFine.\n"
    assert "too long" in result.stderr
    assert [message["content"] for message in platform.body["messages"]] == ["hi", "Hello!", "how are you"]


def test_files_are_uploaded_and_the_fileset_made(tmp_path):
    (tmp_path / "train.jsonl").write_text("{}")
    platform = Platform(samples.FILESET, samples.FILE, samples.FILESET)
    path = str(tmp_path / "train.jsonl")
    result = run(platform, "--output", "table", "files", "upload", path, "ws/triage", "--purpose", "dataset")
    assert result.exit_code == 0, result.output
    assert json.loads(platform.bodies[0]) == {"name": "triage", "purpose": "dataset"}
    assert [sent.split()[0] for sent in platform.sent] == ["POST", "PUT", "GET"]
    assert all("/workspaces/ws/" in sent for sent in platform.sent)


@pytest.mark.parametrize(
    ("path", "remote", "said"),
    [
        ("base", "", "base is in fileset default/triage, in base/"),
        ("base", "a", "base is in fileset default/triage, in a/base/"),
        ("base/", "", "base/ is in fileset default/triage"),
        ("base/", "a", "base/ is in fileset default/triage, in a/"),
        ("base/f", "", "base/f is in fileset default/triage"),
        ("base/f", "a/", "base/f is in fileset default/triage, in a/"),
        ("base/f", "a/g", "base/f is in fileset default/triage, as a/g"),
    ],
)
def test_an_upload_says_where_files_are_if_not_at_the_root(tmp_path, monkeypatch, path, remote, said):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "f").write_text("{}")
    monkeypatch.chdir(tmp_path)
    platform = Platform(samples.FILESET, samples.FILE, samples.FILESET)
    result = run(platform, "--output", "table", "files", "upload", path, "triage", *([remote] if remote else []))
    assert result.stdout == f"{said}\n", result.output


@pytest.mark.parametrize(
    "arguments", [["files", "upload", "/nowhere/at/all", "x"], ["--output", "xml", "jobs", "list"], ["jobs", "show"]]
)
def test_misuse_is_exit_code_2(arguments):
    assert run(Platform(), *arguments).exit_code == 2


@pytest.mark.parametrize(("command", "enabled"), [("enable", True), ("disable", False)])
def test_adapters_are_switched(command, enabled):
    platform = Platform({**samples.ADAPTER, "enabled": enabled})
    result = run(platform, "adapters", command, "triage")
    assert json.loads(result.stdout)["enabled"] is enabled
    assert platform.body == {"enabled": enabled}


def test_up_without_the_platform_says_what_to_install(monkeypatch):
    from tunesmith.cli import admin

    monkeypatch.setattr(admin, "find_spec", lambda name: None if name == "uvicorn" else object())
    result = run(Platform(), "up")
    assert result.exit_code == 1
    assert "needs uvicorn: install it with `pip install 'tunesmith[all]'`" in result.stderr


def test_a_command_is_made_without_the_others():
    program = (
        "import sys; from tunesmith.cli.main import app; app(['schema', '--help'], standalone_mode=False); "
        "print(*sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "tunesmith.cli.schema" in said
    assert not {"tunesmith.cli.jobs", "tunesmith.cli.admin", "tunesmith.cli.models"} & set(said)


def test_the_command_line_loads_neither_the_platform_nor_an_engine():
    every_command = "list(typer.main.get_command(app).commands.values())"
    program = f"import sys, typer; from tunesmith.cli.main import app; {every_command}; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    assert {"tunesmith.cli.jobs", "tunesmith.cli.admin"} <= loaded
    assert loaded & {"fastapi", "starlette", "uvicorn", "sqlalchemy", "torch", "transformers", "numpy"} == set()
    assert not any(name.startswith(("tunesmith.server", "tunesmith.control", "tunesmith.store")) for name in loaded)
