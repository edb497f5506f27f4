"""Filesets and their files on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.api.base import JsonObject, Name, Request, Resource, Timestamp

Purpose = Literal["generic", "dataset", "model"]


class LocalStorage(Resource):
    """Files in the platform's own blobs."""

    type: Literal["local"] = "local"
    path: str
    read_chunk_size: int = 1_048_576
    write_buffer_size: int = 16_777_216


class ToolCalling(Request):
    """How a model's answers carry tool calls, and the template that renders its conversations."""

    chat_template: str | None = None
    """Jinja template; wins over the checkpoint's own in training and serving."""


class ModelMetadata(Request):
    """What is known about a model's files beside the files."""

    tool_calling: ToolCalling | None = None


class FilesetMetadata(Request):
    """What is known about the files beside the files."""

    dataset: None = None
    model: ModelMetadata | None = None


class Fileset(Resource):
    """A named collection of files."""

    id: str
    name: str
    workspace: str
    description: str
    purpose: Purpose
    storage: LocalStorage
    metadata: FilesetMetadata
    custom_fields: JsonObject
    project: str
    created_at: Timestamp
    updated_at: Timestamp


class CreateFileset(Request):
    """A new, empty fileset in the platform's own storage."""

    name: Name
    description: Annotated[str, Field(max_length=255)] | None = None
    purpose: Purpose = "generic"
    metadata: FilesetMetadata = FilesetMetadata()
    custom_fields: JsonObject = {}


class FilesetFile(Resource):
    """A file of a fileset."""

    file_ref: str
    """`workspace/fileset#path`."""
    file_url: str
    """Where its bytes are, relative to the server; not percent-encoded."""
    path: str
    size: int
    """Bytes."""
    cache_status: Literal["not_cacheable"] | None = None
