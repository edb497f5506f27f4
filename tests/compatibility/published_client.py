"""What users of the published `nemo-platform` client do with the ground floor, in its own Python: no tests framework.

    python published_client.py BASE_URL FOLDER HUB_URL

FOLDER holds `base/` (a checkpoint), `adapter/` (PEFT files) and `rows/` (rows in a sub-directory).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nemo_platform
from nemo_platform import AsyncNeMoPlatform, NeMoPlatform
from nemo_platform.types.files import HuggingfaceStorageConfigParam

URL, FOLDER, HUB = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
client = NeMoPlatform(base_url=URL, workspace="default")


def refused(kind: type[Exception], call: Callable[[], object], *words: str) -> None:
    """The call raises `kind` at once, with these words in its message."""
    started, said = time.monotonic(), None
    try:
        call()
    except kind as error:
        said = str(error)
    assert said is not None, f"{kind.__name__} did not come"
    assert all(word in said for word in words), said
    assert time.monotonic() - started < 0.4, "a refusal was tried again"


def workspaces() -> None:
    made = client.workspaces.create(name="team-a", description="ours")
    assert made.name == "team-a"
    assert made.id.startswith("workspace-")
    refused(nemo_platform.ConflictError, lambda: client.workspaces.create(name="team-a"), "already exists")
    assert client.workspaces.create(name="team-a", exist_ok=True).id == made.id
    assert client.workspaces.update("team-a", description="theirs").description == "theirs"
    assert {"default", "system", "team-a"} <= {each.name for each in client.workspaces.list()}
    assert [each.name for each in client.workspaces.list(filter='name:"team-a" OR name~"nothing"')] == ["team-a"]
    refused(nemo_platform.BadRequestError, lambda: client.workspaces.list(filter='colour:"red"'), "colour")
    refused(nemo_platform.UnprocessableEntityError, lambda: client.workspaces.create(name="Not Lawful"))
    member = client.workspaces.members.create(workspace="team-a", principal="ada@example.org", roles=["Admin"])
    assert member.roles == ["Admin"]
    client.workspaces.members.update("bob@example.org", workspace="team-a", roles=["Viewer"])
    there = client.workspaces.members.list(workspace="team-a").data
    assert {each.principal for each in there} == {"ada@example.org", "bob@example.org"}
    refused(
        nemo_platform.ConflictError,
        lambda: client.workspaces.members.delete("ada@example.org", workspace="team-a"),
    )
    client.workspaces.members.delete("bob@example.org", workspace="team-a")
    for number in range(7):
        client.projects.create(workspace="team-a", name=f"p-{number}")
    pages = client.projects.list(workspace="team-a", page_size=3, sort="name")
    assert [each.name for each in pages] == [f"p-{number}" for number in range(7)]
    client.projects.update("p-1", workspace="team-a", description="one")
    assert client.projects.retrieve("p-1", workspace="team-a").description == "one"
    client.projects.delete("p-1", workspace="team-a")
    refused(nemo_platform.NotFoundError, lambda: client.projects.retrieve("p-1", workspace="team-a"))


def secrets() -> None:
    made = client.secrets.create(name="hub-token", value="hf_right", description="for the hub")
    assert made.name == "hub-token"
    assert "hf_right" not in repr(made)
    refused(nemo_platform.ConflictError, lambda: client.secrets.create(name="hub-token", value="x"), "hub-token")
    refused(nemo_platform.UnprocessableEntityError, lambda: client.secrets.create(name="HF_TOKEN", value="x"))
    refused(nemo_platform.UnprocessableEntityError, lambda: client.secrets.create(name="empty", value=""))
    assert client.secrets.update("hub-token", description="again").description == "again"
    assert "hub-token" in {each.name for each in client.secrets.list()}
    refused(nemo_platform.PermissionDeniedError, lambda: client.secrets.access("hub-token"))
    assert client.secrets.admin.rotate_encryption_keys().success is True
    client.secrets.create(name="gone", value="x")
    client.secrets.delete("gone")
    refused(nemo_platform.NotFoundError, lambda: client.secrets.retrieve("gone"))


def files() -> None:
    made = client.files.filesets.create(name="rows", purpose="dataset", description="rows of ours")
    assert made.purpose == "dataset"
    refused(nemo_platform.ConflictError, lambda: client.files.filesets.create(name="rows"), "already exists")
    assert client.files.filesets.create(name="rows", exist_ok=True).id == made.id
    client.files.upload(local_path=f"{FOLDER / 'rows'}/", fileset="rows", remote_path="")
    paths = {each.path for each in client.files.list(fileset="rows").data}
    assert paths == {"training/rows.jsonl", "read me.txt"}, paths
    client.files.upload_content(content=b"0123456789", remote_path="deep/er/digits.txt", fileset="rows")
    assert client.files.download_content(fileset="rows", remote_path="deep/er/digits.txt") == b"0123456789"
    listed = client.files.list(fileset="rows", remote_path="deep", include_cache_status=True).data
    assert [(each.path, each.size, each.cache_status) for each in listed] == [
        ("deep/er/digits.txt", 10, "not_cacheable")
    ]
    assert client.files.list(fileset="rows", remote_path="dee").data == []
    target = FOLDER / "down"
    client.files.download(fileset="rows", local_path=str(target))
    assert (target / "deep/er/digits.txt").read_bytes() == b"0123456789"
    assert (target / "training/rows.jsonl").read_bytes() == (FOLDER / "rows/training/rows.jsonl").read_bytes()
    system = client.files.fsspec
    assert system.exists("default/rows/deep/er/digits.txt")
    found = system.glob("default/rows#training/*")
    assert found == ["default/rows#training/rows.jsonl"], found
    assert system.cat_file("default/rows/deep/er/digits.txt", start=2, end=5) == b"234"
    with system.open("default/rows/deep/er/digits.txt", "rb") as opened:
        assert opened.read() == b"0123456789"
    client.files.delete(fileset="rows", remote_path="deep/er/digits.txt")
    assert client.files.list(fileset="rows", remote_path="deep").data == []
    auto = client.files.upload(local_path=str(FOLDER / "rows/read me.txt"), fileset_auto_create=True)
    assert auto.name.startswith("fileset-")
    client.projects.create(name="apollo")
    changed = client.files.filesets.update("rows", project="apollo", custom_fields={"team": "a"})
    assert changed.project == "apollo"
    assert [each.name for each in client.files.filesets.list(filter={"project": "apollo"})] == ["rows"]
    assert [each.name for each in client.files.filesets.list(filter={"purpose": "dataset"})] == ["rows"]
    assert client.files.filesets.delete(auto.name).name == auto.name


def remote_files() -> None:
    storage = HuggingfaceStorageConfigParam(
        type="huggingface", repo_id="org/tiny", repo_type="model", token_secret="hub-token", endpoint=HUB
    )
    made = client.files.filesets.create(name="from-hub", description="of a hub", storage=storage)
    assert made.storage.type == "huggingface"
    assert len(made.storage.revision) == 40
    assert {"config.json", "model.safetensors"} <= {each.path for each in client.files.list(fileset="from-hub").data}
    assert client.files.download_content(fileset="from-hub", remote_path="config.json").startswith(b"{")
    model = client.models.create(name="from-hub", fileset="default/from-hub")
    assert analysed(model.name).spec.family == "llama"


def analysed(name: str) -> Any:
    """The model once its spec is there."""
    deadline = time.monotonic() + 20
    model = client.models.retrieve(name)
    while not model.spec:
        assert time.monotonic() < deadline, model.custom_fields
        time.sleep(0.05)
        model = client.models.retrieve(name)
    return model


def models() -> None:
    client.files.filesets.create(name="base", purpose="model")
    client.files.upload(local_path=f"{FOLDER / 'base'}/", fileset="base", remote_path="")
    made = client.models.create(
        name="base", fileset="default/base", description="a base", project="apollo", custom_fields={"team": "a"}
    )
    assert made.id.startswith("model-")
    model = analysed("base")
    assert model.spec.base_num_parameters > 0
    assert model.spec.linear_layers is None
    assert client.models.retrieve("base", verbose=True).spec.linear_layers
    refused(nemo_platform.ConflictError, lambda: client.models.create(name="base"), "already exists")
    refused(
        nemo_platform.BadRequestError, lambda: client.models.create(name="other", fileset="default/none"), "not found"
    )
    client.models.create(name="tuned", base_model="default/base", description="of the base")
    assert client.models.update("tuned", description="newer").description == "newer"
    both = {"$and": [{"name": {"$like": "tun"}}, {"base_model": {"$eq": "default/base"}}]}
    assert [each.name for each in client.models.list(filter=both)] == ["tuned"]
    assert [each.name for each in client.models.list(filter={"name": {"$in": ["base", "tuned"]}}, sort="-name")] == [
        "tuned",
        "base",
    ]
    assert [each.name for each in client.models.list(filter={"project": "apollo"})] == ["base"]
    client.models.delete("tuned")
    refused(nemo_platform.NotFoundError, lambda: client.models.retrieve("tuned"), "not found")


def adapters() -> None:
    client.files.filesets.create(name="adapter-files")
    client.files.upload(local_path=f"{FOLDER / 'adapter'}/", fileset="adapter-files", remote_path="")
    made = client.models.adapters.create("base", name="style", fileset="default/adapter-files", finetuning_type="lora")
    assert (made.lora_config.rank, made.model, made.enabled) == (4, "default/base", True)
    assert [each.name for each in client.models.retrieve("base").adapters] == ["style"]
    again = {"name": "style", "fileset": "default/adapter-files", "finetuning_type": "lora"}
    refused(nemo_platform.ConflictError, lambda: client.models.adapters.create("base", **again), "style")
    assert client.models.adapters.update("style", model_name="base", enabled=False).enabled is False
    assert client.adapters.retrieve("style").enabled is False
    assert client.adapters.list(filter={"enabled": False}).data[0].name == "style"
    assert client.adapters.patch("style", description="terse", enabled=True).description == "terse"
    assert [each.name for each in client.models.list(filter={"adapters": {"finetuning_type": "lora"}})] == ["base"]
    client.models.adapters.delete("style", model_name="base")
    client.adapters.create(
        name="style-2", model="default/base", fileset="default/adapter-files", finetuning_type="lora"
    )
    client.adapters.delete("style-2")
    refused(nemo_platform.NotFoundError, lambda: client.adapters.retrieve("style-2"))


def jobs() -> None:
    spec = {"model": "default/base", "dataset": {"training": "default/rows"}, "training": {}}
    job = client.customization.automodel.jobs.create(spec=spec, name="by-plugin")
    assert job.name == "by-plugin"
    assert client.customization.automodel.jobs.get_status("by-plugin").steps
    refused(
        nemo_platform.UnprocessableEntityError,
        lambda: client.customization.automodel.jobs.create(spec={**spec, "model": "default/none"}),
        "spec.model",
    )
    assert client.jobs.get_status("by-plugin").name == "by-plugin"
    assert [each.name for each in client.jobs.list(filter={"source": "customization"})] == ["by-plugin"]
    client.jobs.cancel("by-plugin")
    unsloth = client.customization.unsloth.jobs.create(
        spec={
            "model": {"name": "default/base", "load_in_4bit": False, "max_seq_length": 64},
            "dataset": {"path": "default/rows"},
            "training": {"lora": {"rank": 4, "target_modules": ["q_proj"]}},
            "optimizer": {"optim": "adamw_torch"},
        },
        name="of-unsloth",
        idempotency_key="once",
    )
    assert unsloth.spec.model.name == "default/base"
    assert [each.name for each in client.customization.unsloth.jobs.list()] == ["of-unsloth"]
    client.customization.unsloth.jobs.cancel("of-unsloth")
    client.jobs.delete("of-unsloth")
    refused(nemo_platform.NotFoundError, lambda: client.customization.unsloth.jobs.retrieve("of-unsloth"))


def shorthand() -> None:
    job = client.customization.jobs.create(
        workspace="default",
        name="my-email-assistant-lora",
        spec={
            "model": "default/base",
            "dataset": "fileset://default/rows",
            "training": {
                "type": "sft",
                "peft": {"type": "lora", "rank": 8, "alpha": 32},
                "epochs": 3,
                "batch_size": 32,
            },
        },
    )
    assert job.spec["training"]["peft"]["rank"] == 8
    refused(
        nemo_platform.UnprocessableEntityError,
        lambda: client.customization.jobs.create(workspace="default", spec={"model": "base"}),
        "training",
    )
    deadline = time.monotonic() + 60
    while client.jobs.get_status(job.name).status not in ("completed", "error", "cancelled"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert client.customization.jobs.get_status(job.name).status == "completed"
    assert client.customization.jobs.retrieve(job.name).spec == job.spec
    assert client.customization.automodel.jobs.retrieve(job.name).spec.training.lora.rank == 8
    assert job.name in {each.name for each in client.customization.jobs.list()}
    assert client.customization.jobs.get_logs(job.name, limit=5).total >= 0
    adapter = client.models.retrieve("base").adapters[-1]
    assert (adapter.name, adapter.enabled) == (job.spec["output"]["name"], True)
    client.customization.jobs.cancel(job.name)
    client.customization.jobs.delete(job.name)
    refused(nemo_platform.NotFoundError, lambda: client.jobs.retrieve(job.name))


def workspace_goes() -> None:
    client.files.filesets.create(workspace="team-a", name="theirs")
    client.workspaces.delete("team-a")
    refused(nemo_platform.NotFoundError, lambda: client.workspaces.retrieve("team-a"))
    refused(nemo_platform.NotFoundError, lambda: client.files.filesets.retrieve("theirs", workspace="team-a"))


async def asynchronous() -> None:
    async with AsyncNeMoPlatform(base_url=URL, workspace="default") as other:
        assert (await other.models.retrieve("base")).name == "base"
        assert "base" in [each.name async for each in other.models.list(page_size=1)]
        state = await other.customization.automodel.jobs.get_status("by-plugin")
        assert state.name == "by-plugin"


for chapter in (workspaces, secrets, files, remote_files, models, adapters, jobs, shorthand, workspace_goes):
    chapter()
    print(f"{chapter.__name__}: ok", flush=True)
asyncio.run(asynchronous())
print("asynchronous: ok")
