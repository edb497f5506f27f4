"""The database: SQLite in the data directory or PostgreSQL, and a transaction object that knows every noun.

A verb is a plain function `def verb(tx, ...)`. `await database.write(verb, ...)` runs it outside the event loop and
returns when its commit is on disk; one that raises is rolled back alone. On PostgreSQL a verb runs again when another
write came between: it does nothing but read and write rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from tunesmith.store.adapters import Adapters
from tunesmith.store.backend import Backend
from tunesmith.store.deployments import Deployments
from tunesmith.store.filesets import Filesets
from tunesmith.store.job_results import JobResults
from tunesmith.store.jobs import Jobs
from tunesmith.store.leases import Leases
from tunesmith.store.members import Members
from tunesmith.store.models import Models
from tunesmith.store.platform_steps import PlatformSteps
from tunesmith.store.postgres import PostgresBackend
from tunesmith.store.projects import Projects
from tunesmith.store.secrets import Secrets
from tunesmith.store.sqlite import SqliteBackend
from tunesmith.store.versions import Versions
from tunesmith.store.webhooks import Deliveries, Webhooks
from tunesmith.store.workspaces import Workspaces

P = ParamSpec("P")
T = TypeVar("T")


class Tx:
    """One transaction, and a repository per noun in it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @cached_property
    def workspaces(self) -> Workspaces:
        """Boundaries around everything else."""
        return Workspaces(self.connection)

    @cached_property
    def members(self) -> Members:
        """Who may work in a workspace."""
        return Members(self.connection)

    @cached_property
    def projects(self) -> Projects:
        """Labels for things of a workspace that belong together."""
        return Projects(self.connection)

    @cached_property
    def secrets(self) -> Secrets:
        """Values that are stored encrypted."""
        return Secrets(self.connection)

    @cached_property
    def filesets(self) -> Filesets:
        """Named collections of files."""
        return Filesets(self.connection)

    @cached_property
    def models(self) -> Models:
        """Model entities."""
        return Models(self.connection)

    @cached_property
    def adapters(self) -> Adapters:
        """Trained weights beside a model's own."""
        return Adapters(self.connection)

    @cached_property
    def jobs(self) -> Jobs:
        """Jobs with their steps and metrics."""
        return Jobs(self.connection)

    @cached_property
    def platform_steps(self) -> PlatformSteps:
        """Steps of platform jobs, and their tasks."""
        return PlatformSteps(self.connection)

    @cached_property
    def job_results(self) -> JobResults:
        """What jobs have made."""
        return JobResults(self.connection)

    @cached_property
    def versions(self) -> Versions:
        """What jobs have replaced."""
        return Versions(self.connection)

    @cached_property
    def webhooks(self) -> Webhooks:
        """Addresses that are told of changes."""
        return Webhooks(self.connection)

    @cached_property
    def deliveries(self) -> Deliveries:
        """What they are still owed."""
        return Deliveries(self.connection)

    @cached_property
    def leases(self) -> Leases:
        """Which device is taken by whom."""
        return Leases(self.connection)

    @cached_property
    def deployments(self) -> Deployments:
        """Deployment configs and deployments."""
        return Deployments(self.connection)


class Database:
    """One database, opened for the life of the process: a path is SQLite's, anything else a PostgreSQL URL.

    ServerStartError when it cannot be opened, or belongs to another server or a newer version.
    """

    def __init__(self, where: Path | str) -> None:
        self.backend: Backend = SqliteBackend(where) if isinstance(where, Path) else PostgresBackend(where)

    async def read(self, verb: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `verb(tx, ...)` returns, on a snapshot."""
        return await self.backend.read(lambda connection: verb(Tx(connection), *args, **kwargs))

    async def search(self, verb: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `read`, never inline: for what may have to look at every row, such as a list with a filter."""
        return await self.backend.search(lambda connection: verb(Tx(connection), *args, **kwargs))

    async def write(self, verb: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `verb(tx, ...)` returns, after its commit; its exception, after its rollback."""
        return await self.backend.write(lambda connection: verb(Tx(connection), *args, **kwargs))

    def close(self) -> None:
        """Finish the verbs that wait, then close."""
        self.backend.close()
