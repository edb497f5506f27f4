"""The shorthand on the wire: one spec for all dialects. Jobs are shown as `api.jobs.CustomizationJob`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunesmith.api.base import JsonObject
from tunesmith.api.jobs import CreateJob

SHORTHAND = "shorthand"
"""What a job's row calls the door that it came through."""

EXAMPLE: JsonObject = {
    "model": "default/llama-3-2-1b",
    "dataset": "fileset://default/email-training-data",
    "training": {
        "type": "sft",
        "peft": {"type": "lora", "rank": 8, "alpha": 32},
        "epochs": 3,
        "batch_size": 32,
    },
    "deployment_config": {"lora_enabled": True},
}


class CreateShorthandJob(CreateJob):
    """A new job in the shorthand."""

    spec: Annotated[JsonObject, Field(examples=[EXAMPLE])]
    """`model`, `dataset` and `training`, whose `type` is `sft`, `distillation` or `dpo`; with `peft` an adapter is
    trained, without it all weights. Beside them `output`, `deployment_config`, `integrations` and `custom_fields`.
    The job goes to the backend that has all of it, and shows the spec as it was sent, with what was filled in."""
