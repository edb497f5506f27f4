"""Filesets and their files on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.api.base import JsonObject, Listing, Name, ProjectName, Request, Resource, Timestamp
from tunesmith.api.secrets import SecretRef

FILESETS = Listing(page_size=10, largest=100)

Purpose = Literal["generic", "dataset", "model"]
CacheStatus = Literal["not_cacheable", "cached", "caching", "not_cached"]
ChunkSize = Annotated[int, Field(ge=4096, le=1 << 28)]


class LocalStorage(Request):
    """Files in the platform's own blobs; nobody asks for it by name, it is what a fileset has without `storage`."""

    type: Literal["local"] = "local"
    path: str
    read_chunk_size: ChunkSize = 1 << 20
    write_buffer_size: ChunkSize = 16 << 20


class HuggingFaceStorage(Request):
    """Files of a repository on a Hugging Face hub, pinned to a commit when the fileset is made."""

    type: Literal["huggingface"] = "huggingface"
    repo_id: Annotated[str, Field(min_length=1, max_length=200)]
    repo_type: Literal["model", "dataset", "space"] = "model"
    revision: Annotated[str, Field(min_length=1, max_length=255)] = "main"
    """Branch, tag or commit; the answer holds the commit."""
    original_revision: str | None = None
    """What was asked for as `revision`."""
    token_secret: SecretRef | None = None
    """Secret with the access token that a private or gated repository needs."""
    endpoint: str | None = None
    """Address of the hub; null = the platform's setting."""
    read_chunk_size: ChunkSize = 1 << 20


class NgcStorage(Request):
    """Files of a version of a model or resource in the NGC catalogue."""

    type: Literal["ngc"] = "ngc"
    org: Annotated[str, Field(min_length=1, max_length=255)]
    team: Annotated[str, Field(max_length=255)]
    target: Annotated[str, Field(min_length=1, max_length=255)]
    target_type: Literal["resource", "model"] = "resource"
    version: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """null = the latest; the answer holds the version found."""
    original_version: str | None = None
    """What was asked for as `version`."""
    api_key_secret: SecretRef
    host: str = "https://api.ngc.nvidia.com"
    read_chunk_size: ChunkSize = 1 << 20


class S3Storage(Request):
    """Objects below a prefix of an S3 bucket."""

    type: Literal["s3"] = "s3"
    bucket: Annotated[str, Field(min_length=1, max_length=255)]
    prefix: Annotated[str, Field(max_length=1024)] = ""
    region: str | None = None
    endpoint_url: str | None = None
    """null = Amazon's; another S3 must be on the platform's allow-list."""
    use_sdk_auth: bool = False
    """Whether the platform's own credentials (environment, instance role) are used instead of secrets."""
    access_key_id_secret: SecretRef | None = None
    secret_access_key_secret: SecretRef | None = None
    signature_version: Literal["s3v4", "s3"] = "s3v4"
    read_chunk_size: ChunkSize = 1 << 20


RemoteStorage = Annotated[HuggingFaceStorage | NgcStorage | S3Storage, Field(discriminator="type")]
Storage = Annotated[LocalStorage | HuggingFaceStorage | NgcStorage | S3Storage, Field(discriminator="type")]


class ToolCalling(Request):
    """How a model's answers carry tool calls, and the template that renders its conversations."""

    chat_template: str | None = None
    """Jinja template; wins over the checkpoint's own in training and serving."""
    tool_call_parser: Annotated[str, Field(max_length=255)] | None = None
    tool_call_plugin: Annotated[str, Field(max_length=255)] | None = None
    auto_tool_choice: bool | None = None


class ModelMetadata(Request):
    """What is known about a model's files beside the files."""

    tool_calling: ToolCalling | None = None


class DatasetMetadata(Request):
    """JSON Schemas of a data set's rows: one for all files, or one per path."""

    schema_: JsonObject | str | None = Field(default=None, alias="schema")
    schema_defs: dict[str, JsonObject] = {}
    schemas_by_path: dict[str, JsonObject | str] = {}


class FilesetMetadata(Request):
    """What is known about the files beside the files."""

    dataset: DatasetMetadata | None = None
    model: ModelMetadata | None = None


class Fileset(Resource):
    """A named collection of files."""

    id: str
    name: str
    workspace: str
    description: str
    purpose: Purpose
    storage: Storage
    metadata: FilesetMetadata
    custom_fields: JsonObject
    project: str
    """"" = none."""
    created_at: Timestamp
    updated_at: Timestamp


class CreateFileset(Request):
    """A new fileset: empty in the platform's own storage, or a view of a remote one."""

    name: Name
    description: Annotated[str, Field(max_length=255)] | None = None
    project: ProjectName | None = None
    purpose: Purpose = "generic"
    storage: Storage | None = None
    metadata: FilesetMetadata = FilesetMetadata()
    custom_fields: JsonObject = {}
    cache: bool = False
    """Whether remote files are fetched at once, not when they are first read."""


class UpdateFileset(Request):
    """A change to a fileset; what is absent stays, what is given is replaced whole."""

    description: Annotated[str, Field(max_length=255)] | None = None
    project: ProjectName | None = None
    purpose: Purpose | None = None
    metadata: FilesetMetadata | None = None
    custom_fields: JsonObject | None = None


class FilesetFile(Resource):
    """A file of a fileset."""

    file_ref: str
    """`workspace/fileset#path`."""
    file_url: str
    """Where its bytes are, relative to the server; not percent-encoded."""
    path: str
    size: int
    """Bytes."""
    digest: str | None = None
    """sha256 of the bytes, lower-case hex; null for a remote file that has not been fetched."""
    cache_status: CacheStatus | None = None


class CollectGarbage(Request):
    """A round of garbage collection."""

    dry_run: bool = False
    """Whether nothing is deleted, only counted."""


class Collected(Resource):
    """What a round of garbage collection deleted, or would."""

    dry_run: bool
    blobs: int
    """Contents of files that nothing refers to any more, those of remote files included."""
    blob_bytes: int
    cached_files: int
    """Remote files unused for long, of which the local copy went; they are fetched again when they are read."""
    runs: int
    """Ended jobs of which inputs, checkpoints and artifact went; plan, events and logs stay."""
    run_bytes: int
    leftovers: int
    """Directories of jobs and deployments that no longer exist."""
    leftover_bytes: int
    bytes: int
    """In all, on disk: a file that several hold counts once, with its last holder."""
