"""The doors that are not a dialect's own: what they send, as the spec of a dialect, before anything is validated.

Pure `dict -> dict`. What cannot be said in the dialect is refused (Invalid names the door's field), never dropped.
"""

from __future__ import annotations

from tunesmith.spec.legacy import legacy
from tunesmith.spec.shorthand import shorthand
from tunesmith.spec.translation import Translated

__all__ = ["Translated", "legacy", "shorthand"]
