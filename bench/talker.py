"""The trainer of bench/jobs.py: says what it is told to, so often as it is told to, and ends well. No torch.

`talk.json` in the training fileset: `{"steps": 100, "per_second": 20}`. `python -m bench.talker up ...` is the platform
with this trainer in torch's place.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

from tunesmith.handoff.events import ArtifactFile, EventLog, Finished, Progress, Started, Stopped, events_path
from tunesmith.handoff.wish import read_wish


def train(run: Path) -> int:
    """Exit status 0, by `finished` or by `stopped`."""
    say = EventLog(events_path(run, int(os.environ["TUNESMITH_ATTEMPT"])))
    told = run / "inputs" / "data" / "talk.json"
    asked = json.loads(told.read_text()) if told.exists() else {"steps": 1, "per_second": 0}
    facts = {"device": "cpu", "compute": "fp32", "threads": 1, "trained_parameters": 1, "adapted_modules": 1}
    say(Started(steps=asked["steps"], epochs=1, **facts))
    began = time.monotonic()
    for step in range(1, asked["steps"] + 1):
        if asked["per_second"]:
            time.sleep(max(0.0, began + step / asked["per_second"] - time.monotonic()))
            if wish := read_wish(run):
                say(Stopped(step=step, wish=wish.wish))
                return 0
        seconds = time.monotonic() - began
        numbers = {"loss": 1 / step, "learning_rate": 0.1, "grad_norm": 1.0, "tokens": step, "seconds": seconds}
        say(Progress(step=step, epoch=1, **numbers))
    artifact = run / "artifact"
    artifact.mkdir(exist_ok=True)
    content = run.name.encode()
    (artifact / "adapter_model.safetensors").write_bytes(content)
    file = ArtifactFile(path="adapter_model.safetensors", digest=hashlib.sha256(content).hexdigest(), size=len(content))
    say(Finished(step=asked["steps"], exported_step=asked["steps"], reason="last", files=(file,)))
    return 0


def platform() -> None:
    """The platform, whose jobs are trained by this file."""
    from tunesmith.cli.main import main
    from tunesmith.control import runs
    from tunesmith.store.jobs import Phase

    runs.MODULES[Phase.TRAINING] = "bench.talker"
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    main()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit(train(Path(sys.argv[1])))
    platform()
