"""Jobs and leases in any order of what users, engines and crashes do: no device twice, no end twice, none lost."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.control.test_supervisor import DIGEST, FINISHED, ROWS, progress
from tests.planning.knobs import BASE, FACTS
from tunesmith.api.filesets import CreateFileset
from tunesmith.api.jobs import CreateAutomodelJob, JobStatus
from tunesmith.api.models import CreateModel
from tunesmith.control import attempts, jobs, registration, scheduler, submission, supervisor
from tunesmith.errors import Conflict
from tunesmith.handoff.events import CheckpointSaved, Event, Started, Stopped
from tunesmith.planning.automodel import lower
from tunesmith.refs import Ref
from tunesmith.store.database import Database, Tx
from tunesmith.store.jobs import Phase

DEVICES = ("cpu:0", "cpu:1")
IN_MEMORY = Path("/dev/shm")
"""Thousands of commits, none of which has to outlive the test."""
STARTED = Started(steps=2, epochs=1, device="cpu", compute="fp32", threads=1, trained_parameters=1, adapted_modules=1)
AGREES = {
    Phase.WAITING: {JobStatus.CREATED, JobStatus.RESUMING},
    Phase.PREPARING: {JobStatus.ACTIVE, JobStatus.CANCELLING, JobStatus.PAUSING},
    Phase.QUEUED: {JobStatus.ACTIVE, JobStatus.RESUMING},
    Phase.TRAINING: {JobStatus.ACTIVE, JobStatus.CANCELLING, JobStatus.PAUSING},
    Phase.PAUSED: {JobStatus.PAUSED},
    Phase.DONE: {JobStatus.COMPLETED, JobStatus.ERROR, JobStatus.CANCELLED},
}
"""What the wire may say of a job where it stands."""


class Jobs(RuleBasedStateMachine):
    """The verbs of control on a real database; engines are played by their events."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.loop = asyncio.Runner()
        self.database = Database(self.folder / "t.db")
        self.names: set[str] = set()
        self.discarded: set[str] = set()
        self.final: dict[str, JobStatus] = {}
        self.count = 0

        def furnish(tx: Tx) -> None:
            for name in ("base", "rows"):
                tx.filesets.create("default", CreateFileset(name=name))
                tx.filesets.put("default", name, "f", DIGEST, 7)
            tx.models.create("default", CreateModel(name="base", fileset="base"), Ref("default", "base"))

        self.write(furnish)
        for priority in (0, 0, 1):
            self.submit(priority)
        for _ in range(2):  # two are prepared at once
            self.write(scheduler.claim, DEVICES)
            for job in self.read(lambda tx: tx.jobs.in_phase(Phase.PREPARING)):
                self.say(job, ROWS)
                self.write(supervisor.queue, job.id)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self.loop.close()
            shutil.rmtree(self.folder)

    def write(self, verb: Callable[..., Any], *args: Any) -> Any:
        return self.loop.run(self.database.write(verb, *args))

    def read(self, verb: Callable[..., Any], *args: Any) -> Any:
        return self.loop.run(self.database.read(verb, *args))

    def some(self, data: Any, *phases: Phase) -> Any:
        """A job in one of the phases, or None."""
        found = self.read(lambda tx: tx.jobs.in_phase(*phases))
        return data.draw(st.sampled_from(found)) if found else None

    # -- what users do ---------------------------------------------------------------------------------------------

    @rule(priority=st.integers(-1, 1))
    def submit(self, priority: int) -> None:
        self.count += 1
        name = f"job-{self.count}"
        spec = {**BASE, "output": {"name": f"tuned-{self.count}"}}
        asked = CreateAutomodelJob.model_validate({"spec": spec, "custom_fields": {"priority": priority}})
        whole = submission.Asked("automodel", asked, asked.spec)

        def verb(tx: Tx) -> None:
            inputs = submission.resolve(tx, "default", whole.dialect, asked.spec)
            plan = lower(asked.spec, FACTS, run=name, model="default/base")
            submission.insert(tx, Ref("default", name), f"id-{name}", whole, inputs, plan)

        self.write(verb)
        self.names.add(name)

    @precondition(lambda self: self.names)
    @rule(data=st.data(), verb=st.sampled_from([jobs.pause, jobs.pause, jobs.resume, jobs.resume, jobs.cancel]))
    def ask(self, data: Any, verb: Callable[..., None]) -> None:
        name = data.draw(st.sampled_from(sorted(self.names)))
        try:
            self.write(verb, Ref("default", name))
        except Conflict:
            state = self.read(lambda tx: tx.jobs.state("default", name)).status
            assert state in (JobStatus.CANCELLING, JobStatus.PAUSING)

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.names)))
        self.write(jobs.delete, Ref("default", name))
        self.names.discard(name)
        self.final.pop(name, None)
        self.discarded.add(f"id-{name}")

    # -- what the house does ---------------------------------------------------------------------------------------

    @rule()
    def claim(self) -> None:
        self.write(scheduler.claim, DEVICES)

    @precondition(lambda self: self.discarded)
    @rule(data=st.data())
    def clear_away(self, data: Any) -> None:
        gone = data.draw(st.sampled_from(sorted(self.discarded)))
        self.write(supervisor.forget, gone)
        self.discarded.discard(gone)

    @rule(data=st.data())
    def stop_and_start_the_server(self, data: Any) -> None:
        if data.draw(st.booleans()):
            self.write(jobs.pause_all)
        self.write(jobs.resume_stopped)

    # -- what engines do -------------------------------------------------------------------------------------------

    @rule(data=st.data())
    def rows_are_prepared(self, data: Any) -> None:
        if job := self.some(data, Phase.PREPARING):
            self.say(job, ROWS)
            self.write(supervisor.queue, job.id)

    @rule(data=st.data(), with_checkpoint=st.booleans())
    def a_step_is_done(self, data: Any, with_checkpoint: bool) -> None:
        if job := self.some(data, Phase.TRAINING):
            step = int(job.status_details.get("step") or 0) + 1
            saved = [CheckpointSaved(step=step, epoch=1, path="c")] if with_checkpoint else []
            self.say(job, STARTED, progress(step), *saved)

    @rule(data=st.data())
    def the_trainer_is_through(self, data: Any) -> None:
        if job := self.some(data, Phase.TRAINING):
            self.write(registration.register, job.id, FINISHED)

    @rule(data=st.data(), stopping=st.booleans())
    def the_trainer_hears_a_wish(self, data: Any, stopping: bool) -> None:
        told = [
            job
            for job in self.read(lambda tx: tx.jobs.in_phase(Phase.TRAINING))
            if job.status in (JobStatus.PAUSING, JobStatus.CANCELLING)
        ]
        if told:
            job = data.draw(st.sampled_from(told))
            wish = "pause" if job.status == JobStatus.PAUSING else "cancel"
            self.say(job, Stopped(step=1, wish=wish))
            if wish == "pause":
                self.write(attempts.rest, job.id, stopping)
            else:
                self.write(registration.end, job.id, JobStatus.CANCELLED)

    @rule(data=st.data(), stopping=st.booleans())
    def a_process_dies(self, data: Any, stopping: bool) -> None:
        job = self.some(data, Phase.PREPARING, Phase.TRAINING)
        if job is None:
            return
        if job.phase == Phase.TRAINING and job.status == JobStatus.PAUSING:
            self.write(attempts.rest, job.id, stopping, "killed")
            return
        if job.phase == Phase.TRAINING and self.write(attempts.try_again, job.id, "killed"):
            after = self.read(lambda tx: tx.jobs.by_id(job.id))
            assert after.attempt == job.attempt + 1
            assert after.attempt_step > job.attempt_step, "only after progress"
            return
        cancelled = job.status == JobStatus.CANCELLING
        self.write(registration.end, job.id, JobStatus.CANCELLED if cancelled else JobStatus.ERROR)

    def say(self, job: Any, *events: Event) -> None:
        behind = job.events_offset + 1
        self.write(supervisor.apply, job.id, job.events_offset, events, behind)

    # -- what always holds -----------------------------------------------------------------------------------------

    @invariant()
    def none_is_lost_and_phase_and_status_agree(self) -> None:
        if not hasattr(self, "database"):
            return
        found = self.read(lambda tx: tx.jobs.in_phase(*Phase))
        assert {job.ref.name for job in found} == self.names
        for job in found:
            assert job.status in AGREES[job.phase], (job.ref.name, job.phase, job.status)

    @invariant()
    def an_end_stays(self) -> None:
        if not hasattr(self, "database"):
            return
        for job in self.read(lambda tx: tx.jobs.in_phase(Phase.DONE)):
            assert self.final.setdefault(job.ref.name, job.status) == job.status
            made = self.read(lambda tx, job=job: tx.adapters.find_row("default", job.output.name)) is not None
            assert made == (job.status == JobStatus.COMPLETED)

    @invariant()
    def who_trains_has_its_device_and_nobody_else_has_any(self) -> None:
        if not hasattr(self, "database"):
            return
        training = {job.id for job in self.read(lambda tx: tx.jobs.in_phase(Phase.TRAINING))}
        held = {}
        for device in DEVICES:
            for holder in self.read(
                lambda tx, d=device: [h for h in training | self.discarded if d in tx.leases.of(h)]
            ):
                held.setdefault(device, []).append(holder)
        assert all(len(holders) == 1 for holders in held.values())
        holders = [holder for each in held.values() for holder in each]
        assert training <= set(holders)
        free = self.read(lambda tx: tx.leases.free(DEVICES))
        assert len(free) + len(holders) == len(DEVICES), "a device is held by nobody who may"


TestJobs = Jobs.TestCase
TestJobs.settings = settings(
    max_examples=20, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
