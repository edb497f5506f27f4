"""A fileset as Hugging Face's hub describes a repository."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from tunesmith.api.base import Resource


class HubFile(Resource):
    """One file of a repository."""

    model_config = ConfigDict(validate_by_name=True)

    rfilename: str
    """Its path."""
    size: int
    """Bytes."""
    blob_id: str = Field(alias="blobId")


class HubRepository(Resource):
    """What a repository is, and its files."""

    model_config = ConfigDict(validate_by_name=True)

    short_id: str = Field(alias="_id")
    id: str
    """`workspace/fileset`."""
    model_id: str = Field(alias="modelId")
    author: str
    """The workspace."""
    sha: str
    """The revision: another one after every change."""
    last_modified: str = Field(alias="lastModified")
    private: bool = False
    gated: bool = False
    disabled: bool = False
    downloads: int = 0
    likes: int = 0
    tags: list[str] = []
    siblings: list[HubFile]
