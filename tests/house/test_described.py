"""What stands under a field describes it, in every schema, as pydantic's own reading of the sources has it."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, create_model

from tunesmith.described import Described, descriptions

T = TypeVar("T")


class Part(Described):
    """A part."""

    size: int = 1
    """How large
    it is."""


class Shape(Described):
    """A shape."""

    part: Part
    """A part."""
    other: Part | None = None
    """Another part, where there is one."""
    plain: int = 0
    said: int = Field(default=0, description="Said in the field.")
    """Said below the field."""
    renamed: str = Field(default="", alias="reNamed")
    """Has an alias."""
    either: str = Field(default="", validation_alias=AliasChoices("either", "or"))
    """Has two names."""


class Narrower(Shape):
    """Takes one field back and adds one."""

    other: None = None
    more: list[Part] = []
    """Some parts."""


class Box(Described, Generic[T]):
    """Of anything."""

    content: T
    """What is in it."""


class PartOfPydantic(BaseModel):
    """A part."""

    model_config = ConfigDict(use_attribute_docstrings=True, title="Part")

    size: int = 1
    """How large
    it is."""


class ShapeOfPydantic(BaseModel):
    """A shape."""

    model_config = ConfigDict(use_attribute_docstrings=True, title="Shape")

    part: PartOfPydantic
    """A part."""
    other: PartOfPydantic | None = None
    """Another part, where there is one."""
    plain: int = 0
    said: int = Field(default=0, description="Said in the field.")
    """Said below the field."""
    renamed: str = Field(default="", alias="reNamed")
    """Has an alias."""
    either: str = Field(default="", validation_alias=AliasChoices("either", "or"))
    """Has two names."""


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_a_schema_is_what_pydantic_makes_of_the_same_class(mode: Literal["validation", "serialization"]) -> None:
    theirs = ShapeOfPydantic.model_json_schema(mode=mode, ref_template="{model}")
    ours = Shape.model_json_schema(mode=mode, ref_template="{model}OfPydantic")
    assert ours["properties"] == theirs["properties"]
    assert ours["$defs"]["Part"] == theirs["$defs"]["PartOfPydantic"]


def test_fields_keep_their_words_in_a_subclass_unless_they_are_declared_anew() -> None:
    properties = Narrower.model_json_schema()["properties"]
    assert properties["other"].keys() == {"default", "title", "type"}
    assert properties["more"]["description"] == "Some parts."
    assert properties["reNamed"]["description"] == "Has an alias."


def test_a_generic_shape_is_described_for_every_content() -> None:
    assert Box[int].model_json_schema()["properties"]["content"]["description"] == "What is in it."
    assert descriptions(Box[Part]) == {"content": "What is in it."}


def test_a_class_within_a_function_is_described_and_one_without_a_source_is_not() -> None:
    class Inner(Described):
        field: int
        """Within."""

    assert descriptions(Inner) == {"field": "Within."}
    typed = create_model("Typed", __base__=Described, __module__="nowhere", field=(int, ...))
    assert typed.model_json_schema()["properties"]["field"] == {"title": "Field", "type": "integer"}
