"""The nouns of the ground floor, from Python and from the terminal, against the real application."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.cli.terminal import Shell
from tests.live import adapter_files, checkpoint, eventually
from tunesmith import AsyncTunesmith, Tunesmith
from tunesmith.api.models import LoraConfig
from tunesmith.client.errors import (
    BadRequestError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    SpecFailed,
    UnprocessableEntityError,
)
from tunesmith.errors import Invalid


@pytest.fixture
def client(live):
    with Tunesmith(live.url) as made:
        yield made


@pytest.fixture
def shell(live):
    return Shell(live.url)


def fill(client, name, files):
    client.files.filesets.create(name, exist_ok=True)
    for path, content in files.items():
        client.files.upload_content(content, path, name)


def names(listed):
    return [thing.name for thing in listed]


def test_workspaces_from_creation_to_their_end(client):
    made = client.workspaces.create("team-a", description="first")
    assert (made.name, made.description) == ("team-a", "first")
    with pytest.raises(ConflictError, match="team-a"):
        client.workspaces.create("team-a")
    assert client.workspaces.create("team-a", exist_ok=True).id == made.id
    assert client.workspaces.update("team-a", description="second").description == "second"
    assert names(client.workspaces.list(filter={"name": "team-a"})) == ["team-a"]
    assert names(client.workspaces.list(filter='name~"TEAM"', sort="name")) == ["team-a"]
    fill(client, "team-a/rows", {"a.txt": "abc"})
    assert client.workspaces.delete("team-a").id == "team-a"
    with pytest.raises(NotFoundError, match="team-a"):
        client.workspaces.retrieve("team-a")

    def free():
        try:
            return client.workspaces.create("team-a", exist_ok=True)
        except ConflictError:
            return None

    eventually(free, "the workspace to be cleared away")
    assert names(client.files.filesets.list(workspace="team-a")) == []


def test_members_of_a_workspace(client):
    members = client.workspaces.members
    assert members.create("ann@example.org", roles=["Admin"]).roles == ["Admin"]
    members.create("bob")
    roles = {member.principal: member.roles for member in members.list().data}
    assert (roles["ann@example.org"], roles["bob"]) == (["Admin"], ["Editor"])
    assert members.update("bob", roles=["Viewer"]).roles == ["Viewer"]
    assert members.delete("bob").id == "bob"
    with pytest.raises(NotFoundError):
        members.delete("bob")


def test_projects_label_every_noun(client):
    client.projects.create("mail", description="support mail")
    assert client.projects.create("mail", exist_ok=True).name == "mail"
    assert client.projects.update("mail", description="x").description == "x"
    fill(client, "base", checkpoint())
    fill(client, "weights", adapter_files())
    client.files.filesets.update("weights", project="mail")
    client.secrets.create("token", value="v", project="mail")
    client.models.create("base", fileset="base", project="mail")
    client.adapters.create("tuned", model="base", fileset="weights", project="mail")
    for listed in (client.secrets, client.files.filesets, client.models, client.adapters):
        assert [thing.project for thing in listed.list(filter={"project": "mail"})] == ["mail"]
    with pytest.raises(UnprocessableEntityError, match="nowhere"):
        client.files.filesets.create("other", project="nowhere")
    client.projects.delete("mail")
    assert names(client.projects.list()) == []
    assert not client.models.retrieve("base").project


def test_secrets_go_in_and_never_come_out(client):
    made = client.secrets.create("hf-token", value="s3cret-canary", description="hub")
    assert "canary" not in made.model_dump_json()
    assert client.secrets.retrieve("hf-token").description == "hub"
    assert client.secrets.update("hf-token", value="other").name == "hf-token"
    assert names(client.secrets.list()) == ["hf-token"]
    with pytest.raises(PermissionDeniedError, match="authentication"):
        client.secrets.access("hf-token")
    assert client.secrets.rotate().rotated_secrets == 1
    client.secrets.delete("hf-token")
    with pytest.raises(NotFoundError, match="hf-token"):
        client.secrets.retrieve("hf-token")


def test_filesets_are_changed_and_removed(client):
    made = client.files.filesets.create(
        "rows", purpose="dataset", metadata={"dataset": {"schema": {"type": "object"}}}, custom_fields={"team": "a"}
    )
    assert made.metadata.dataset.schema_ == {"type": "object"}
    changed = client.files.filesets.update("rows", description="new", custom_fields={"team": "b"})
    assert (changed.description, changed.custom_fields, changed.purpose) == ("new", {"team": "b"}, "dataset")
    assert names(client.files.filesets.list(filter={"purpose": "dataset"})) == ["rows"]
    assert names(client.files.filesets.list(filter='purpose:"model"')) == []
    assert client.files.filesets.delete("rows").name == "rows"
    assert client.gc(dry_run=True).dry_run
    with pytest.raises(NotFoundError, match="rows"):
        client.files.list("rows")


def test_a_model_is_read_and_changed_and_deleted_with_its_adapters(client):
    fill(client, "base", checkpoint())
    heard = []
    client.models.create(name="base", workspace="default", fileset="default/base")
    model = client.models.wait("base", on_status=heard.append, interval=0.02)
    assert model.spec.family == "llama"
    assert heard[-1] == model
    assert client.models.retrieve(workspace="default", name="base").spec.linear_layers is None
    assert client.models.retrieve("base", verbose=True).spec.linear_layers
    assert client.models.update("base", description="first", custom_fields={"n": 1}).description == "first"
    fill(client, "weights", adapter_files())
    nested = client.models.create_adapter(
        model_name="base", workspace="default", name="one", fileset="default/weights", finetuning_type="lora"
    )
    assert nested.lora_config == LoraConfig(rank=4, alpha=8)
    client.models.adapters.create("base", name="two", fileset="weights", enabled=False)
    client.adapters.create("three", model="base", fileset="weights")
    assert client.adapters.create("three", model="base", fileset="weights", exist_ok=True).name == "three"
    assert sorted(adapter.name for adapter in client.models.retrieve("base").adapters) == ["one", "three", "two"]
    assert not client.models.update_adapter("base", "one", enabled=False).enabled
    assert client.models.adapters.update("two", model_name="base", description="x").description == "x"
    client.models.adapters.delete("two", model_name="base")
    client.adapters.delete("three")
    assert names(client.adapters.list(filter={"enabled": False})) == ["one"]
    client.models.delete("base")
    assert names(client.adapters.list()) == []


def test_a_checkpoint_that_cannot_be_read_is_an_error_with_its_reason(client):
    fill(client, "broken", checkpoint() | {"config.json": "{"})
    client.models.create("broken", fileset="broken")
    with pytest.raises(SpecFailed, match=r"default/broken.*config\.json"):
        client.models.wait("broken", interval=0.02)


def test_what_a_filter_cannot_be_is_said(client):
    with pytest.raises(BadRequestError, match="colour"):
        client.models.list(filter={"colour": "red"})
    with pytest.raises(BadRequestError):
        client.models.list(filter="name ~~ x")
    with pytest.raises(Invalid, match="set cannot be sent"):
        client.models.list(filter={"name": {"$in": {"a"}}})


def test_trees_of_conditions_reach_the_platform(client):
    for name in ("aa", "ab", "bb"):
        client.files.filesets.create(name)
    listed = client.files.filesets.list
    assert names(listed(filter={"$or": [{"name": "aa"}, {"name": {"$like": "BB"}}]}, sort="name")) == ["aa", "bb"]
    assert names(listed(filter={"name": {"$in": ["ab", "bb"]}}, sort="-name", page_size=1)) == ["bb", "ab"]
    assert names(listed(filter='-name:"aa" AND name IN ["aa", "ab"]')) == ["ab"]


def test_the_platform_says_what_it_is(client):
    assert client.cluster_info()["platform_version"] == "0.3.0"
    assert client.auth_discovery()["auth_enabled"] is False
    assert client.customization.health()["status"] == "ok"


def test_the_async_client_has_the_same_nouns(live):
    async def run():
        async with AsyncTunesmith(live.url) as client:
            await client.projects.create("mail")
            await client.secrets.create("token", value="v", project="mail")
            made = await client.secrets.list(filter={"project": "mail"})
            await client.workspaces.create("team-a", exist_ok=True)
            return [secret.name async for secret in made]

    assert asyncio.run(run()) == ["token"]


def test_a_package_that_is_not_there_is_named(client, monkeypatch):
    from tunesmith.client.sync import models

    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(Invalid, match="pip install openai"):
        client.models.get_openai_client()


def test_an_openai_client_gets_the_gateways_address(client, monkeypatch):
    from types import SimpleNamespace

    from tunesmith.client.sync import models

    monkeypatch.setattr(models, "find_spec", lambda name: name)
    monkeypatch.setattr(models, "import_module", lambda name: SimpleNamespace(OpenAI=lambda **given: given))
    given = client.models.get_openai_client()
    assert given == {"base_url": client.models.get_openai_route_base_url(), "api_key": "not-needed"}


def test_from_files_to_an_adapter_at_the_terminal(shell, tmp_path):
    base, weights = tmp_path / "base", tmp_path / "weights"
    for folder, files in ((base, checkpoint()), (weights, adapter_files())):
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    shell("workspaces", "create", "team-a")
    there = ("--workspace", "team-a")
    shell("projects", "create", "mail", *there)
    shell("secrets", "create", "token", "--project", "mail", *there, stdin="canary-9\n")
    shell("filesets", "create", "base", "--purpose", "model", "--project", "mail", *there)
    shell("filesets", "upload", f"{base}/", "base", *there)
    shell("files", "upload", f"{weights}/", "team-a/weights")
    listed = json.loads(shell("filesets", "files", "base", *there).stdout)
    assert {file["path"] for file in listed} == checkpoint().keys()
    model = json.loads(shell("models", "create", "base", "--fileset", "base", *there).stdout)
    assert model["spec"]["family"] == "llama"
    shell("adapters", "create", "tuned", "--model", "base", "--fileset", "weights", *there)
    table = shell("--output", "table", "adapters", "list", "--all-workspaces", "--filter", "enabled:true").stdout
    assert "team-a" in table
    assert "tuned" in table
    shell("adapters", "disable", "tuned", *there)
    shell("filesets", "download", "weights", str(tmp_path / "back"), *there)
    assert (tmp_path / "back" / "adapter_model.safetensors").read_bytes() == adapter_files()[
        "adapter_model.safetensors"
    ]
    shell("filesets", "rm", "weights", "adapter_config.json", *there)
    broken = shell("models", "update", "base", "--fileset", "weights", *there, fails=1)
    assert "cannot be read" in broken.stderr
    shell("models", "delete", "base", *there)
    assert json.loads(shell("adapters", "list", *there).stdout) == []
    assert "canary-9" not in shell("secrets", "show", "token", *there).output
    shell("secrets", "rotate")
    shell("workspaces", "delete", "team-a")
    shell("models", "list", *there, fails=1)
