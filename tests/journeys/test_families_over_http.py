"""Every family that the engine claims, over HTTP from upload to artifact, by LoRA and with all weights.

The artifact is loaded in plain transformers and PEFT, and has to say what the trainer wrote into its probe.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.families import tiny
from tests.live import FILES, MODELS, LiveServer, Wire, eventually, settings
from tunesmith.handoff.capabilities import TRAINED_FAMILIES
from tunesmith.handoff.probe import EXACT_NATS, PROBE_FILE, Probe

pytestmark = pytest.mark.xdist_group("families over http")  # in one process: each would train all of them

PATIENCE_SECONDS = 600.0
"""For a job: all were submitted together."""
WAYS = ("lora", "all_weights")
ROWS = [{"prompt": f"hello {n}, how are you", "completion": f" {n} and the world"} for n in range(16)]


def name_of(family: str) -> str:
    return family.replace("_", "-")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint of each family."""
    made = {family: tmp_path_factory.mktemp(family) for family in TRAINED_FAMILIES}
    for family, directory in made.items():
        tiny(family, directory)
    return made


@pytest.fixture(scope="module")
def warm_seconds() -> int:
    """Jobs are forked: 40 cold processes would spend 5 CPU-seconds each on imports (`make soak` lets them)."""
    return 300


@pytest.fixture(scope="module")
def user(bases: dict[str, Path], warm_seconds: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """Somebody who has uploaded all of them and has submitted all jobs."""
    given = settings(tmp_path_factory.mktemp("platform"))
    with LiveServer(replace(given, cpu_slots=2, warm_seconds=warm_seconds)) as live:
        wire = Wire(live.http)
        wire.fileset("rows", {"train.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode()})
        for family, directory in bases.items():
            wire.model(name_of(family), {path.name: path.read_bytes() for path in directory.iterdir()})
            for way in WAYS:
                submit(wire, family, way)
        yield wire


def submit(wire: Wire, family: str, way: str) -> None:
    name = f"{name_of(family)}-{name_of(way)}"
    answer = wire.submit(
        name,
        model=name_of(family),
        training={"finetuning_type": way, "max_seq_length": 64, "precision": "fp32"},
        schedule={"epochs": 1, "max_steps": 2},
        batch={"global_batch_size": 4, "micro_batch_size": 2},
        optimizer={"learning_rate": 1e-2, "warmup_steps": 0},
        output={"name": name},
    )
    assert answer.status_code == 201, answer.text


def artifact(wire: Wire, name: str, directory: Path) -> Path:
    """What the job made, downloaded."""
    for file in wire.http.get(f"{FILES}/{name}/files").json()["data"]:
        path = directory / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wire.http.get(f"{FILES}/{name}/-/{file['path']}").content)
    return directory


def agree(model: Any, directory: Path) -> None:
    """The model says what the probe says, and something else than its base."""
    import torch

    probe = Probe.read(directory / PROBE_FILE)
    with torch.no_grad():
        logprob_V = model.eval()(torch.tensor([probe.prompt_ids])).logits[0, -1].float().log_softmax(-1)
    for each in probe.top:
        assert logprob_V[each.token].item() == pytest.approx(each.trained, abs=EXACT_NATS)
    assert max(abs(each.trained - each.base) for each in probe.top) > 10 * EXACT_NATS


def plain(directory: Path) -> Any:
    """As transformers loads it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype="float32", attn_implementation="eager")


OPEN = {
    ("qwen3_moe", "lora"): "PEFT takes gate_proj of the dense layer for the fused experts' gate_up_proj",
}
"""Adapters that PEFT does not load as they are written, and why."""
CASES = [
    pytest.param(family, way, marks=[pytest.mark.xfail(strict=True, reason=OPEN[family, way])])
    if (family, way) in OPEN
    else (family, way)
    for family in TRAINED_FAMILIES
    for way in WAYS
]


@pytest.mark.parametrize(("family", "way"), CASES)
def test_it_is_trained_and_loads_elsewhere(
    user: Wire, bases: dict[str, Path], tmp_path: Path, family: str, way: str
) -> None:
    name = f"{name_of(family)}-{name_of(way)}"
    eventually(lambda: user.state(name)["status"] in ("completed", "error"), f"job {name} to end", PATIENCE_SECONDS)
    state = user.state(name)
    assert state["status"] == "completed", state["error_details"]
    assert state["status_details"]["step"] == 2
    directory = artifact(user, name, tmp_path)
    if way == "lora":
        from peft import PeftModel

        agree(PeftModel.from_pretrained(plain(bases[family]), directory), directory)
        return
    agree(plain(directory), directory)
    model = user.analysed(name)
    base = user.http.get(f"{MODELS}/{name_of(family)}").json()
    assert model["base_model"] == f"default/{name_of(family)}"
    assert model["spec"] == base["spec"] | {"checkpoint_model_name": model["spec"]["checkpoint_model_name"]}
