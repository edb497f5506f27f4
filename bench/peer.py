"""Makes `.venv-peer`: TRL as its users install it, for bench/train.py; does nothing when it is there.

Versions are ours (constraints.txt) and torch comes from where ours came, so that the trainers differ and nothing else.
An environment of its own (1.5 GB, a minute and a half) cannot be helped or hurt by what we install beside torch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from scripts.setup import ROOT, Environment, Stamp, install_torch, pinned

FOLDER = ".venv-peer"
PACKAGES = ("trl", "peft")


def peer_python() -> Path:
    """The interpreter that has TRL. SystemExit with pip's last lines when it cannot be installed."""
    constraints = ROOT / "constraints.txt"
    inputs = hashlib.sha256("\0".join((*PACKAGES, constraints.read_text())).encode()).hexdigest()
    ours, peer = Environment(ROOT).stamp(), Environment(ROOT, FOLDER)
    index, there = ours.torch_index if ours else None, peer.stamp()
    if there and there.current(inputs, ROOT, index) and not peer.unusable(None):
        return peer.python
    print(f"Setting up {peer.folder}, the peer's environment", flush=True)
    peer.make(None)
    install_torch(peer, pinned(constraints.read_text(), "torch"), index, bool(there) and there.torch_index != index)
    peer.pip("trl and what it needs", "--constraint", str(constraints), *PACKAGES)
    peer.finish(Stamp(inputs, str(ROOT), index))
    return peer.python


if __name__ == "__main__":
    print(peer_python())
