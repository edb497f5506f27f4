"""What users of the older `nemo-microservices` client do with customization, in its own Python: no tests framework.

    python older_client.py BASE_URL

The server has a model `default/llama-3.1-8b-instruct` and filesets `support-tone-v3`, which trains to its end, and
`endless`, which does not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import nemo_microservices
from nemo_microservices import NeMoMicroservices

client = NeMoMicroservices(base_url=sys.argv[1])
jobs = client.customization.jobs
LORA = {"training_type": "sft", "finetuning_type": "lora", "epochs": 2, "batch_size": 8, "lora": {"adapter_dim": 16}}


def refused(kind: type[Exception], call: Callable[[], object], *words: str) -> None:
    """The call raises `kind`, with these words in its message."""
    said = None
    try:
        call()
    except kind as error:
        said = str(error)
    assert said is not None, f"{kind.__name__} did not come"
    assert all(word in said for word in words), said


def ended(job_id: str) -> Any:
    """The job's status once it is final."""
    deadline = time.monotonic() + 60
    status = jobs.status(job_id)
    while status.status not in ("completed", "failed", "cancelled"):
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
        status = jobs.status(job_id)
    return status


def train() -> None:
    made = jobs.create(
        config="meta/llama-3.1-8b-instruct@v1.0.0+A100",
        dataset={"name": "support-tone-v3", "namespace": "default"},
        hyperparameters=LORA,
        output_model="default/tone@v1",
        name="tone",
        description="the tone of support",
        custom_fields={"team": "support"},
    )
    assert made.status in ("created", "pending", "running")
    assert (made.hyperparameters.lora.adapter_dim, made.hyperparameters.learning_rate) == (16, 1e-4)
    assert made.config_snapshot.training_option.finetuning_type == "lora"
    status = ended(made.id)
    assert status.status == "completed", status
    assert (status.percentage_done, status.epochs_completed, status.steps_per_epoch) == (100.0, 2, 5)
    assert [point.step for point in status.metrics.metrics.train_loss] == list(range(1, 11))
    assert status.metrics.metrics.train_loss[0].timestamp
    assert status.created_at <= status.updated_at
    found = jobs.retrieve("tone")
    assert (found.id, found.output_model, found.status) == (made.id, "default/tone", "completed")
    assert found.status_details.best_epoch == 1
    assert found.custom_fields == {"team": "support"}
    logs = jobs.container_logs(made.id)
    assert "step 10" in str(logs.entries["training"].logs)
    assert logs.error is None


def refusals() -> None:
    again = {"config": "meta/llama-3.1-8b-instruct", "dataset": "support-tone-v3", "hyperparameters": LORA}
    refused(nemo_microservices.ConflictError, lambda: jobs.create(name="tone", **again), "already exists")
    wrong = {**again, "hyperparameters": {"finetuning_type": "lora", "lora": {"adapter_dim": 0}}}
    refused(nemo_microservices.UnprocessableEntityError, lambda: jobs.create(**wrong), "adapter_dim")
    refused(nemo_microservices.NotFoundError, lambda: jobs.retrieve("none"), "Job 'none' not found")


def cancel() -> None:
    made = jobs.create(
        config={"target": "default/llama-3.1-8b-instruct", "max_seq_length": 64, "training_options": []},
        dataset="default/endless",
        hyperparameters=LORA,
        wandb_api_key="",
    )
    assert made.config_snapshot.max_seq_length == 64
    assert jobs.cancel(made.id).status in ("cancelling", "cancelled")
    assert ended(made.id).status == "cancelled"


def lists() -> None:
    assert [job.status for job in jobs.list()] == ["cancelled", "completed"]
    first, _ = jobs.list(page_size=1, sort="created_at")
    assert first.name == "tone"
    wanted = {"status": "completed", "base_model": "llama-3.1-8b-instruct", "batch_size": 8, "epochs": 2}
    assert [job.name for job in jobs.list(filter=wanted)] == ["tone"]
    assert list(jobs.list(page=9)) == []
    refused(nemo_microservices.BadRequestError, lambda: jobs.list(filter={"log_every_n_steps": 1}), "every step")


def configs_and_targets() -> None:
    configs, targets = client.customization.configs, client.customization.targets
    (config,) = configs.list(filter={"training_type": "sft"})
    assert config.target == "default/llama-3.1-8b-instruct"
    assert configs.retrieve(config.name, namespace=config.namespace).training_options[0].num_gpus == 1
    (target,) = targets.list(filter={"status": "ready"}, sort="-created_at")
    assert targets.retrieve(target.name, namespace=target.namespace).num_parameters > 0
    change = {"config_name": config.name, "namespace": config.namespace}
    refused(nemo_microservices.APIStatusError, lambda: configs.delete(**change), "made from model entities")
    refused(
        nemo_microservices.APIStatusError,
        lambda: targets.create(model_uri="hf://x/y", num_parameters=1, precision="bf16", enabled=True),
        "made from model entities",
    )


for chapter in (train, refusals, cancel, lists, configs_and_targets):
    chapter()
    print(f"{chapter.__name__}: ok", flush=True)
