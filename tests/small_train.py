"""A small, deterministic trainer for tests of the platform: reads a real plan, writes real events, needs no torch.

It keeps a tiny checkpoint of each step, hears wishes and goes on where an earlier attempt was, like the real one. What
else it does is said by `behaviour.txt` in the training fileset:

    finish           (the default)
    slow             takes its time over each step
    hang             waits after each step until there is a wish
    hang-once        does so in the first attempt
    load-once        waits for its end in the first attempt, before it has said a word or listens to signals
    deaf-once        hears no wish after the first attempt's second step, and neither saves it nor ends
    fail             fails in step 1
    die              is killed in each attempt's first step, before its checkpoint: never gets anywhere
    die-once         is killed behind the first attempt's first checkpoint
    die-each-time    is killed behind each attempt's first checkpoint
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from tunesmith.handoff.base import write_atomically
from tunesmith.handoff.crash import crash_at
from tunesmith.handoff.events import (
    ArtifactFile,
    CheckpointSaved,
    EventLog,
    Failed,
    Finished,
    Progress,
    Started,
    Stopped,
    Validated,
    events_path,
)
from tunesmith.handoff.plan import Plan
from tunesmith.handoff.prepared import Prepared
from tunesmith.handoff.wish import read_wish


def main() -> int:
    run, attempt = Path(sys.argv[1]), int(os.environ["TUNESMITH_ATTEMPT"])
    plan, prepared = Plan.read(run / "plan.json"), Prepared.read(run / "data.json")
    say = EventLog(events_path(run, attempt))
    behaviour = run / "inputs" / "data" / "behaviour.txt"
    wanted = behaviour.read_text().strip() if behaviour.exists() else "finish"
    if wanted == "load-once" and attempt == 1:
        time.sleep(600)
    signal.signal(signal.SIGTERM, lambda *_: None)
    done = last_step(run)
    if os.environ.get("WANDB_API_KEY"):
        sys.stdout.write("WANDB_API_KEY is set\n")
    say(
        Started(
            steps=prepared.steps,
            epochs=1,
            device="cpu",
            compute="fp32",
            threads=1,
            trained_parameters=1,
            adapted_modules=len(plan.adapter.modules) if plan.adapter else 0,
            from_step=done,
            request_id=os.environ["TUNESMITH_REQUEST_ID"],
        )
    )
    if stopped(run, say, done):
        return 0
    for step in range(done + 1, prepared.steps + 1):
        if wanted == "slow":
            time.sleep(0.05)
        say(
            Progress(
                step=step,
                epoch=1,
                loss=1 / step,
                learning_rate=0.1,
                grad_norm=1.0,
                tokens=10 * step,
                seconds=0.5 * step,
            )
        )
        crash_at("step-done")
        if wanted == "fail":
            say(Failed(type="CudaError", message="out of luck at step 1", detail="Traceback ..."))
            return 1
        if wanted == "die":
            die()
        while wanted == "deaf-once" and attempt == 1 and step == 2:
            time.sleep(0.01)
        save(run, say, step)
        if wanted == "die-each-time" or (wanted == "die-once" and attempt == 1):
            die()
        while (wanted == "hang" or (wanted == "hang-once" and attempt == 1)) and not read_wish(run):
            time.sleep(0.01)
        if stopped(run, say, step):
            return 0
    say(Validated(step=prepared.steps, epoch=1, loss=0.5))
    files = export(run, plan)
    crash_at("finished-unsaid")
    say(Finished(step=prepared.steps, exported_step=prepared.steps, reason="last", files=files))
    return 0


def last_step(run: Path) -> int:
    """The newest checkpoint's step, 0 without one."""
    return max((int(path.stem.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*.json")), default=0)


def save(run: Path, say: EventLog, step: int) -> None:
    path = run / "checkpoints" / f"step-{step:06d}.json"
    path.parent.mkdir(exist_ok=True)
    crash_at("checkpoint-half-written")
    write_atomically(path, b"{}")
    say(CheckpointSaved(step=step, epoch=1, path=str(path.relative_to(run))))


def stopped(run: Path, say: EventLog, step: int) -> bool:
    """Whether there is a wish; says so. Each step has its checkpoint already."""
    wish = read_wish(run)
    if wish:
        say(Stopped(step=step, wish=wish.wish))
    return wish is not None


def die() -> None:
    sys.stderr.write("a last word\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def export(run: Path, plan: Plan) -> tuple[ArtifactFile, ...]:
    artifact = run / "artifact"
    artifact.mkdir(exist_ok=True)
    files = []
    if plan.result.form == "model":
        made = {path.name: path.read_bytes() for path in sorted((run / "inputs" / "model").iterdir())}
        made |= {"README.md": b"# A model", "provenance.json": b"{}", "tunesmith_probe.json": b"{}"}
    else:
        made = {
            "adapter_config.json": json.dumps({"r": plan.adapter.rank}).encode(),
            "adapter_model.safetensors": plan.run.encode(),
        }
    for name, content in made.items():
        write_atomically(artifact / name, content)
        crash_at("artifact-half-written")
        files.append(ArtifactFile(path=name, digest=hashlib.sha256(content).hexdigest(), size=len(content)))
    return tuple(files)


if __name__ == "__main__":
    sys.exit(main())
