"""Model entities and adapters on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from tunesmith.api.base import JsonObject, Listing, Name, ProjectName, Request, Resource, Timestamp

MODELS = Listing(sort="created_at")
ADAPTERS = Listing(sort="created_at")

# Every way of tuning that a client may record; what the engine trains is in handoff/capabilities.py.
FinetuningType = Literal[
    "lora_merged", "all_weights", "last_layer", "top_layers", "gradual_unfreezing", "bias_only", "attention_only",
    "lora", "qlora", "adalora", "dora", "lora_plus", "prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2",
    "soft_prompt", "ppo", "dpo", "cdpo", "ipo", "orpo", "kto", "rrhf", "grpo",
]  # fmt: skip

BackendFormat = Literal["OPENAI_CHAT", "ANTHROPIC_MESSAGES"]

Precision = str
"""`bfloat16`, `float16`, `float32`, `int8`, `int4`, ..."""

SpecStatus = Literal["pending", "completed", "failed", "given", "none"]
"""How a model's spec came to be: to be read, read, unreadable, as the user gave it, no checkpoint to read."""

Count = Annotated[int, Field(ge=0)]
Description = Annotated[str, Field(max_length=1000)]


class LinearLayer(Resource):
    """A linear module of a checkpoint: y = W x, W of shape [out_features, in_features]."""

    name: str
    in_features: Count
    out_features: Count


class MoeConfig(Resource):
    """The experts of a mixture-of-experts model."""

    num_experts: Count
    num_experts_per_tok: Count
    num_expert_layers: Count
    expert_ffn_size: Count | None = None
    num_shared_experts: Count = 0


class MambaConfig(Resource):
    """The state-space layers of a (hybrid) Mamba model."""

    is_hybrid: bool
    num_mamba_layers: Count
    num_attention_layers: Count = 0
    num_mlp_layers: Count = 0
    state_size: Count = 16
    conv_kernel: Count = 4


class SlidingWindowConfig(Resource):
    """How far back an attention with a window looks."""

    window_size: Count


class ToolCallConfig(Resource):
    """How answers carry tool calls."""

    tool_call_parser: Annotated[str, Field(max_length=255)] | None = None
    tool_call_plugin: Annotated[str, Field(max_length=255)] | None = None
    auto_tool_choice: bool | None = None


class ModelSpec(Resource):
    """What a checkpoint says about itself."""

    context_size: Count | None = None
    num_virtual_tokens: Count | None = None
    is_chat: bool | None = None
    is_embedding_model: bool = False
    checkpoint_model_name: str
    family: str
    num_layers: Count
    hidden_size: Count
    num_attention_heads: Count
    num_kv_heads: Count
    ffn_hidden_size: Count
    vocab_size: Count
    tied_embeddings: bool
    gated_mlp: bool
    base_num_parameters: Count
    precision: Precision
    moe_config: MoeConfig | None = None
    mamba_config: MambaConfig | None = None
    sliding_window_config: SlidingWindowConfig | None = None
    linear_layers: Annotated[list[LinearLayer], Field(fail_fast=True)] | None = None
    """Only with `verbose=true`."""
    chat_template: str | None = None
    tool_call_config: ToolCallConfig | None = None
    minimum_gpus_all_weights: Count | None = None
    """GPUs of 80 GB that training all weights takes at least."""
    minimum_gpus_lora: Count | None = None
    """The same for LoRA."""


def _known_keys(value: Any) -> Any:
    """What is given is read strictly, all the way down, though the same shape is lenient where it is answered."""
    if isinstance(value, dict) and (unknown := next(_unknown_keys(ModelSpec, value, ""), None)):
        raise PydanticCustomError("extra_forbidden", "Extra inputs are not permitted: '{key}'", {"key": unknown})
    return value


def _unknown_keys(shape: type[BaseModel], value: dict[str, Any], where: str) -> Iterator[str]:
    for key, inner in value.items():
        field = shape.model_fields.get(key)
        if field is None:
            yield where + str(key)
            continue
        for kind in _shapes_in(field.annotation):
            for item in inner if isinstance(inner, list) else [inner]:
                if isinstance(item, dict):
                    yield from _unknown_keys(kind, item, f"{where}{key}.")


def _shapes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _shapes_in(inner)


GivenSpec = Annotated[ModelSpec, BeforeValidator(_known_keys)]


class LoraConfig(Request):
    """Rank and scale of an adapter: y = W x + (alpha / rank) B A x."""

    rank: Annotated[int, Field(ge=1, le=1_000_000)]
    alpha: Annotated[int | float, Field(gt=0, allow_inf_nan=False)] | None = None
    """PEFT allows fractions."""


class Adapter(Resource):
    """Trained weights beside a model's own."""

    name: str
    workspace: str
    project: str | None = None
    description: str | None = None
    fileset: str
    finetuning_type: FinetuningType
    enabled: bool = True
    lora_config: LoraConfig | None = None
    model: str | None = None
    """`workspace/name` of the base."""
    created_at: Timestamp
    updated_at: Timestamp


class ApiEndpoint(Request):
    """Where a model is served by somebody else."""

    url: Annotated[str, Field(min_length=1)] | None = None
    model_id: str | None = None
    api_key: str | None = None
    """Always null: keys are secrets, and an entity is no place for one."""
    format: str | None = None


class InferenceParams(Request):
    """How answers to a prompt are sampled; further keys are kept."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop: Annotated[list[str], Field(fail_fast=True)] | None = None


class PromptData(Request):
    """What a model that was made by prompting alone is prompted with."""

    system_prompt: str | None = None
    icl_few_shot_examples: str | None = None
    inference_params: InferenceParams | None = None
    system_prompt_template: str | None = None


class Model(Resource):
    """A model entity: a checkpoint, what it says about itself, and its adapters."""

    id: str
    name: str
    workspace: str
    project: str | None = None
    created_at: Timestamp
    updated_at: Timestamp
    description: str | None = None
    spec: ModelSpec | None = None
    """null until the checkpoint has been read; `custom_fields.spec_status` and `spec_error` tell how that goes."""
    finetuning_type: FinetuningType | None = None
    fileset: str | None = None
    trust_remote_code: bool = False
    base_model: str | None = None
    api_endpoint: ApiEndpoint | None = None
    backend_format: BackendFormat | None = None
    adapters: list[Adapter] = []
    prompt: PromptData | None = None
    custom_fields: JsonObject = {}
    ownership: JsonObject | None = None
    model_providers: list[str] = []
    """Deployments that serve it, as `workspace/name`."""


class ModelFields(Request):
    """What creation and change of a model entity have in common."""

    description: Description | None = None
    spec: GivenSpec | None = None
    """Given whole, it stays as it is given; else it is read from the checkpoint."""
    finetuning_type: FinetuningType | None = None
    fileset: str | None = None
    """The checkpoint: `name`, `workspace/name` or `fileset://workspace/name`."""
    base_model: str | None = None
    api_endpoint: ApiEndpoint | None = None
    backend_format: BackendFormat | None = None
    """The one field that null clears."""
    prompt: PromptData | None = None
    custom_fields: JsonObject | None = None
    ownership: JsonObject | None = None
    model_providers: Annotated[list[str], Field(fail_fast=True)] | None = None
    trust_remote_code: bool | None = None


class CreateModel(ModelFields):
    """A new model entity."""

    name: Name
    project: ProjectName | None = None


class UpdateModel(ModelFields):
    """A change to a model entity; what is absent or null stays. `spec_status` starts again with a new fileset."""

    project: ProjectName | None = None


class CreateModelAdapter(Request):
    """A new adapter of external weights, under its model."""

    name: Name
    fileset: Annotated[str, Field(min_length=1)]
    """With adapter_config.json and adapter weights, as PEFT writes them."""
    finetuning_type: FinetuningType
    description: Description | None = None
    project: ProjectName | None = None
    enabled: bool = True
    lora_config: LoraConfig | None = None
    """null = as adapter_config.json says; what contradicts it is refused."""


class CreateAdapter(CreateModelAdapter):
    """A new adapter of external weights."""

    model: Annotated[str, Field(min_length=1, max_length=127)]
    """The base: `name` or `workspace/name`."""


class UpdateAdapter(Request):
    """A change to an adapter; what is absent or null stays."""

    description: Description | None = None
    enabled: bool | None = None
    """Whether deployments of the base serve it."""
    fileset: Annotated[str, Field(min_length=1)] | None = None
    """Other weights of the same base."""
    project: ProjectName | None = None
