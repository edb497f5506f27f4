"""Distillation compares two models token by token, so they must speak of the same tokens."""

from __future__ import annotations

from tunesmith.errors import Invalid
from tunesmith.planning.facts import ModelFacts
from tunesmith.planning.rules import refuse_embedding, refuse_models_without_answers
from tunesmith.spec.automodel import AutomodelSpec

_WAY_OUT = "take two models of one family, such as a small and a large Qwen3"


def refuse_unequal_pair(spec: AutomodelSpec, facts: ModelFacts, model: str, teacher: ModelFacts | None) -> None:
    """Invalid for a teacher that has nothing to teach, or whose answers mean something else to the student.

    `model` is the student's `workspace/name`; without `teacher` only the names are compared.
    """
    field, name = "training.teacher_model", spec.training.teacher_model or ""
    if name in (spec.model, model):
        raise Invalid(f"{field}: '{name}' is the model that is trained; it has nothing to learn from itself")
    if teacher is None:
        return
    refuse_models_without_answers(teacher, name, field)
    refuse_embedding(teacher, name, field, "it writes no answers that could be imitated")
    refuse_embedding(facts, model, "model", "it writes no answers that a teacher could correct")
    if facts.vocab_size != teacher.vocab_size:
        raise Invalid(
            f"{field}: the vocabulary of {name} has {teacher.vocab_size} tokens, that of {model} {facts.vocab_size}; "
            f"they must be the same: {_WAY_OUT}"
        )
    for what, learns, teaches in (
        ("bos_token_id", facts.start_ids, teacher.start_ids),
        ("eos_token_id", facts.end_ids, teacher.end_ids),
    ):
        if learns and teaches and not set(learns) & set(teaches):
            raise Invalid(
                f"{field}: {what} of {name} is {_shown(teaches)}, that of {model} {_shown(learns)}; "
                f"their special tokens must be the same: {_WAY_OUT}"
            )


def _shown(ids: tuple[int, ...]) -> str:
    return " or ".join(map(str, ids))
