"""What a broken rule of a grammar says when the field belongs elsewhere: to another backend, or to another section.

Used by the server's 422, and by the client, which validates with the same grammars before it sends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from tunesmith.spec.grammars import GRAMMARS

BACKENDS = ("automodel", "unsloth", "rl")
SAME: tuple[tuple[str | None, str | None, str | None], ...] = (
    # automodel, unsloth, rl
    ("model", "model.name", "model"),
    ("dataset.training", "dataset.path", "dataset"),
    ("dataset.validation", "dataset.validation_path", None),
    ("batch.sequence_packing", "dataset.packing", None),
    ("training.training_type", "training.training_type", "training.type"),
    ("training.max_seq_length", "model.max_seq_length", "training.max_seq_length"),
    ("training.precision", "hardware.precision", None),
    ("training.execution_profile", None, "training.execution_profile"),
    ("training.lora.exclude_modules", None, "training.lora.exclude_modules"),
    ("training.lora.use_triton", None, "training.lora.use_triton"),
    ("training.lora.merge", "output.save_method", "training.lora.merge"),
    ("schedule.epochs", "schedule.epochs", "training.epochs"),
    ("schedule.max_steps", "schedule.max_steps", "training.max_steps"),
    ("schedule.val_check_interval", "schedule.eval_steps", "training.val_check_interval"),
    ("schedule.seed", "schedule.seed", "training.seed"),
    ("batch.global_batch_size", "batch.gradient_accumulation_steps", "training.batch_size"),
    ("batch.micro_batch_size", "batch.per_device_train_batch_size", "training.micro_batch_size"),
    ("optimizer.learning_rate", "optimizer.learning_rate", "training.learning_rate"),
    ("optimizer.min_learning_rate", None, "training.min_learning_rate"),
    ("optimizer.weight_decay", "optimizer.weight_decay", "training.weight_decay"),
    ("optimizer.adam_beta1", "optimizer.adam_beta1", "training.adam_beta1"),
    ("optimizer.adam_beta2", "optimizer.adam_beta2", "training.adam_beta2"),
    ("optimizer.adam_eps", "optimizer.adam_epsilon", "training.adam_eps"),
    ("optimizer.warmup_steps", "schedule.warmup_steps", "training.warmup_steps"),
    ("optimizer.optimizer", "optimizer.optim", "training.optimizer_type"),
    ("optimizer.lr_decay_style", "schedule.lr_scheduler_type", "training.optimizer_type"),
    (None, "optimizer.max_grad_norm", "training.max_grad_norm"),
    ("parallelism.num_gpus_per_node", "hardware.gpus", "training.parallelism.num_gpus_per_node"),
    ("parallelism.num_nodes", None, "training.parallelism.num_nodes"),
    ("parallelism.tensor_parallel_size", None, "training.parallelism.tensor_parallel_size"),
    ("parallelism.pipeline_parallel_size", None, "training.parallelism.pipeline_parallel_size"),
    ("parallelism.context_parallel_size", None, "training.parallelism.context_parallel_size"),
    ("parallelism.sequence_parallel", None, "training.parallelism.sequence_parallel"),
)
"""What a field is called in each backend; None = it has none of that kind."""

FEW = 4
"""Fields that a message names one by one."""
_WRONG_SHAPE = ("string_type", "model_type", "model_attributes_type")


def hinted(errors: Sequence[Mapping[str, Any]], backend: str, start: int = 0) -> list[dict[str, Any]]:
    """pydantic's errors with a better `msg` where a field belongs elsewhere.

    `start` is how many parts of each `loc` lead to the spec: 2 for ("body", "spec", "model").
    """
    return [{**error, "msg": hint(error, backend, start) or error["msg"]} for error in errors]


def hint(error: Mapping[str, Any], backend: str, start: int = 0) -> str:
    """What to say instead of pydantic's message; "" where there is nothing better."""
    path = ".".join(str(part) for part in error["loc"][start:] if part not in ("dpo", "grpo"))
    if error["type"] == "extra_forbidden":
        given = error.get("input")
        return _elsewhere(path, backend, [f"{path}.{key}" for key in given] if isinstance(given, dict) else [])
    if error["type"] in _WRONG_SHAPE and path in ("model", "dataset"):
        return _other_shape(path, backend)
    return ""


def speakers(spec: Mapping[str, Any]) -> list[str]:
    """The backends whose grammar knows every key of `spec`; for a file that does not say which one it means."""
    given = list(_given(spec, ""))
    return [backend for backend in BACKENDS if all(_knows(backend, path, value) for path, value in given)]


def _elsewhere(path: str, backend: str, inside: Sequence[str]) -> str:
    """`inside` are the fields that were sent in the section at `path`."""
    owners = [other for other in BACKENDS if other != backend and path in _paths(other)]
    asked = [found for other in owners for field in inside for found in _counterparts(field, other, backend)]
    here = asked or [found for other in owners for found in _counterparts(path, other, backend)]
    if owners:
        way_out = f"; here it is {_list(here)}" if here else f", and {backend} has nothing like it"
        return f"{path} is {_list(owners, 'and')}'s{way_out}"
    last = path.rpartition(".")[2]
    places = sorted(known for known in _paths(backend) if known.endswith(f".{last}"))
    return f"{path} stands in another place: here it is {_list(places)}" if places else ""


def _other_shape(path: str, backend: str) -> str:
    column = BACKENDS.index(backend)
    here = next(row[column] for row in SAME if (row[column] or "").split(".")[0] == path)
    owners = [
        other
        for other, word in zip(BACKENDS, next(row for row in SAME if row[column] == here), strict=True)
        if other != backend and (word == path) == (here != path)
    ]
    example = f"{here}: my-{path}" if here == path else f"{path}: {{{str(here).partition('.')[2]}: my-{path}}}"
    return f"{path} has the shape that {_list(owners, 'and')} would take; here it is `{example}`"


def _counterparts(path: str, other: str, backend: str) -> list[str]:
    """What `path` of `other` is called here; for a section, what its fields are called."""
    theirs, ours = BACKENDS.index(other), BACKENDS.index(backend)
    found = [row[ours] for row in SAME if row[theirs] == path or (row[theirs] or "").startswith(f"{path}.")]
    return list(dict.fromkeys(word for word in found if word and word != path))


def _list(words: Sequence[str], last: str = "or") -> str:
    words = list(dict.fromkeys(words))
    parents = {word.rpartition(".")[0] for word in words}
    if len(words) > FEW and len(parents) == 1:
        return f"the fields of {parents.pop()}"
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else words[0]


def _given(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, each in value.items():
        yield f"{prefix}{key}", each
        if isinstance(each, dict):
            yield from _given(each, f"{prefix}{key}.")


def _knows(backend: str, path: str, value: Any) -> bool:
    known = _paths(backend)
    if path in known:
        has_parts = any(map(_takes_parts, known[path]))
        return has_parts if isinstance(value, dict) else value is None or not all(map(_only_parts, known[path]))
    return any(path.startswith(f"{section}.") for section in known if any(map(_any_object, known[section])))


@cache
def _paths(backend: str) -> Mapping[str, tuple[Any, ...]]:
    """Every dotted path that the grammar has, sections too, with the types that its value may have."""
    found: dict[str, tuple[Any, ...]] = {}
    for path, annotation in _fields(GRAMMARS[backend], ""):
        found[path] = (*found.get(path, ()), annotation)
    return found


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field.annotation
        for inner in _models(field.annotation):
            yield from _fields(inner, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated):
        for part in get_args(annotation):
            yield from _models(part)


def _takes_parts(annotation: Any) -> bool:
    return _any_object(annotation) or any(True for _ in _models(annotation))


def _only_parts(annotation: Any) -> bool:
    """Whether nothing but a section can stand there."""
    if get_origin(annotation) is Annotated:
        return _only_parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return all(map(_only_parts, get_args(annotation)))
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _any_object(annotation: Any) -> bool:
    return get_origin(annotation) is dict or (
        get_origin(annotation) in (Union, UnionType, Annotated) and any(map(_any_object, get_args(annotation)))
    )
