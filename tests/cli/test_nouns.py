"""Commands of the nouns, against prepared answers: what is sent, what is asked, what is shown."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.cli.terminal import run
from tests.client import samples
from tests.client.samples import Platform, page
from tunesmith.cli import session

READ = {**samples.MODEL, "custom_fields": {"spec_status": "completed"}}
PENDING = {**samples.MODEL, "spec": None, "custom_fields": {"spec_status": "pending", "team": "mail"}}
FAILED = {**PENDING, "custom_fields": {"spec_status": "failed", "spec_error": "config.json: there is none"}}


def test_a_model_is_made_of_a_fileset_and_waited_for():
    platform = Platform(PENDING, PENDING, READ)
    result = run(platform, "--output", "table", "models", "create", "smol", "--fileset", "smol")
    assert result.exit_code == 0, result.output
    assert json.loads(platform.bodies[0]) == {"name": "smol", "fileset": "smol"}
    assert "134,515,008" in result.stdout
    assert len(platform.pauses) == 1


def test_a_model_is_not_waited_for_when_told_so():
    platform = Platform(PENDING)
    result = run(platform, "--output", "table", "models", "create", "smol", "--fileset", "smol", "--no-wait")
    assert result.exit_code == 0, result.output
    assert "pending" in result.stdout


def test_a_checkpoint_that_cannot_be_read_says_why_and_exits_with_1():
    result = run(Platform(PENDING, FAILED), "models", "create", "smol", "--fileset", "smol")
    assert result.exit_code == 1
    assert result.stderr == (
        "the checkpoint of model 'default/smol' cannot be read: config.json: there is none "
        "(the model stays, and is read again when its fileset changes)\n"
    )


def test_a_change_of_a_model_keeps_the_other_fields_and_sends_nothing_of_the_platform():
    platform = Platform(PENDING, READ)
    result = run(platform, "models", "update", "smol", "--set", "custom_fields.stage=2")
    assert result.exit_code == 0, result.output
    assert platform.body == {"custom_fields": {"team": "mail", "stage": 2}}


def test_a_path_that_leads_elsewhere_is_refused_before_anything_is_sent():
    platform = Platform()
    result = run(platform, "models", "create", "smol", "--fileset", "smol", "--set", "name=other")
    assert result.exit_code == 1
    assert "custom_fields.KEY" in result.stderr
    assert platform.sent == []


@pytest.mark.parametrize(
    ("options", "storage"),
    [
        (
            ["--hf", "meta-llama/Llama-3.2-1B@main", "--token-secret", "hf"],
            {"type": "huggingface", "repo_id": "meta-llama/Llama-3.2-1B", "revision": "main", "token_secret": "hf"},
        ),
        (["--hf", "o/rows", "--kind", "dataset"], {"type": "huggingface", "repo_id": "o/rows", "repo_type": "dataset"}),
        (["--s3", "s3://b/a/c"], {"type": "s3", "bucket": "b", "prefix": "a/c", "use_sdk_auth": True}),
        (
            ["--s3", "s3://b", "--access-key-id-secret", "i", "--secret-access-key-secret", "k"],
            {"type": "s3", "bucket": "b", "access_key_id_secret": "i", "secret_access_key_secret": "k"},
        ),
        (
            ["--ngc", "nvidia/nemo/llama:1.0", "--token-secret", "ngc", "--kind", "model"],
            {
                "type": "ngc",
                "org": "nvidia",
                "team": "nemo",
                "target": "llama",
                "target_type": "model",
                "version": "1.0",
                "api_key_secret": "ngc",
            },
        ),
    ],
)
def test_a_remote_storage_in_a_word(options, storage):
    platform = Platform(samples.FILESET)
    result = run(platform, "filesets", "create", "remote", *options, "--cache")
    assert result.exit_code == 0, result.output
    assert platform.body == {"name": "remote", "storage": storage, "cache": True}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--hf", "a/b", "--s3", "s3://b"], "exclude each other"),
        (["--hf", "a/b@"], "REPO@REVISION"),
        (["--s3", "b/c"], "s3://BUCKET"),
        (["--s3", "s3://b", "--access-key-id-secret", "i"], "belong together"),
        (["--ngc", "a/b/c:1"], "--token-secret"),
        (["--ngc", "a", "--token-secret", "x"], "ORG/TEAM/TARGET"),
    ],
)
def test_a_storage_that_cannot_be_is_said_before_anything_is_sent(options, said):
    platform = Platform()
    result = run(platform, "filesets", "create", "remote", *options)
    assert result.exit_code == 1
    assert said in result.stderr
    assert platform.sent == []


def test_a_chat_template_goes_from_a_file_into_the_metadata(tmp_path):
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    platform = Platform(samples.FILESET, samples.FILESET)
    result = run(platform, "filesets", "update", "triage", "--chat-template", str(tmp_path / "chat.jinja"))
    assert result.exit_code == 0, result.output
    assert platform.body == {"metadata": {"model": {"tool_calling": {"chat_template": "{{ messages }}"}}}}


def test_lists_are_narrowed_sorted_cut_and_of_all_workspaces():
    platform = Platform(page(samples.MODEL, {**samples.MODEL, "workspace": "theirs"}, samples.MODEL))
    options = ["--filter", 'name~"s" OR name~"t"', "--project", 'm"l', "--sort", "-name", "--limit", "2", "-A"]
    result = run(platform, "--output", "table", "models", "list", *options)
    assert result.exit_code == 0, result.output
    asked = platform.requests[0].url.params
    assert asked["filter"] == '(name~"s" OR name~"t") AND project:"m\\"l"'
    assert (asked["sort"], asked["page_size"]) == ("-name", "2")
    assert "/workspaces/-/models" in platform.sent[0]
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["WORKSPACE", "default", "theirs"]


@pytest.mark.parametrize(
    ("noun", "answer"),
    [
        ("workspaces", samples.WORKSPACE),
        ("projects", samples.PROJECT),
        ("secrets", samples.SECRET),
        ("filesets", samples.FILESET),
        ("models", samples.MODEL),
        ("adapters", samples.ADAPTER),
    ],
)
def test_every_noun_is_listed_and_shown(noun, answer):
    listed = run(Platform(page(answer)), "--output", "table", noun, "list")
    assert answer["name"] in listed.stdout, listed.output
    shown = run(Platform(answer), "--output", "table", noun, "show", answer["name"])
    assert answer["name"] in shown.stdout, shown.output
    empty = run(Platform(page(pages=0)), "--output", "table", noun, "list")
    assert "tunesmith" in empty.stdout, empty.output
    fitting = run(Platform(page(pages=0)), "--output", "table", noun, "list", "--filter", 'name:"x"')
    assert fitting.stdout == "nothing fits\n"


@pytest.mark.parametrize("noun", ["workspaces", "projects", "secrets", "filesets", "models", "adapters"])
def test_deleting_asks_on_a_terminal_and_goes_on_when_told(noun, monkeypatch):
    answer = samples.FILESET if noun == "filesets" else samples.DELETED
    monkeypatch.setattr(session, "interactive", lambda: True)
    platform = Platform(answer)
    refused = run(platform, noun, "delete", "x1", stdin="n\n")
    assert (refused.exit_code, platform.sent) == (1, [])
    assert run(platform, noun, "delete", "x1", stdin="y\n").exit_code == 0
    assert run(Platform(answer), noun, "delete", "x1", "--yes").exit_code == 0
    monkeypatch.setattr(session, "interactive", lambda: False)
    gone = run(Platform(answer), noun, "delete", "x1")
    assert json.loads(gone.stdout) == {"name": "x1", "status": "DELETED"}


@pytest.mark.parametrize("flag", [[], ["--value-stdin"]])
def test_a_secret_comes_from_a_pipe_less_its_last_line_end(flag):
    platform = Platform(samples.SECRET)
    result = run(platform, "secrets", "create", "hf", *flag, stdin="s3cret\nof two lines\n")
    assert result.exit_code == 0, result.output
    assert platform.body == {"name": "hf", "value": "s3cret\nof two lines"}
    assert "s3cret" not in result.output


@pytest.mark.parametrize(("piped", "said"), [("", "no value"), ("\n", "no value"), (b"\xff\xfe", "not UTF-8")])
def test_a_secret_without_a_value_is_refused_here(piped, said):
    platform = Platform()
    result = run(platform, "secrets", "create", "hf", stdin=piped)
    assert result.exit_code == 1
    assert said in result.stderr
    assert platform.sent == []


def test_a_secret_is_asked_for_twice_and_never_shown(monkeypatch):
    from tunesmith.cli import secrets

    asked = []

    def prompt(text, **how):
        asked.append(how)
        return "s3cret"

    monkeypatch.setattr(secrets.sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(secrets.typer, "prompt", prompt)
    assert secrets.read_value("hf", stdin=False) == "s3cret"
    assert asked == [{"hide_input": True, "confirmation_prompt": True, "err": True}]


def test_no_command_takes_a_secret_as_an_argument():
    result = run(Platform(), "secrets", "create", "hf", "--value", "s3cret")
    assert result.exit_code == 2
    assert run(Platform(), "secrets", "create", "hf", "s3cret").exit_code == 2


def test_a_secrets_description_changes_without_its_value():
    platform = Platform(samples.SECRET)
    assert run(platform, "secrets", "update", "hf", "--description", "new").exit_code == 0
    assert platform.body == {"description": "new"}


@pytest.mark.parametrize("noun", ["workspaces", "models"])
def test_a_name_that_cannot_be_is_answered_with_the_rule_and_not_with_a_pattern(noun):
    more = ["--fileset", "f"] if noun == "models" else []
    refused = run(Platform(), noun, "create", "Bad Name", *more)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("name: 'Bad Name' is not a lawful name: 2 to 63 characters, a lower-case letter")


def test_members_come_and_go():
    platform = Platform({"data": [samples.MEMBER]}, samples.MEMBER, samples.MEMBER, samples.DELETED)
    table = run(platform, "--output", "table", "workspaces", "members", "list")
    assert "a@b" in table.stdout
    assert run(platform, "workspaces", "members", "create", "a@b", "--role", "viewer").exit_code == 0
    assert platform.body == {"principal": "a@b", "roles": ["Viewer"]}
    assert run(platform, "workspaces", "members", "update", "a@b", "--role", "Admin").exit_code == 0
    assert run(platform, "workspaces", "members", "delete", "a@b").exit_code == 0
    assert run(Platform(), "workspaces", "members", "update", "a@b").exit_code == 2
    wrong = run(Platform(), "workspaces", "members", "create", "a@b", "--role", "boss")
    assert (wrong.exit_code, wrong.stderr.split(":")[0]) == (1, "roles.0")


def test_an_adapter_is_made_of_weights_from_elsewhere():
    platform = Platform(samples.ADAPTER)
    options = ["--model", "smol", "--fileset", "weights", "--rank", "8", "--disabled", "--project", "mail"]
    assert run(platform, "adapters", "create", "mine", *options).exit_code == 0
    assert platform.body == {
        "name": "mine",
        "model": "smol",
        "fileset": "weights",
        "finetuning_type": "lora",
        "enabled": False,
        "project": "mail",
        "lora_config": {"rank": 8},
    }


def test_shared_options_may_stand_behind_the_command():
    platform = Platform(page(samples.MODEL))
    result = run(platform, "models", "list", "--output", "table", "--workspace=theirs")
    assert result.stdout.startswith("NAME"), result.output
    assert "/workspaces/theirs/models" in platform.sent[0]


def test_what_stands_behind_two_dashes_is_no_option():
    platform = Platform(httpx.Response(404, json={"detail": "no"}))
    result = run(platform, "--output", "json", "models", "show", "--", "--output")
    assert result.exit_code == 1
    assert platform.sent[0].endswith("/models/--output")


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", {"COMP_WORDS": "tunesmith mo", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "tunesmith mo"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "tunesmith mo", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_shells_complete_commands(shell, line):
    from typer.testing import CliRunner

    from tunesmith.cli.main import app

    def ask(instruction, **more):
        environment = {"_TUNESMITH_COMPLETE": f"{instruction}_{shell}", **more}
        return CliRunner().invoke(app, [], prog_name="tunesmith", env=environment)

    assert "_TUNESMITH_COMPLETE" in ask("source").stdout
    assert "models" in ask("complete", **line).stdout
