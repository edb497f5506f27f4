# Made by scripts/unasync.py from ../aio/steps.py: change that file and run the script again.
"""What jobs consist of and what they leave: steps and tasks, which workers report on, and results."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import httpx

from tunesmith.api import paths
from tunesmith.api.base import Items, JsonObject, Page
from tunesmith.api.jobs import JobStatus
from tunesmith.api.platform_jobs import (
    CreateResult,
    JobResult,
    JobStep,
    JobTask,
    StatusUpdate,
    StepInContext,
    TaskUpdate,
)
from tunesmith.client import trees, wire
from tunesmith.client.sync.pages import Pages
from tunesmith.client.sync.resource import Resource

_AS_THEY_ARE = {"Accept": "*/*", "Accept-Encoding": "identity"}


class Steps(Resource):
    """`client.jobs.steps`."""

    def list(
        self,
        name: str = "-",
        *,
        workspace: str | None = None,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> Pages[StepInContext]:
        """The steps of the job `name` that exist so far, oldest first; `-` = of all jobs."""
        path = self._at(paths.JOB_STEPS, name, workspace)
        return Pages.begin(self._transport, Page[StepInContext], path, page, page_size, sort, filter)

    def retrieve(self, name: str, *, job: str, workspace: str | None = None) -> JobStep:
        """One step of a job."""
        return self._transport.get(JobStep, self._at(paths.JOB_STEP, job, workspace, step=name))

    def update_status(
        self,
        name: str,
        *,
        job: str,
        status: JobStatus | str,
        status_details: JsonObject | None = None,
        error_details: JsonObject | None = None,
        workspace: str | None = None,
    ) -> JobStep:
        """What a worker says of its step; the job follows. Details are merged, key by key."""
        path = self._at(paths.JOB_STEP_STATUS, job, workspace, step=name)
        body = wire.ask(StatusUpdate, status=status, status_details=status_details, error_details=error_details)
        return self._transport.patch(JobStep, path, body)


class Tasks(Resource):
    """`client.jobs.tasks`."""

    def list(self, name: str, *, job: str, workspace: str | None = None) -> Items[JobTask]:
        """The tasks of the step `name`."""
        return self._transport.get(Items[JobTask], self._at(paths.JOB_TASKS, job, workspace, step=name))

    def retrieve(self, name: str, *, job: str, step: str, workspace: str | None = None) -> JobTask:
        """One task."""
        return self._transport.get(JobTask, self._at(paths.JOB_TASK, job, workspace, step=step, task=name))

    def create_or_update(
        self,
        name: str,
        *,
        job: str,
        step: str,
        status: JobStatus | str | None = None,
        status_details: JsonObject | None = None,
        error_details: JsonObject | None = None,
        error_stack: str | None = None,
        workspace: str | None = None,
    ) -> JobTask:
        """What a worker says of a task, which is made if there is none of that name. Details are merged, key by key."""
        path = self._at(paths.JOB_TASK, job, workspace, step=step, task=name)
        body = wire.ask(
            TaskUpdate,
            status=status,
            status_details=status_details,
            error_details=error_details,
            error_stack=error_stack,
        )
        return self._transport.put(JobTask, path, body)


class Results(Resource):
    """`client.jobs.results`: what jobs have made, as their workers have registered it."""

    def create(
        self,
        name: str,
        *,
        job: str,
        artifact_url: str,
        artifact_storage_type: Literal["fileset"] = "fileset",
        workspace: str | None = None,
    ) -> JobResult:
        """Register something that a job has made.

        `artifact_url` is `fileset#path` or `workspace/fileset#path`; without a path it is the whole fileset.
        """
        path = self._at(paths.JOB_RESULT, job, workspace, result=name)
        body = wire.ask(CreateResult, artifact_url=artifact_url, artifact_storage_type=artifact_storage_type)
        return self._transport.post(JobResult, path, body)

    def list(self, name: str, *, sort: str | None = None, workspace: str | None = None) -> Items[JobResult]:
        """The results of the job `name`."""
        path = self._at(paths.JOB_RESULTS, name, workspace)
        return self._transport.get(Items[JobResult], path, {"sort": sort})

    def retrieve(self, name: str, *, job: str, workspace: str | None = None) -> JobResult:
        """One result."""
        return self._transport.get(JobResult, self._at(paths.JOB_RESULT, job, workspace, result=name))

    def download(self, name: str, local_path: str | Path, *, job: str, workspace: str | None = None) -> Path:
        """A result into the file `local_path`, which appears whole; a directory comes as tar.gz."""
        path, local = self._at(paths.JOB_DOWNLOAD, job, workspace, result=name), Path(local_path)
        response = self._transport.send("GET", path, headers=_AS_THEY_ARE, stream=True)
        try:
            with trees.appearing(local) as file:
                for chunk in response.iter_raw():
                    file.write(chunk)
        except httpx.TransportError as error:
            raise self._transport.failure(error) from error
        finally:
            response.close()
        return local

    def download_content(self, name: str, *, job: str, workspace: str | None = None) -> bytes:
        """The bytes of a result; a directory comes as tar.gz."""
        path = self._at(paths.JOB_DOWNLOAD, job, workspace, result=name)
        return (self._transport.send("GET", path, headers=_AS_THEY_ARE)).content
