"""The adapter of the unsloth dialect: which modules it changes, how it starts, what is trained beside it.

Pure. What cannot go together on this model is refused here; the grammar knows no model.
"""

from __future__ import annotations

import re

from tunesmith.errors import Invalid
from tunesmith.handoff.plan import OF_THE_BASE, LoraPart, Start
from tunesmith.planning.facts import ModelFacts
from tunesmith.planning.rules import matches, targets
from tunesmith.spec.unsloth import UnslothLora

FIELD = "training.lora"

LIKE_EXPERTS = {"qwen3_moe": ("gate_proj", "up_proj", "down_proj")}
"""Families with dense layers whose modules PEFT, which computes the variants, takes for their experts."""


def adapter(lora: UnslothLora, facts: ModelFacts, *, merged: bool) -> LoraPart:
    """The adapter as planned; Invalid names what this model does not have, or what does not go together.

    A start that is not built counts as the default one here: the table of capabilities refuses it.
    """
    modules, start = _modules(lora, facts), _start(lora)
    whole = _whole_modules(lora, facts, modules)
    if start in OF_THE_BASE:
        _refuse_unlike_starts(lora, facts, modules)
    if merged and facts.tied_embeddings and (table := next((name for name in whole if _is_embedding(name)), None)):
        raise Invalid(
            f"{FIELD}.modules_to_save: {table} is the output head of this model too; trained apart from it, the two "
            "cannot become one model again: set output.save_method to lora, or leave it out"
        )
    part = LoraPart(
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        modules=modules,
        seed=lora.random_state,
        rank_stabilised=lora.use_rslora,
        start=start,
        decomposed=lora.use_dora,
        bias=lora.bias,
        whole_modules=whole,
    )
    if start in OF_THE_BASE or unserved(part):
        _refuse_what_peft_takes_for_experts(facts, modules)
    return part


def unserved(part: LoraPart) -> list[str]:
    """The fields that make an adapter more than plain LoRA, which is all that the embedded engine serves."""
    asked = {
        "use_dora": part.decomposed,
        "bias": part.bias != "none",
        "modules_to_save": bool(part.whole_modules),
    }
    return [f"{FIELD}.{name}" for name, more in asked.items() if more]


def warnings(lora: UnslothLora, part: LoraPart, facts: ModelFacts) -> list[str]:
    """Fields without a meaning on this model, or beside others."""
    said = []
    if part.start in OF_THE_BASE and lora.random_state != type(lora).model_fields["random_state"].default:
        said.append(
            f"{FIELD}.random_state: has no meaning for init_lora_weights '{part.start}', which starts from the base's "
            "weights, and is not used"
        )
    if part.bias != "none" and not trained_biases(part, facts):
        whose = "the adapted modules" if part.bias == "lora_only" else "the modules of this model"
        said.append(f"{FIELD}.bias: '{part.bias}' trains nothing more, since {whose} have no biases")
    return said


def trained_biases(part: LoraPart, facts: ModelFacts) -> int:
    """Elements of the biases that are trained beside the adapter."""
    if part.bias == "none":
        return 0
    adapted = set(part.modules)
    return sum(each.bias for each in facts.modules if part.bias == "all" or each.name in adapted)


def _start(lora: UnslothLora) -> Start:
    asked = lora.init_lora_weights
    if isinstance(asked, bool):
        return "uniform" if asked else "both_random"
    return "uniform" if asked == "loftq" else asked


def _modules(lora: UnslothLora, facts: ModelFacts) -> tuple[str, ...]:
    names = targets(facts.linears, lora.target_modules, None, FIELD)
    asked = lora.layers_to_transform
    if asked is None:
        return names
    wanted = {asked} if isinstance(asked, int) else set(asked)
    field = f"{FIELD}.layers_to_transform ({', '.join(map(str, sorted(wanted)))})"
    if not wanted or not wanted <= set(range(facts.num_layers)):
        raise Invalid(f"{field}: must name layers of this model, which are 0 to {facts.num_layers - 1}")
    chosen = tuple(name for name in names if _layer(name) in wanted)
    if not chosen:
        raise Invalid(f"{field}: these layers have no {', '.join(lora.target_modules)}; name others, or null for all")
    return chosen


def _layer(module: str) -> int | None:
    number = re.search(r"\.(\d+)\.", f".{module}")
    return int(number[1]) if number else None


def _whole_modules(lora: UnslothLora, facts: ModelFacts, adapted: tuple[str, ...]) -> tuple[str, ...]:
    field, patterns = f"{FIELD}.modules_to_save", lora.modules_to_save or ()
    for pattern in patterns:
        found = [each for each in facts.modules if matches(each.name, pattern)]
        if not found:
            raise Invalid(f"{field}: '{pattern}' matches no module of this model; {_what_there_is(facts)}")
        if twice := next((each.name for each in found if each.name in adapted), None):
            raise Invalid(
                f"{field}: '{pattern}' names {twice}, which target_modules adapts; a module is trained whole or by an "
                "adapter: leave it out of one of the two"
            )
    return tuple(each.name for each in facts.modules if any(matches(each.name, pattern) for pattern in patterns))


def _what_there_is(facts: ModelFacts) -> str:
    names = ", ".join(sorted({each.name.rpartition(".")[2] for each in facts.modules}))
    tied = "; its output head is its embedding" if facts.tied_embeddings else ""
    return f"its modules end in {names}{tied}"


def _is_embedding(module: str) -> bool:
    return "embed" in module.rpartition(".")[2]


def _refuse_what_peft_takes_for_experts(facts: ModelFacts, adapted: tuple[str, ...]) -> None:
    names = LIKE_EXPERTS.get(facts.family, ())
    if found := next((name for name in adapted if name.endswith(names)), None) if names else None:
        raise Invalid(
            f"{FIELD}.target_modules: {found} lies in a dense layer, and PEFT, which computes use_dora, bias, "
            f"modules_to_save, pissa and olora, takes {', '.join(names)} of {facts.family} for its experts: leave them "
            "out of target_modules, or leave these fields as they are by default"
        )


def _refuse_unlike_starts(lora: UnslothLora, facts: ModelFacts, adapted: tuple[str, ...]) -> None:
    """Invalid where an adapter that begins as a part of the base could not begin, or not be saved."""
    start = f"init_lora_weights '{lora.init_lora_weights}'"
    if lora.use_dora:
        raise Invalid(
            f"{FIELD}.use_dora: does not go with {start}, whose adapter is saved as the difference to its start, and "
            "lengths have none; set init_lora_weights to true, or use_dora to false"
        )
    sides = {each.name: min(each.in_features, each.out_features) for each in facts.linears}
    narrow = min(adapted, key=lambda name: sides[name])
    if lora.rank > sides[narrow]:
        raise Invalid(
            f"{FIELD}.rank ({lora.rank}): {start} takes as many directions of each module, and {narrow} has "
            f"{sides[narrow]}; lower the rank to {sides[narrow]}, or set init_lora_weights to true"
        )
