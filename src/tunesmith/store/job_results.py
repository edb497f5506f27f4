"""What jobs have made, as their workers report it: a name and a place in a fileset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from tunesmith.api.platform_jobs import CreateResult, JobResult
from tunesmith.errors import BadRequest, Conflict, NotFound
from tunesmith.store.ids import new_id, now
from tunesmith.store.rows import upsert
from tunesmith.store.tables import job_results

SORTABLE = ("created_at", "updated_at", "name")


class JobResults:
    """Results, addressed by job and name; they go with their job."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def create(self, job: RowMapping, name: str, asked: CreateResult) -> JobResult:
        """A new result of the job; Conflict if it has one of that name."""
        at = now()
        row = {"id": new_id("platform-job-result"), "job_id": job["id"], "name": name, "created_at": at}
        row |= {"updated_at": at, **asked.model_dump(mode="json")}
        added = self.connection.execute(upsert(self.connection, job_results).values(row).on_conflict_do_nothing())
        if added.rowcount != 1:
            raise Conflict(
                f"Result '{name}' for job '{job['name']}' already exists in workspace '{job['workspace']}'; choose "
                "another name"
            )
        return _result(job, row)

    def get(self, job: RowMapping, name: str) -> JobResult:
        """One result; NotFound without it."""
        query = select(job_results).where(job_results.c.job_id == job["id"], job_results.c.name == name)
        row = self.connection.execute(query).mappings().one_or_none()
        if row is None:
            raise NotFound(f"Result '{name}' for job '{job['name']}' not found in workspace '{job['workspace']}'.")
        return _result(job, {**row})

    def all(self, job: RowMapping, sort: str) -> list[JobResult]:
        """All results of a job; BadRequest for an order that there is not."""
        name = sort.removeprefix("-")
        if name not in SORTABLE:
            raise BadRequest(f"sort: '{sort[:40]}' is not one of {', '.join(SORTABLE)}, each with or without '-'")
        column = job_results.c[name]
        order = (column.desc(), job_results.c.id.desc()) if sort.startswith("-") else (column, job_results.c.id)
        query = select(job_results).where(job_results.c.job_id == job["id"]).order_by(*order)
        return [_result(job, {**row}) for row in self.connection.execute(query).mappings()]


def _result(job: RowMapping, row: Mapping[str, Any]) -> JobResult:
    beside = {"job": job["id"], "workspace": job["workspace"], "project": job["project"]}
    return JobResult.model_validate({**row, **beside})
