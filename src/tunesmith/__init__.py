"""Tunesmith: your data and a base model in, a model that answers out.

``from tunesmith import Tunesmith`` is the SDK. Names load on first use (PEP 562), so importing the package costs
nothing and engine processes, which are started as ``python -m tunesmith.<room>``, never load the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.client.aio.client import AsyncTunesmith
    from tunesmith.client.sync.client import Tunesmith

__version__ = "0.1.0"
__all__ = ["AsyncTunesmith", "Tunesmith", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Tunesmith":
        from tunesmith.client.sync.client import Tunesmith

        return Tunesmith
    if name == "AsyncTunesmith":
        from tunesmith.client.aio.client import AsyncTunesmith

        return AsyncTunesmith
    raise AttributeError(f"module 'tunesmith' has no attribute '{name}'")
