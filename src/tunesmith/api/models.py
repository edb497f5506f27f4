"""Model entities and adapters on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.api.base import JsonObject, Name, Request, Resource, Timestamp

FinetuningType = Literal["lora", "lora_merged", "all_weights"]


class LinearLayer(Resource):
    """A linear module of a checkpoint: y = W x, W of shape [out_features, in_features]."""

    name: str
    in_features: int
    out_features: int


class ModelSpec(Resource):
    """What a checkpoint says about itself."""

    context_size: int | None = None
    is_chat: bool | None = None
    is_embedding_model: bool = False
    checkpoint_model_name: str
    family: str
    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_kv_heads: int
    ffn_hidden_size: int
    vocab_size: int
    tied_embeddings: bool
    gated_mlp: bool
    base_num_parameters: int
    precision: str
    linear_layers: list[LinearLayer] | None = None
    """Only with `verbose=true`."""
    chat_template: str | None = None


class LoraConfig(Resource):
    """Rank and scale of an adapter."""

    rank: int
    alpha: int | None = None


class Adapter(Resource):
    """Trained weights beside a model's own."""

    name: str
    workspace: str
    description: str | None = None
    fileset: str
    finetuning_type: FinetuningType
    enabled: bool = True
    lora_config: LoraConfig | None = None
    model: str | None = None
    """`workspace/name` of the base."""
    created_at: Timestamp
    updated_at: Timestamp


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
    finetuning_type: FinetuningType | None = None
    fileset: str | None = None
    trust_remote_code: bool = False
    base_model: str | None = None
    adapters: list[Adapter] = []
    custom_fields: JsonObject = {}
    model_providers: list[str] = []
    """Deployments that serve it, as `workspace/name`."""


class CreateModel(Request):
    """A new model entity over a fileset with a checkpoint."""

    name: Name
    description: Annotated[str, Field(max_length=1000)] | None = None
    fileset: Annotated[str, Field(min_length=1)]
    """`name` or `workspace/name`."""
    custom_fields: JsonObject = {}


class UpdateAdapter(Request):
    """A change to an adapter; what is absent or null stays."""

    description: Annotated[str, Field(max_length=1000)] | None = None
    enabled: bool | None = None
    """Whether deployments of the base serve it."""
