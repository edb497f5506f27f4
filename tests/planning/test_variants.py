"""What the unsloth dialect's adapters may be on a model, and what is said about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.planning.knobs import TWO_LAYERS, UNSLOTH, with_leaf
from tunesmith.errors import Invalid
from tunesmith.handoff.plan import LoraPart
from tunesmith.planning.facts import ModelFacts
from tunesmith.planning.submission import Lowered
from tunesmith.planning.unsloth import lower
from tunesmith.planning.variants import unserved
from tunesmith.spec.unsloth import UnslothJobInput


def lowered(facts: ModelFacts = TWO_LAYERS, output: str = "lora", deploy: Any = None, **lora: Any) -> Lowered:
    """The base of the knob tests with these fields of the adapter."""
    spec = {**UNSLOTH.base, "output": {"save_method": output}, "deployment_config": deploy}
    for field, value in lora.items():
        spec = with_leaf(spec, f"training.lora.{field}", value)
    return lower(UnslothJobInput.model_validate(spec), facts, run="r", model="default/base")


def adapter(**lora: Any) -> LoraPart:
    part = lowered(**lora).plan.adapter
    assert part is not None
    return part


@pytest.mark.parametrize(
    ("layers", "names"), [(1, ["layers.1.q_proj", "layers.1.up_proj"]), ([0], ["layers.0.q_proj", "layers.0.up_proj"])]
)
def test_layers_to_transform_choose_among_the_modules(layers: Any, names: list[str]) -> None:
    assert list(adapter(layers_to_transform=layers).modules) == names


@pytest.mark.parametrize("layers", [2, [0, 5], -1, []])
def test_layers_that_the_model_has_not_are_refused(layers: Any) -> None:
    with pytest.raises(Invalid, match=r"training.lora.layers_to_transform \(.*\): must name layers .* are 0 to 1"):
        lowered(layers_to_transform=layers)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["norm"], ["norm"]),
        (["embed_tokens", "norm"], ["embed_tokens", "norm"]),
        (["layers.1.up_proj"], ["layers.1.up_proj"]),
        (["*up_proj"], ["layers.0.up_proj", "layers.1.up_proj"]),
    ],
)
def test_modules_to_save_are_found_by_name_end_of_name_or_glob(patterns: list[str], names: list[str]) -> None:
    assert list(adapter(target_modules=["q_proj"], modules_to_save=patterns).whole_modules) == names


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["lm_head"], "'lm_head' matches no module .* end in embed_tokens, norm, .*; its output head is its embedding"),
        (["norm", "layers.1.q_proj"], "'layers.1.q_proj' names layers.1.q_proj, which target_modules adapts; .* leave"),
    ],
)
def test_modules_to_save_that_are_not_there_or_adapted_too_are_refused(patterns: list[str], message: str) -> None:
    with pytest.raises(Invalid, match=f"^training.lora.modules_to_save: {message}"):
        lowered(modules_to_save=patterns)


def test_an_embedding_that_is_the_head_too_cannot_be_trained_apart_from_it_and_merged() -> None:
    with pytest.raises(Invalid, match=r"embed_tokens is the output head of this .* output.save_method to lora"):
        lowered(output="merged_16bit", modules_to_save=["embed_tokens"])
    untied = replace(TWO_LAYERS, tied_embeddings=False)
    assert lowered(untied, "merged_16bit", modules_to_save=["embed_tokens"]).plan.result.form == "model"


@pytest.mark.parametrize(
    ("asked", "start"),
    [(True, "uniform"), (False, "both_random"), ("gaussian", "gaussian"), ("pissa", "pissa"), ("olora", "olora")],
)
def test_an_adapter_starts_as_asked(asked: Any, start: str) -> None:
    assert adapter(init_lora_weights=asked).start == start


def test_variants_stand_in_the_plan() -> None:
    part = adapter(use_rslora=True, use_dora=True, bias="lora_only", random_state=5)
    assert (part.rank_stabilised, part.decomposed, part.bias, part.seed) == (True, True, "lora_only", 5)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (
            {"rank": 5},
            r"training.lora.rank \(5\): init_lora_weights 'pissa' .* layers.0.q_proj has 4; lower the rank to 4",
        ),
        (
            {"use_dora": True},
            "training.lora.use_dora: does not go with init_lora_weights 'pissa', .* to true, or use_do",
        ),
    ],
)
def test_a_start_from_the_base_that_cannot_be_is_refused(lora: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        lowered(init_lora_weights="pissa", **lora)


@pytest.mark.parametrize(
    ("lora", "saved"),
    [
        ({}, (2, 16)),
        ({"use_rslora": True}, (2, 16)),
        ({"init_lora_weights": "pissa"}, (4, 32)),
        ({"init_lora_weights": "olora"}, (4, 32)),
        ({"init_lora_weights": "pissa", "use_rslora": True}, (4, pytest.approx(16 * 2**0.5))),
    ],
)
def test_an_adapter_that_began_as_a_part_of_the_base_is_saved_with_twice_the_rank_and_the_same_scale(
    lora: dict[str, Any], saved: tuple[int, float]
) -> None:
    part = adapter(**lora)
    rank, alpha = part.saved_rank_and_alpha
    assert (rank, alpha) == saved
    power = 0.5 if part.rank_stabilised else 1
    assert alpha / rank**power == pytest.approx(part.alpha / part.rank**power)


@pytest.mark.parametrize(
    ("lora", "field"),
    [({"use_dora": True}, "use_dora"), ({"bias": "all"}, "bias"), ({"modules_to_save": ["norm"]}, "modules_to_save")],
)
def test_what_the_engine_does_not_serve_is_said_and_refused_where_it_shall_be_deployed(
    lora: dict[str, Any], field: str
) -> None:
    (said,) = lowered(**lora).warnings
    assert said.startswith(f"training.lora.{field}: the embedded engine serves plain LoRA adapters, and not this one")
    with pytest.raises(
        Invalid, match=f"^deployment_config: .* not one with training.lora.{field}; merge it into its b"
    ):
        lowered(deploy={"gpu": 0}, **lora)
    merged = lowered(output="merged_16bit", deploy={"gpu": 0}, **lora)
    assert merged.warnings == ()
    assert merged.plan.adapter is not None
    assert unserved(merged.plan.adapter) == [f"training.lora.{field}"]


def test_plain_adapters_of_every_start_are_served() -> None:
    for start in (True, False, "gaussian", "pissa", "olora"):
        assert lowered(init_lora_weights=start, use_rslora=True, deploy={"gpu": 0}).warnings == ()


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"init_lora_weights": "pissa", "random_state": 5}, "training.lora.random_state: has no meaning for init_lora"),
        ({"bias": "lora_only", "target_modules": ["up_proj"]}, "training.lora.bias: 'lora_only' trains nothing more"),
    ],
)
def test_fields_without_a_meaning_are_said(lora: dict[str, Any], message: str) -> None:
    assert lowered(output="merged_16bit", **lora).warnings[0].startswith(message)


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"bias": "all"}, {"init_lora_weights": "pissa", "rank": 4}])
def test_variants_of_modules_that_peft_takes_for_experts_are_refused(lora: dict[str, Any]) -> None:
    mixture = replace(TWO_LAYERS, family="qwen3_moe")
    with pytest.raises(Invalid, match=r"target_modules: layers.0.up_proj lies in a dense layer, and PEFT"):
        lowered(mixture, **lora)
    assert lowered(mixture, target_modules=["q_proj"], **lora).plan.adapter
    assert lowered(mixture).plan.adapter
