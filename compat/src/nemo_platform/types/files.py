"""Where a fileset's files lie, as `files.filesets.create(storage=...)` takes it."""

from typing import Literal, Required, TypedDict


class HuggingfaceStorageConfigParam(TypedDict, total=False):
    """A repository on a Hugging Face hub."""

    type: Literal["huggingface"]
    repo_id: Required[str]
    repo_type: Literal["model", "dataset", "space"]
    revision: str
    token_secret: str
    endpoint: str
    read_chunk_size: int


class NGCStorageConfigParam(TypedDict, total=False):
    """A model or resource of the NGC catalogue."""

    type: Literal["ngc"]
    org: Required[str]
    team: Required[str]
    target: Required[str]
    target_type: Literal["resource", "model"]
    version: str
    api_key_secret: Required[str]
    host: str
    read_chunk_size: int


class S3StorageConfigParam(TypedDict, total=False):
    """A prefix of an S3 bucket."""

    type: Literal["s3"]
    bucket: Required[str]
    prefix: str
    region: str
    endpoint_url: str
    use_sdk_auth: bool
    access_key_id_secret: str
    secret_access_key_secret: str
    signature_version: Literal["s3v4", "s3"]
    read_chunk_size: int
