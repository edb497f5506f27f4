"""A small, deterministic trainer for tests of the platform: reads a real plan, writes real events, needs no torch.

What it does is said by `behaviour.txt` in the training fileset: `finish` (the default), `fail`, `die`, `hang`, `slow`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from tunesmith.handoff.events import (
    ArtifactFile,
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
    run = Path(sys.argv[1])
    plan, prepared = Plan.read(run / "plan.json"), Prepared.read(run / "data.json")
    say = EventLog(events_path(run, int(os.environ["TUNESMITH_ATTEMPT"])))
    behaviour = run / "inputs" / "data" / "behaviour.txt"
    wanted = behaviour.read_text().strip() if behaviour.exists() else "finish"
    signal.signal(signal.SIGTERM, lambda *_: None)
    say(
        Started(
            steps=prepared.steps,
            epochs=1,
            device="cpu",
            compute="fp32",
            threads=1,
            trained_parameters=1,
            adapted_modules=len(plan.adapter.modules),
            request_id=os.environ["TUNESMITH_REQUEST_ID"],
        )
    )
    for step in range(1, prepared.steps + 1):
        if wanted == "slow":
            time.sleep(0.05)
        if read_wish(run):
            say(Stopped(step=step, wish="cancel"))
            return 0
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
        if wanted == "fail":
            say(Failed(type="CudaError", message="out of luck at step 1", detail="Traceback ..."))
            return 1
        if wanted == "die":
            sys.stderr.write("a last word\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        while wanted == "hang" and not read_wish(run):
            time.sleep(0.01)
    say(Validated(step=prepared.steps, epoch=1, loss=0.5))
    artifact = run / "artifact"
    artifact.mkdir(exist_ok=True)
    files = []
    for name, content in (
        ("adapter_config.json", json.dumps({"r": plan.adapter.rank}).encode()),
        ("adapter_model.safetensors", plan.run.encode()),
    ):
        (artifact / name).write_bytes(content)
        files.append(ArtifactFile(path=name, digest=hashlib.sha256(content).hexdigest(), size=len(content)))
    say(Finished(step=prepared.steps, exported_step=prepared.steps, reason="last", files=tuple(files)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
