"""What may happen to adapters: create by hand from external weights, enable, disable, change, delete.

Before an adapter is stored its files are held against what serving honours and against the base's layers, so that a
user hears of a misfit now and not when a deployment would not load it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.models import Adapter, CreateModelAdapter, FinetuningType, LoraConfig, UpdateAdapter
from tunesmith.control.checkpoints import read_facts, read_header_of
from tunesmith.control.contents import Contents
from tunesmith.control.models import named, refuse_empty
from tunesmith.errors import EngineError, Invalid, NotFound, TunesmithError
from tunesmith.handoff import peft
from tunesmith.planning.facts import TRAINABLE_FAMILIES
from tunesmith.refs import Ref, check_name
from tunesmith.store.database import Database, Tx
from tunesmith.store.filesets import Snapshot

CONFIG_LIMIT = 1 << 20
"""Bytes that adapter_config.json may have."""
LORA_TYPES: frozenset[FinetuningType] = frozenset(
    {"lora", "qlora", "lora_plus", "ppo", "dpo", "cdpo", "ipo", "orpo", "kto", "rrhf", "grpo"}
)
"""Ways of tuning that may leave a plain LoRA adapter behind."""
_HEADS = ("lm_head", "embed_out", "output")
"""Output heads: not among a spec's linear layers, yet adapters may change them."""


@dataclass(frozen=True, slots=True)
class Base:
    """The model that an adapter changes, as far as it is known."""

    ref: Ref
    family: str
    layers: Mapping[str, tuple[int, int]]
    """Inputs and outputs of its linear modules; empty when they are not known."""


class AdapterService:
    """Trained weights beside a model's own."""

    def __init__(self, database: Database, contents: Contents, changed: Callable[[], None]) -> None:
        self.database = database
        self.contents = contents
        self._changed = changed
        """Called after a change, so that deployments hear of it at once."""

    async def create(self, workspace: str, model: str, asked: CreateModelAdapter) -> Adapter:
        """A new adapter of `model`.

        NotFound: no such model. BadRequest: no such fileset, or an empty one. Invalid: its files are no adapter that
        can be served, do not fit the base, or contradict what was asked. Conflict: the name is taken.
        """
        ref = Ref(workspace, check_name(asked.name))
        base_ref = Ref.parse(model, workspace, "model")
        if asked.finetuning_type not in LORA_TYPES:
            raise Invalid(
                f"finetuning_type: '{asked.finetuning_type}' leaves no plain LoRA adapter; one of "
                f"{', '.join(sorted(LORA_TYPES))}"
            )
        fileset, snapshot = await self.database.read(_files, workspace, asked.fileset, base_ref)
        rank, alpha = await self._read(base_ref, snapshot, asked.lora_config)

        def create(tx: Tx) -> Adapter:
            return tx.adapters.create(
                ref,
                model_id=tx.models.row(base_ref.workspace, base_ref.name)["id"],
                model=base_ref,
                fileset=fileset,
                description=asked.description,
                project=asked.project,
                finetuning_type=asked.finetuning_type,
                enabled=asked.enabled,
                rank=rank,
                alpha=alpha,
            )

        adapter = await self.database.write(create)
        self._changed()
        return adapter

    async def get(self, workspace: str, name: str) -> Adapter:
        """The adapter; NotFound without it."""
        return await self.database.read(lambda tx: tx.adapters.get(workspace, name))

    async def page(self, workspace: str, asked: PageRequest) -> Page[Adapter]:
        """One page of a workspace's adapters."""
        return await self.database.read(lambda tx: tx.adapters.page(workspace, asked))

    async def update(self, workspace: str, name: str, asked: UpdateAdapter, model: str | None = None) -> Adapter:
        """Change what is given; NotFound without the adapter, or when `model` is not its base. Else as `create`."""
        base = await self.database.read(_base_of, workspace, name, model)
        read: dict[str, object] = {}
        if asked.fileset is not None:
            fileset, snapshot = await self.database.read(_files, workspace, asked.fileset, base)
            rank, alpha = await self._read(base, snapshot, None)
            read = {"fileset_ref": str(fileset), "rank": rank, "alpha": alpha}
        adapter = await self.database.write(lambda tx: tx.adapters.update(workspace, name, asked, **read))
        self._changed()
        return adapter

    async def delete(self, workspace: str, name: str, model: str | None = None) -> None:
        """Take the adapter out of service; its fileset stays. NotFound as for `update`."""

        def delete(tx: Tx) -> None:
            _base_of(tx, workspace, name, model)
            tx.adapters.delete(workspace, name)

        await self.database.write(delete)
        self._changed()

    async def _read(self, base: Ref, snapshot: Snapshot, given: LoraConfig | None) -> tuple[int, float]:
        """Rank and alpha as the files say; Invalid where they cannot be served, do not fit, or contradict `given`."""
        by_path = {file.path: file for file in snapshot.files}
        for needed in (peft.CONFIG_FILE, peft.WEIGHTS_FILE):
            if needed not in by_path:
                raise Invalid(f"fileset {snapshot.fileset} has no {needed} at its root{_instead(set(by_path))}")
        if by_path[peft.CONFIG_FILE].size > CONFIG_LIMIT:
            raise Invalid(f"fileset {snapshot.fileset}: {peft.CONFIG_FILE} has more than {CONFIG_LIMIT:,} bytes")
        content = await self.contents.read(snapshot, by_path[peft.CONFIG_FILE])
        tensors = await read_header_of(snapshot, self.contents, by_path[peft.WEIGHTS_FILE])
        try:
            config = peft.read_config(content)
            rank, alpha = config["r"], config["lora_alpha"]
            _refuse_contradiction(given, rank, alpha)
            changed = peft.adapted({name: tensor.shape for name, tensor in tensors.items()}, rank)
        except EngineError as error:
            raise Invalid(f"fileset {snapshot.fileset}: {error.message}") from None
        _refuse_misfit(await self._base(base), changed)
        return rank, alpha

    async def _base(self, ref: Ref) -> Base:
        """The base with its layers: from its spec, else from its checkpoint when that can be read."""
        base, files = await self.database.read(_known_base, ref)
        if base.layers or files is None:
            return base
        try:
            facts = await read_facts(files, self.contents)
        except TunesmithError:
            return base
        layers = {linear.name: (linear.in_features, linear.out_features) for linear in facts.linears}
        return Base(ref, facts.family, layers)


def _files(tx: Tx, workspace: str, text: str, base: Ref) -> tuple[Ref, Snapshot]:
    """The fileset that a request names and what it holds now; NotFound without the model it is for."""
    tx.models.row(base.workspace, base.name)
    fileset = named(tx, workspace, text)
    refuse_empty(tx, fileset)
    return fileset, tx.filesets.snapshot(fileset)


def _base_of(tx: Tx, workspace: str, name: str, model: str | None) -> Ref:
    """The adapter's base; NotFound without the adapter, or when its base is not `model` of the same workspace."""
    if model is None:
        return Ref.unchecked(tx.adapters.row(workspace, name)["model_ref"])
    tx.models.row(workspace, model)
    found = tx.adapters.find_row(workspace, name)
    if found is None or found["model_ref"] != f"{workspace}/{model}":
        raise NotFound(f"Adapter {name} with workspace '{workspace}' and model name '{model}' not found")
    return Ref(workspace, model)


def _known_base(tx: Tx, ref: Ref) -> tuple[Base, Snapshot | None]:
    """What is stored about the base, and its files where its spec is still to be read."""
    row = tx.models.row(ref.workspace, ref.name)
    layers = tx.models.layers(row["id"]) or []
    base = Base(
        ref=ref,
        family=row["spec"]["family"] if row["spec"] else "",
        layers={layer["name"]: (layer["in_features"], layer["out_features"]) for layer in layers},
    )
    unread = row["spec_status"] == "pending" and row["fileset_ref"] is not None
    fileset = Ref.unchecked(row["fileset_ref"]) if unread else None
    if fileset is None or tx.filesets.find_row(fileset.workspace, fileset.name) is None:
        return base, None
    return base, tx.filesets.snapshot(fileset)


def _refuse_contradiction(given: LoraConfig | None, rank: int, alpha: float) -> None:
    if given is None:
        return
    for field, asked, key, found in (
        ("rank", given.rank, "r", rank),
        ("alpha", given.alpha, "lora_alpha", alpha),
    ):
        if asked is not None and asked != found:
            raise Invalid(
                f"lora_config.{field} ({asked}) is not what {peft.CONFIG_FILE} says ({key} = {found}); leave it out, "
                "or upload the files of the adapter that is meant"
            )


def _refuse_misfit(base: Base, changed: Mapping[str, tuple[int, int]]) -> None:
    """Invalid names the first module that the base does not have, or has in another shape."""
    if not base.layers:
        return
    for name, (inputs, outputs) in changed.items():
        layer = base.layers.get(name)
        if layer is None:
            if base.family in TRAINABLE_FAMILIES and name.rpartition(".")[2] not in _HEADS:
                raise Invalid(
                    f"fileset: the adapter changes {name}, which is no linear layer of {base.ref}: it was trained on "
                    "another model"
                )
        elif layer != (inputs, outputs):
            raise Invalid(
                f"fileset: the adapter maps {inputs} inputs to {outputs} outputs at {name}, where {base.ref} has "
                f"{layer[0]} and {layer[1]}: it was trained on another model"
            )


def _instead(paths: set[str]) -> str:
    if peft.PICKLED_WEIGHTS_FILE in paths and peft.WEIGHTS_FILE not in paths:
        return (
            f"; {peft.PICKLED_WEIGHTS_FILE} is a pickle and is not loaded: save the adapter again with "
            "save_pretrained(..., safe_serialization=True)"
        )
    deeper = sorted(path for path in paths if path.endswith(f"/{peft.CONFIG_FILE}"))
    if deeper:
        return f"; there is {deeper[0]}: upload the content of that directory to the fileset's root"
    return f"; an adapter is {peft.CONFIG_FILE} and {peft.WEIGHTS_FILE}, as PEFT's save_pretrained writes them"
