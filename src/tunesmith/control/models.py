"""What may happen to model entities: create, change, delete. Specs are read from checkpoints by `analysis`."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.models import CreateModel, Model, ModelFields, UpdateModel
from tunesmith.errors import BadRequest, Conflict, Forbidden, Invalid
from tunesmith.refs import Ref
from tunesmith.store.database import Database, Tx


class ModelService:
    """Checkpoints, what they say about themselves, and their adapters."""

    def __init__(
        self, database: Database, *, remote_code: bool, pending: Callable[[], None], removed: Callable[[], None]
    ) -> None:
        self.database = database
        self.remote_code = remote_code
        """Whether a model may ask for its checkpoint's code to be run."""
        self._pending = pending
        """Called after a change that may leave a spec to be read."""
        self._removed = removed
        """Called after a deletion, which may have taken adapters along."""

    async def create(self, workspace: str, asked: CreateModel) -> Model:
        """A new model entity; its spec is pending where a checkpoint is to be read.

        BadRequest: no such fileset. Conflict: the name is taken. Forbidden, Invalid: see `refuse`.
        """
        refuse(asked, remote_code=self.remote_code)
        model = await self.database.write(create, workspace, asked)
        if model.spec is None and model.fileset is not None:
            self._pending()
        return model

    async def get(self, workspace: str, name: str, verbose: bool) -> Model:
        """The model; NotFound without it."""
        return await self.database.read(lambda tx: tx.models.get(workspace, name, verbose))

    async def page(self, workspace: str, asked: PageRequest, verbose: bool) -> Page[Model]:
        """One page of a workspace's models."""
        return await self.database.read(lambda tx: tx.models.page(workspace, asked, verbose))

    async def update(self, workspace: str, name: str, asked: UpdateModel, verbose: bool) -> Model:
        """Change what is given. BadRequest: no such fileset, or an empty one. Else as `create`."""
        refuse(asked, remote_code=self.remote_code)
        model = await self.database.write(update, workspace, name, asked, verbose)
        if model.spec is None and model.fileset is not None:
            self._pending()
        return model

    async def delete(self, workspace: str, name: str) -> None:
        """Delete the model and its adapters. Conflict names deployments and jobs that need it."""
        await self.database.write(delete, Ref(workspace, name))
        self._removed()


def refuse(asked: ModelFields, *, remote_code: bool) -> None:
    """Invalid or Forbidden for what a model may not hold here, naming the field, the rule and the way out."""
    if asked.trust_remote_code and not remote_code:
        raise Invalid(
            "trust_remote_code: this server does not run code that comes with checkpoints; leave it out, or set "
            "TUNESMITH_ALLOW_REMOTE_CODE=1 where the server starts"
        )
    calling = asked.spec and asked.spec.tool_call_config
    if calling and calling.tool_call_plugin:
        raise Forbidden(
            "spec.tool_call_config.tool_call_plugin: plugins run code in the server and are not enabled on this "
            "platform; name one of the built-in parsers in tool_call_parser instead"
        )
    if asked.api_endpoint and asked.api_endpoint.api_key:
        raise Invalid(
            "api_endpoint.api_key: a model entity is shown to everybody and holds no keys; leave it out and store the "
            "key as a secret"
        )


def create(tx: Tx, workspace: str, asked: CreateModel) -> Model:
    """One transaction: does the fileset exist, then the model."""
    return tx.models.create(workspace, asked, None if asked.fileset is None else named(tx, workspace, asked.fileset))


def update(tx: Tx, workspace: str, name: str, asked: UpdateModel, verbose: bool) -> Model:
    """One transaction: does the fileset exist and hold files, then the change."""
    tx.models.row(workspace, name)
    fileset = None
    if asked.fileset is not None:
        fileset = named(tx, workspace, asked.fileset)
        refuse_empty(tx, fileset)
    return tx.models.update(workspace, name, asked, fileset, verbose)


def delete(tx: Tx, ref: Ref) -> None:
    """One transaction: does nothing need it any more, then the model and its adapters go."""
    tx.models.row(ref.workspace, ref.name)
    if users := tx.models.users(ref):
        raise Conflict(
            f"Model '{ref}' is needed by {', '.join(users[:5])}; delete the deployment, or wait for the job or cancel "
            "it first"
        )
    tx.models.remove(ref.workspace, ref.name)


def named(tx: Tx, workspace: str, text: str) -> Ref:
    """The fileset that a request names; BadRequest when there is none."""
    if not text:
        raise BadRequest("Fileset reference is required")
    fileset = Ref.fileset(text, workspace)
    if tx.filesets.find_row(fileset.workspace, fileset.name) is None:
        raise BadRequest(f"Fileset '{fileset}' not found in workspace '{fileset.workspace}'")
    return fileset


def refuse_empty(tx: Tx, fileset: Ref) -> None:
    """BadRequest for a fileset without files."""
    if not tx.filesets.snapshot(fileset).files:
        raise BadRequest(f"Fileset {fileset}, exists but is empty")
