"""What the engine claims is a claim about fields that exist, with a test that exists."""

from pathlib import Path
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from tunesmith.handoff.capabilities import CAPABILITIES, TRAINED_FAMILIES
from tunesmith.planning.families import FAMILIES
from tunesmith.spec.grammars import GRAMMARS

ROOT = Path(__file__).parents[2]


def models_in(annotation):
    """The models that a field of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [model for part in get_args(annotation) for model in models_in(part)]
    return []


def exists(models, path):
    first, _, rest = path.partition(".")
    fields = [model.model_fields[first] for model in models if first in model.model_fields]
    return bool(fields) and (not rest or exists([m for f in fields for m in models_in(f.annotation)], rest))


@pytest.mark.parametrize("row", CAPABILITIES, ids=lambda row: f"{row.dialect}-{row.field}")
def test_a_capability_is_a_real_field_with_a_proof(row):
    assert exists([GRAMMARS[row.dialect]], row.field), f"{row.dialect} has no field {row.field}"
    assert (ROOT / row.proof).is_file(), f"{row.field} is proved by {row.proof}, which does not exist"
    assert row.values or row.instead, "a row says what can be used"


def test_a_field_stands_in_the_table_once():
    rows = [(row.dialect, row.field) for row in CAPABILITIES]
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize("name", TRAINED_FAMILIES)
def test_a_family_that_is_trained_has_a_formula_and_a_proof_that_names_it(name):
    proof = ROOT / TRAINED_FAMILIES[name].proof
    assert name in FAMILIES, f"planning cannot count the weights of {name}"
    assert proof.is_file(), f"{name} is proved by {proof}, which does not exist"
