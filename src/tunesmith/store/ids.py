"""Ids, auto-made names and the clock of stored rows."""

from __future__ import annotations

import re
import secrets
import uuid
from datetime import UTC, datetime

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_NOT_SLUG = re.compile(r"[^A-Za-z0-9_-]")
SLUG_LIMIT = 50


def new_id(kind: str) -> str:
    """`{kind}-{base58 of a random 128-bit number}`, contract 1.5; opaque to clients."""
    number, digits = uuid.uuid4().int, ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return f"{kind}-{digits}"


def hexadecimal(length: int) -> str:
    """Random lower-case hexadecimal digits."""
    return secrets.token_hex((length + 1) // 2)[:length]


def slug(text: str) -> str:
    """`text` with everything but letters, digits, _ and - replaced by -."""
    return _NOT_SLUG.sub("-", text)[:SLUG_LIMIT]


def now() -> datetime:
    """Naive UTC, as the wire writes timestamps."""
    return datetime.now(UTC).replace(tzinfo=None)
