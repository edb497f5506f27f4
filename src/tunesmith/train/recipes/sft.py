"""Supervised fine-tuning: learn the rows, by cross-entropy on the tokens that are trained on."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from tunesmith.data.store import Rows
from tunesmith.handoff.crash import crash_at
from tunesmith.handoff.events import Finished, Started, Stopped, Warned
from tunesmith.handoff.wish import read_wish
from tunesmith.model.attention import prefer_short_rows
from tunesmith.model.head import Head, check, hidden_states
from tunesmith.model.load import load_model, resolve_compute
from tunesmith.model.lora import Noise, adapt, weights_of
from tunesmith.model.norms import write_out_norms
from tunesmith.train.batches import Pass
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.export import export, next_token, probe, probe_prompt
from tunesmith.train.loop import Job, Student, fit, put_best
from tunesmith.train.losses import summed_cross_entropy

MODEL = Path("inputs", "model")


def sft(job: Job) -> None:
    """Train adapters on the prepared rows and export the best of them; says everything through the job's log."""
    plan, prepared = job.plan, job.prepared
    checkpoints = Checkpoints(job.run, plan, prepared)
    start = checkpoints.take_up(lambda message: job.log(Warned(message=message)))
    if wish := read_wish(job.run):
        job.log(Stopped(step=start.step, wish=wish.wish))
        return
    compute = resolve_compute(plan.model.compute, job.device)
    model = load_model(job.run / MODEL, compute, plan.model.attention, job.device)
    if plan.model.attention == "sdpa" and job.device.type == "cpu":
        prefer_short_rows(model)
    write_out_norms(model)
    head = Head.of(model)
    asked = probe_prompt(Rows(job.run, prepared.validation if prepared.validation.rows else prepared.training))
    check(model, head, torch.tensor(asked, device=job.device))
    base_V = next_token(model, head, asked)
    names = [name for name, _ in model.named_modules()]
    noise = Noise(plan.schedule.seed)
    student = Student(model, adapt(model, plan.adapter, noise), names, noise)

    def loss(part: Pass) -> Tensor:
        hidden_BTH = hidden_states(model, part.ids_BT)
        return summed_cross_entropy(hidden_BTH.flatten(0, 1)[part.places_N], part.targets_N, head)

    job.log(
        Started(
            steps=prepared.steps,
            epochs=-(-prepared.steps // prepared.steps_per_epoch),
            device=str(job.device),
            compute=compute,
            threads=torch.get_num_threads(),
            trained_parameters=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
            adapted_modules=len(student.adapters),
            from_step=start.step,
            request_id=os.environ.get("TUNESMITH_REQUEST_ID", ""),
        )
    )
    end = fit(job, student, loss, checkpoints, start)
    if end is None:
        return
    step = put_best(job, student, checkpoints, end)
    weights = weights_of(student.adapters, plan.adapter, plan.model.name)
    trained_V = next_token(model, head, asked)
    files = export(job.run, weights, names, probe(asked, compute, trained_V, base_V))
    crash_at("finished-unsaid")
    reason = "lowest_validation_loss" if step == end.best_step else "last"
    job.log(Finished(step=end.step, exported_step=step, reason=reason, files=files))
