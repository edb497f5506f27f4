"""Supervised fine-tuning: learn the rows, by cross-entropy on the tokens that are trained on."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from tunesmith.data.store import Rows
from tunesmith.handoff.events import Finished, Started
from tunesmith.model.attention import prefer_short_rows
from tunesmith.model.head import Head, check, hidden_states
from tunesmith.model.load import load_model, resolve_compute
from tunesmith.model.lora import Noise, adapt, set_weights, weights_of
from tunesmith.model.norms import write_out_norms
from tunesmith.model.peft_files import read_adapter
from tunesmith.train.batches import Pass
from tunesmith.train.checkpoint import step_directory
from tunesmith.train.export import export, next_token, probe, probe_prompt
from tunesmith.train.loop import Job, Student, fit
from tunesmith.train.losses import summed_cross_entropy

MODEL = Path("inputs", "model")


def sft(job: Job) -> None:
    """Train adapters on the prepared rows and export the best of them; says everything through the job's log."""
    plan, prepared = job.plan, job.prepared
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
            request_id=os.environ.get("TUNESMITH_REQUEST_ID", ""),
        )
    )
    end = fit(job, student, loss)
    if end is None:
        return
    step = end.best_step or end.step
    if step != end.step:
        set_weights(student.adapters, read_adapter(step_directory(job.run, step)))
    weights = weights_of(student.adapters, plan.adapter, plan.model.name)
    trained_V = next_token(model, head, asked)
    files = export(job.run, weights, names, probe(asked, compute, trained_V, base_V))
    reason = "lowest_validation_loss" if end.best_step else "last"
    job.log(Finished(step=end.step, exported_step=step, reason=reason, files=files))
