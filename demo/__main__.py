"""The demonstration, `make demo`: teaches a small model to triage support mail, and shows that it learned.

It starts a platform of its own, does what a user would do with the SDK, and leaves nothing behind. DEMO_DIR=some/dir
keeps what the platform wrote; MODEL=some/checkpoint takes another base than the one that is downloaded.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from demo import exam, platform
from demo.base import BaseModelError, default_cache, prepare_base
from tunesmith import Tunesmith
from tunesmith.api.jobs import JobStatus
from tunesmith.cli.watch import failure_of, watch
from tunesmith.errors import TunesmithError

BASE = "smollm2-135m-instruct"
DATASET = "triage-mail"
ADAPTER = "triage"
JOB = "learn-triage"
SERVE_SECONDS = 180
ADAPTERS_SECONDS = 30

SPEC = {
    "model": f"default/{BASE}",
    "dataset": {"training": f"default/{DATASET}"},
    "training": {"lora": {"rank": 16, "alpha": 32}, "max_seq_length": 512},
    "schedule": {"epochs": 2},
    "batch": {"global_batch_size": 8, "micro_batch_size": 8},
    "optimizer": {"learning_rate": 1e-3, "optimizer": "AdamW", "warmup_steps": 5, "weight_decay": 0.0},
    "output": {"name": ADAPTER},
}

console = Console(highlight=False)
times: dict[str, float] = {}


def main() -> int:
    """0 if the model learned what it should, 1 if not."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with stage("get the base model"):
            checkpoint = prepare_base(default_cache())
            console.print(f"  {checkpoint}")
        with workplace() as folder:
            results = demonstrate(folder, checkpoint)
    except KeyboardInterrupt:
        console.print("\nstopped; nothing is left running")
        return 130
    except (TunesmithError, BaseModelError, platform.PlatformError) as error:
        console.print(f"\n[red]{type(error).__name__}[/]")
        console.print(str(error), markup=False)
        return 1
    return verdict(results)


def demonstrate(folder: Path, checkpoint: Path) -> list[exam.Result]:
    """The whole way: data in, a model that answers out."""
    with ExitStack() as until_the_end:
        with stage("start the platform"):
            client = until_the_end.enter_context(platform.running(folder))
        with stage("bring in the model and the data"):
            bring_in(client, checkpoint)
        with stage("train an adapter"):
            train(client)
        with stage("serve the base with its adapter"):
            serve(client)
        with stage("ask both what they have not seen"), console.status("asking") as busy:
            results = exam.examine(
                client,
                f"default/{BASE}",
                f"default/{ADAPTER}",
                told=lambda done, total: busy.update(f"asking: {done} of {total} answered"),
            )
        with stage("stop serving"):
            client.inference.deployments.delete(BASE)
            client.inference.deployments.wait(BASE, until="DELETED")
        with stage("stop the platform"):
            until_the_end.close()
    return results


def bring_in(client: Tunesmith, checkpoint: Path) -> None:
    """The rows as a data set, the checkpoint as a model."""
    client.files.filesets.create(DATASET, purpose="dataset")
    for name in ("train.jsonl", "validation.jsonl"):
        client.files.upload(exam.DATA / name, fileset=DATASET)
    client.files.filesets.create(BASE, purpose="model")
    with console.status("uploading") as busy:
        client.files.upload(
            f"{checkpoint}/",
            fileset=BASE,
            progress=lambda done, total: busy.update(f"uploading: {done / 1e6:.0f} of {total / 1e6:.0f} MB"),
        )
    model = client.models.create(BASE, fileset=BASE)
    if model.spec:
        console.print(f"  {model.name}: {model.spec.family}, {model.spec.base_num_parameters:,} parameters")


def train(client: Tunesmith) -> None:
    """Submit the job and follow it; TunesmithError with its own words if it fails."""
    job = client.customization.automodel.jobs.create(name=JOB, spec=SPEC)
    state = watch(client, job.name, console=console)
    if state.status is not JobStatus.COMPLETED:
        raise TunesmithError(f"{failure_of(state)}\n{last_lines(client, job.name)}")
    adapter = client.adapters.retrieve(ADAPTER)
    console.print(f"  adapter {adapter.workspace}/{adapter.name} of {adapter.model}")


def last_lines(client: Tunesmith, job: str, count: int = 15) -> str:
    """The end of a job's log."""
    return "\n".join([line.message for line in client.jobs.get_logs(job, limit=1000).data][-count:])


def serve(client: Tunesmith) -> None:
    """Deploy the base with its adapters, and wait until both answer to their names."""
    client.inference.deployment_configs.create(
        BASE,
        model_spec={"model_namespace": "default", "model_name": BASE, "lora_enabled": True},
        executor_config={"gpu": 1},
    )
    client.inference.deployments.create(BASE, config=BASE)
    with console.status("starting the model's server") as busy:
        client.inference.deployments.wait(
            BASE, timeout=SERVE_SECONDS, on_status=lambda now: busy.update(f"{now.status}: {now.status_message}")
        )
        deadline = time.monotonic() + ADAPTERS_SECONDS
        while f"default/{ADAPTER}" not in served(client):
            if time.monotonic() > deadline:
                said = client.inference.deployments.retrieve(BASE).status_message
                raise platform.PlatformError(f"no adapter {ADAPTERS_SECONDS} s after its base was served: {said}")
            time.sleep(0.2)
    console.print(f"  {', '.join(served(client))}")
    console.print(f"  at {client.models.get_openai_route_base_url()}", soft_wrap=True)


def served(client: Tunesmith) -> list[str]:
    """Models and adapters that the gateway answers for."""
    return [model["id"] for model in client.inference.gateway.openai.get("v1/models")["data"]]


def verdict(results: list[exam.Result]) -> int:
    """Show what was learned and what it took."""
    exam.print_answers(console, results[-1])
    console.print()
    exam.print_scores(console, results)
    table = Table(title="What it took", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, seconds in times.items():
        table.add_row(name, f"{seconds:.1f} s")
    table.add_row("[bold]in all", f"[bold]{sum(times.values()):.1f} s")
    console.print(table)
    if missed := exam.shortcomings(results):
        for sentence in missed:
            console.print(f"[red]missed[/] {sentence}", soft_wrap=True)
        return 1
    console.print("[green]The adapter does what the base cannot.[/] Nothing is left running.")
    return 0


@contextmanager
def workplace() -> Iterator[Path]:
    """A directory for the platform, removed at the end unless DEMO_DIR asks to keep it.

    Whatever still works in it is ended. After a demonstration that went well, that is a PlatformError.
    """
    keep = os.environ.get("DEMO_DIR")
    if keep:
        Path(keep).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-demo-", dir=keep)).resolve()
    try:
        yield folder
        if stayed := platform.left_over(folder):
            raise platform.PlatformError("still running after the platform had stopped:\n" + "\n".join(stayed))
    finally:
        platform.end_left_over(folder)
        if keep:
            console.print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def stage(title: str) -> Iterator[None]:
    """Says what is being done, and remembers how long it took."""
    console.print(f"[bold]{title}[/]")
    begun = time.monotonic()
    try:
        yield
    finally:
        times[title] = time.monotonic() - begun


if __name__ == "__main__":
    sys.exit(main())
