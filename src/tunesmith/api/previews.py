"""Rows of a data set as a job would train on them: rendered, cut to length, with the loss mask."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.api.base import Request, Resource

DEFAULT_ROWS, MOST_ROWS = 5, 100
DEFAULT_LENGTH, LONGEST = 2048, 1 << 20
"""Tokens a row may have."""
LONGEST_TEMPLATE = 1 << 20


class CreatePreview(Request):
    """Which rows are shown, and how a job would read them."""

    model: str
    """Model whose tokenizer and chat template are used: `name` or `workspace/name`."""
    dataset: str
    """Fileset with the rows: `name` or `workspace/name`."""
    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)] = DEFAULT_ROWS
    """The first so many training rows."""
    backend: Literal["automodel", "unsloth"] = "automodel"
    """The dialect whose rules rows are read by."""
    max_seq_length: Annotated[int, Field(ge=1, le=LONGEST)] = DEFAULT_LENGTH
    """Tokens a row may have; the model's context where that is smaller."""
    chat_template: Annotated[str, Field(max_length=LONGEST_TEMPLATE)] | None = None
    """Jinja template to try; null = the one that a job would use."""
    prompt_template: str | None = None
    """As `dataset.prompt_template` of automodel."""
    text_field: str | None = None
    """As `dataset.text_field` of unsloth."""
    apply_chat_template: bool | None = None
    """As `dataset.apply_chat_template` of unsloth."""


class Segment(Resource):
    """Neighbouring tokens of a row that are all trained on, or all not."""

    text: str
    """As the model reads it, special tokens included."""
    trained: bool
    """Whether a loss is taken on them."""
    tokens: int


class PreviewRow(Resource):
    """One row."""

    file: str
    """In the fileset."""
    line: int
    """1-based; in a file that is one JSON array, the number of the item."""
    format: Literal["messages", "prompt/completion", "text"]
    segments: list[Segment]
    tokens: int
    trained_tokens: int
    """0: there is nothing to train on within the limit, and a job leaves the row out."""
    whole_tokens: int
    """Before it was cut to the limit."""
    truncated: bool


class Preview(Resource):
    """Rows as a job would train on them."""

    sequence_limit: int
    """Tokens a row may have."""
    rows: list[PreviewRow]
