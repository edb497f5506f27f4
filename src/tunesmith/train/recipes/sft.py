"""Supervised fine-tuning: learn the rows, by cross-entropy on the tokens that are trained on."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from tunesmith.data.schedule import epoch_of
from tunesmith.data.store import Rows
from tunesmith.data.tokens import Tokenizer
from tunesmith.handoff.base import Compute, Stored
from tunesmith.handoff.crash import crash_at
from tunesmith.handoff.events import Finished, Reason, Started, Stopped, Warned
from tunesmith.handoff.inputs import MODEL
from tunesmith.handoff.wish import read_wish
from tunesmith.model.attention import attend_by_rows
from tunesmith.model.head import Head, check, hidden_states
from tunesmith.model.load import load_model, resolve_compute
from tunesmith.model.sharing import layout_of, longest_shared
from tunesmith.train.batches import Layout, Pass
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.export import export, next_token, probe_prompt, stored_as
from tunesmith.train.gauge import Gauge
from tunesmith.train.job import Job, Method
from tunesmith.train.loop import fit, put_chosen
from tunesmith.train.losses import summed_cross_entropy
from tunesmith.train.optim import Optimizer
from tunesmith.train.provenance import provenance
from tunesmith.train.rehearsal import check_room
from tunesmith.train.samples import Sampler
from tunesmith.train.student import Student, student_of


def sft(job: Job) -> None:
    """Train on the prepared rows and export the chosen weights; says everything through the job's log."""
    plan, prepared = job.plan, job.prepared
    checkpoints = Checkpoints(job.run, plan, prepared)
    start = checkpoints.take_up(lambda message: job.log(Warned(message=message)))
    if wish := read_wish(job.run):
        job.log(Stopped(step=start.step, wish=wish.wish))
        return
    compute = resolve_compute(plan.model.compute, job.device)
    model = load_model(job.run / MODEL, compute, plan.model.attention, job.device)
    attend_by_rows(model, plan.model.attention)
    head_of_base = Head.of(model)
    validation = Rows(job.run, prepared.validation)
    asked = probe_prompt(validation if len(validation) else Rows(job.run, prepared.training))
    check(model, head_of_base, torch.tensor(asked, device=job.device))
    base_V = next_token(model, head_of_base, asked)
    flat = layout_of(model) == "flat"
    check_room(model, plan, job.device)
    student = student_of(model, plan)
    head = Head.of(model)  # which may be trained itself now

    def loss(part: Pass) -> Tensor:
        hidden_BTH = hidden_states(model, part.ids_BT, part.bounds)
        smoothing = plan.objective.label_smoothing if student.learning else 0.0
        return summed_cross_entropy(hidden_BTH.flatten(0, 1)[part.places_N], part.targets_N, head, smoothing)

    method = Method(
        student=student,
        loss=loss,
        optimizer=Optimizer(student.parameters(), plan.optimizer, prepared.steps),
        layout=Layout(
            tokens_per_pass=plan.schedule.tokens_per_pass,
            device=job.device,
            flat=flat,
            longest_shared=longest_shared(model),
            hands=1 if student.in_place else job.crew.size,
        ),
        gauge=Gauge(model, student.parameters().values(), head, job.device),
        ask=Sampler(model, Tokenizer.load(job.run / MODEL), validation, job.device) if len(validation) else None,
        scaled=compute == "fp16",
    )
    stored = stored_as(job)
    job.log(_started(job, student, compute, stored, start.step))
    end = fit(job, method, checkpoints, start)
    if end is None:
        return
    step = put_chosen(job, method, checkpoints, end)
    best = plan.result.step == "best" and step == end.best_step
    reason: Reason = "lowest_validation_loss" if best else "last"
    made = provenance(job, compute, stored, step, reason, end)
    files = export(job, method, asked, base_V, made)
    crash_at("finished-unsaid")
    job.log(Finished(step=end.step, exported_step=step, reason=reason, files=files))


def _started(job: Job, student: Student, compute: Compute, stored: Stored, from_step: int) -> Started:
    return Started(
        steps=job.prepared.steps,
        epochs=epoch_of(job.prepared.steps, job.prepared.steps_per_epoch),
        device=str(job.device),
        compute=compute,
        threads=torch.get_num_threads(),
        trained_parameters=sum(weight.numel() for weight in student.parameters().values()),
        adapted_modules=student.adapted_modules,
        stored_as=stored,
        from_step=from_step,
        request_id=os.environ.get("TUNESMITH_REQUEST_ID", ""),
    )
