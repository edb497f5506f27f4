"""The guarantee: each leaf of each spec, changed, changes what a user sees of the submission, or is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.planning.knobs import AUTOMODEL, BUILT, FACTS, REGIMES, UNSLOTH, outcome
from tunesmith.errors import NotBuilt
from tunesmith.handoff.capabilities import CAPABILITIES, Capability
from tunesmith.planning.dialects import DIALECTS
from tunesmith.spec.base import leaf, leaves
from tunesmith.spec.grammars import GRAMMARS

KNOBS = [(name, path) for name, regime in REGIMES.items() for path in regime.changed]


def test_every_dialect_and_every_method_has_a_regime() -> None:
    assert {regime.dialect.name for regime in REGIMES.values()} == DIALECTS.keys() == GRAMMARS.keys()
    assert all(DIALECTS[name].input is grammar and DIALECTS[name].name == name for name, grammar in GRAMMARS.items())


@pytest.mark.parametrize("name", REGIMES)
def test_every_leaf_is_in_the_table(name: str) -> None:
    regime = REGIMES[name]
    found = {path for path, _ in leaves(regime.dialect.input.model_validate(regime.base))}
    assert found == regime.changed.keys()


@pytest.mark.parametrize(("name", "path"), KNOBS)
def test_a_changed_leaf_changes_the_submission(name: str, path: str) -> None:
    regime = REGIMES[name]
    value = regime.changed[path]
    assert leaf(regime.dialect.input.model_validate(regime.base), path) != value
    before, after = outcome(regime, regime.base), outcome(regime, regime.spec(path, value))
    if name not in BUILT:  # the method as a whole is refused, with all its leaves
        assert "training.type" in before
        assert isinstance(after, str)
        return
    assert not isinstance(before, str), before
    assert after != before
    if isinstance(after, str):  # a refusal names what was asked for
        assert path.rpartition(".")[2] in after


@pytest.mark.parametrize("row", CAPABILITIES, ids=lambda row: f"{row.dialect}-{row.field}")
def test_what_the_table_allows_is_not_refused(row: Capability) -> None:
    regimes = [regime for regime in BUILT.values() if regime.dialect.name == row.dialect]
    for value in row.values:
        answers = [outcome(regime, regime.spec(row.field, value)) for regime in regimes]
        assert not all(isinstance(answer, str) for answer in answers), answers


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.precision", "fp8"),
        ("training.attn_implementation", "flash_attention_2"),
        ("parallelism.num_gpus_per_node", 2),
    ],
)
def test_lawful_but_unbuilt_is_422_not_built_yet_with_the_way_out(path: str, value: Any) -> None:
    spec = AUTOMODEL.dialect.input.model_validate(AUTOMODEL.spec(path, value))
    with pytest.raises(NotBuilt, match=rf"^{path}.*is not built yet; use .*What runs today: --set {path}"):
        AUTOMODEL.dialect.lower(spec, FACTS, run="r", model="default/base")


@pytest.mark.parametrize("regime", BUILT.values(), ids=BUILT)
def test_a_family_that_cannot_be_trained_is_refused_by_name(regime: Any) -> None:
    mamba = replace(regime, facts=replace(regime.facts, family="mamba"))
    assert "family 'mamba' of default/base cannot be trained yet" in outcome(mamba, regime.base)


def test_what_is_not_built_is_said_after_all_rules() -> None:
    quantised = {"model": {"name": "base"}, "dataset": {"path": "rows"}}
    lora = {"lora": {"target_modules": ["nonsense"]}}
    assert "'nonsense' matches no linear layer" in outcome(UNSLOTH, {**quantised, "training": lora})
