"""What a database has to be able to do, and what both have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")


class Backend(Protocol):
    """SQLite or PostgreSQL."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, in a transaction of one snapshot."""
        ...

    async def search(self, work: Callable[[Connection], T]) -> T:
        """As `read`, beside the event loop however short it is."""
        ...

    async def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, after its commit; its exception, after its rollback."""
        ...

    def close(self) -> None:
        """Finish what waits, then close."""
        ...


def as_json(value: Any) -> str:
    """For a JSON column. Letters stay letters: SQLite compares an object's keys as they are written."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 does not have
        return json.dumps(value)
    return text
