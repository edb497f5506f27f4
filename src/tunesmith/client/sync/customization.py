# Made by scripts/unasync.py from ../aio/customization.py: change that file and run the script again.
"""Fine-tuning jobs, by dialect: `client.customization.automodel.jobs`."""

from __future__ import annotations

from tunesmith.api import paths
from tunesmith.api.base import JsonObject, Page
from tunesmith.api.jobs import AutomodelJob, CreateAutomodelJob, JobState, LogPage
from tunesmith.client import wire
from tunesmith.client.sync.pages import Pages
from tunesmith.client.sync.resource import Resource
from tunesmith.client.sync.transport import Transport
from tunesmith.spec.automodel import AutomodelJobInput


class AutomodelJobs(Resource):
    """`client.customization.automodel.jobs`."""

    def create(
        self,
        *,
        spec: AutomodelJobInput | JsonObject,
        name: str | None = None,
        workspace: str | None = None,
        description: str | None = None,
        project: str | None = None,
        ownership: JsonObject | None = None,
        custom_fields: JsonObject | None = None,
    ) -> AutomodelJob:
        """Submit a job; the platform makes a name if none is given.

        A spec that breaks a rule of the grammar is refused here (`tunesmith.errors.Invalid`, a line per rule); what
        needs the model or the data is refused by the platform in the same words.
        """
        body = wire.ask(
            CreateAutomodelJob,
            name=name,
            description=description,
            project=project,
            spec=spec,
            ownership=ownership,
            custom_fields=custom_fields,
        )
        return self._transport.post(AutomodelJob, self._in(paths.AUTOMODEL_JOBS, workspace), body)

    def retrieve(self, name: str, *, workspace: str | None = None) -> AutomodelJob:
        """One job, with its spec as it runs."""
        return self._transport.get(AutomodelJob, self._at(paths.AUTOMODEL_JOB, name, workspace))

    def list(
        self,
        *,
        workspace: str | None = None,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> Pages[AutomodelJob]:
        """The workspace's automodel jobs, newest first."""
        path = self._in(paths.AUTOMODEL_JOBS, workspace)
        return Pages.begin(self._transport, Page[AutomodelJob], path, page, page_size, sort, filter)

    def get_status(self, name: str, *, workspace: str | None = None) -> JobState:
        """How a job is doing."""
        return self._transport.get(JobState, self._at(paths.AUTOMODEL_JOB_STATUS, name, workspace))

    def cancel(self, name: str, *, workspace: str | None = None) -> AutomodelJob:
        """Ask a job to end; one that has ended stays as it is."""
        path = self._at(paths.AUTOMODEL_JOB_CANCEL, name, workspace)
        return self._transport.post(AutomodelJob, path, idempotent=True)

    def get_logs(
        self, name: str, *, workspace: str | None = None, limit: int | None = None, page_cursor: str | None = None
    ) -> LogPage:
        """Lines of a job's log, as `client.jobs.get_logs`."""
        query = {"limit": limit, "page_cursor": page_cursor}
        return self._transport.get(LogPage, self._at(paths.AUTOMODEL_JOB_LOGS, name, workspace), query)


class Automodel:
    """`client.customization.automodel`."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        self.jobs = AutomodelJobs(transport, workspace)


class Customization:
    """`client.customization`."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        self.automodel = Automodel(transport, workspace)
        self._transport = transport

    def health(self) -> JsonObject:
        """Whether jobs can be submitted, and in which dialects: `{"status": "ok", "contributors": [...]}`."""
        answer: JsonObject = wire.content(self._transport.send("GET", paths.CUSTOMIZATION_HEALTH))
        return answer
