"""The published `nemo-platform` client, unchanged and in an environment of its own, does every noun.

`make setup` makes that environment; TUNESMITH_NEMO_PYTHON names another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.control.sources.standins.hub import Hub
from tests.live import LiveServer, checkpoint, safetensors, settings

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CHAPTERS = (
    "workspaces",
    "secrets",
    "files",
    "remote_files",
    "models",
    "adapters",
    "jobs",
    "shorthand",
    "workspace_goes",
)


@pytest.fixture
def nemo_python() -> str:
    """The Python that has the published client."""
    found = os.environ.get("TUNESMITH_NEMO_PYTHON") or str(ROOT / ".venv-nemo" / "bin" / "python")
    assert Path(found).exists(), f"{found} is missing: run `make setup`"
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a user has on disk: a checkpoint, an adapter made elsewhere, rows one directory down."""
    for name, files in (("base", checkpoint()), ("adapter", adapter())):
        (tmp_path / name).mkdir()
        for path, content in files.items():
            (tmp_path / name / path).write_bytes(content)
    (tmp_path / "rows" / "training").mkdir(parents=True)
    (tmp_path / "rows" / "training" / "rows.jsonl").write_text('{"prompt": "w1", "completion": "w2"}\n' * 20)
    (tmp_path / "rows" / "read me.txt").write_text("rows")
    return tmp_path


def adapter(rank: int = 4, hidden: int = 8, layers: int = 2) -> dict[str, bytes]:
    """A LoRA adapter for `checkpoint()`, as PEFT writes one."""
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj"], "bias": "none"}
    shapes = {}
    for layer in range(layers):
        module = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        shapes[f"{module}.lora_A.weight"] = [rank, hidden]
        shapes[f"{module}.lora_B.weight"] = [hidden, rank]
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": safetensors(shapes)}


@pytest.mark.usefixtures("small_trainer")
def test_it_does_every_noun_unchanged(nemo_python: str, folder: Path) -> None:
    with Hub() as hub:
        hub.add("org/tiny", checkpoint(), token="hf_right")
        allowed = replace(settings(folder), hub_endpoint=hub.url, allowed_endpoints=(hub.url,))
        with LiveServer(allowed) as server:
            told = subprocess.run(
                [nemo_python, str(HERE / "published_client.py"), server.url, str(folder), hub.url],
                env={"PATH": os.environ["PATH"], "HOME": str(folder)},
                capture_output=True,
                text=True,
                timeout=120,
            )
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.splitlines() == [f"{chapter}: ok" for chapter in (*CHAPTERS, "asynchronous")]


def test_two_distributions_that_own_one_name_are_not_mixed(nemo_python: str) -> None:
    told = subprocess.run(
        [nemo_python, "-c", "import nemo_platform"],
        env={"PYTHONPATH": str(ROOT / "compat" / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode != 0
    assert "tunesmith-nemo-compat cannot be used beside nemo-platform 0.3.0" in told.stderr
    assert "pip uninstall" in told.stderr


SEEDED = """
import sys
import time
from nemo_platform import ConflictError, NeMoPlatform
from nemo_platform.types.files import HuggingfaceStorageConfigParam

client = NeMoPlatform(base_url=sys.argv[1], workspace="default")
client.secrets.create(name="my-hf-token", workspace="default", value="hf_right")
fileset = client.files.filesets.create(
    workspace="default",
    name="tiny",
    description="a base",
    storage=HuggingfaceStorageConfigParam(
        type="huggingface", repo_id="org/tiny", repo_type="model", token_secret="my-hf-token"
    ),
)
model = client.models.create(workspace="default", name="tiny", fileset="default/tiny", description="a base")
while not model.spec:
    model = client.models.retrieve(workspace="default", name="tiny")
assert model.spec.family == "llama" and model.spec.base_num_parameters > 0
client.files.filesets.create("weights")
client.files.upload(sys.argv[2] + "/adapter/", fileset="weights")
model = client.models.create_adapter(
    model_name="tiny", workspace="default", name="mine", fileset="default/weights", finetuning_type="lora"
)
for enabled in (False, True):
    client.models.update_adapter(model_name="tiny", workspace="default", adapter_name="mine", enabled=enabled)
    assert client.adapters.retrieve("mine").enabled is enabled
model = client.models.retrieve(workspace="default", name="tiny")
assert [(each.name, each.finetuning_type, each.enabled) for each in model.adapters or []] == [("mine", "lora", True)]
assert [each.name for each in client.models.list(workspace="default")] == ["tiny"]
client.files.filesets.create("email-training-data", purpose="dataset")
client.files.upload(sys.argv[2] + "/rows/", fileset="email-training-data")
job = client.customization.jobs.create(
    workspace="default",
    name="my-email-assistant-lora",
    spec={
        "model": "default/tiny",
        "dataset": "fileset://default/email-training-data",
        "training": {
            "type": "sft",
            "peft": {"type": "lora", "rank": 8, "alpha": 32},
            "epochs": 3,
            "batch_size": 32,
        },
        "deployment_config": {"lora_enabled": True},
    },
)
while client.jobs.get_status(job.name).status not in ("completed", "error", "cancelled"):
    time.sleep(0.1)
assert client.jobs.get_status(job.name).status_details["deployment"]
model = client.models.retrieve(workspace="default", name="tiny")
made = {adapter.name: adapter for adapter in model.adapters}[job.spec["output"]["name"]]
assert (made.finetuning_type, made.enabled, made.lora_config.rank) == ("lora", True, 8)
try:
    client.models.create(name="tiny")
except ConflictError:
    print("done")
"""


@pytest.mark.usefixtures("small_trainer")
def test_scripts_with_the_published_import_names_run_on_our_sdk(folder: Path) -> None:
    with Hub() as hub:
        hub.add("org/tiny", checkpoint(), token="hf_right")
        with LiveServer(replace(settings(folder), hub_endpoint=hub.url)) as server:
            told = subprocess.run(
                [sys.executable, "-c", SEEDED, server.url, str(folder)],
                env={"PYTHONPATH": str(ROOT / "compat" / "src"), "PATH": os.environ["PATH"]},
                capture_output=True,
                text=True,
                timeout=60,
            )
    assert told.stdout == "done\n", told.stderr
