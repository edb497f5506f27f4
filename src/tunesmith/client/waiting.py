"""The few places where the two clients wait in different ways, in pairs: `async_x` for one, `x` for the other.

scripts/unasync.py puts the second of each pair in place of the first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

AsyncSleep = Callable[[float], Awaitable[None]]
Sleep = Callable[[float], None]


async def async_sleep(seconds: float) -> None:
    """Wait."""
    await asyncio.sleep(seconds)


def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


async def async_each(limit: int, work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """`work` on each item, at most `limit` at a time; the first failure cancels the rest and is raised."""
    gate = asyncio.Semaphore(limit)

    async def one(item: T) -> None:
        async with gate:
            await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def each(limit: int, work: Callable[[T], None], items: Iterable[T]) -> None:
    """`work` on each item, at most `limit` at a time; the first failure drops those not begun and is raised."""
    pool = ThreadPoolExecutor(limit, thread_name_prefix="tunesmith")
    try:
        for done in [pool.submit(work, item) for item in items]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)


async def async_drawn(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """`chunks`, each read in a thread."""
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


def drawn(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """`chunks`."""
    return chunks
