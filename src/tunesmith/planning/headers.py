"""The header of a safetensors file: which tensors it holds, of what type and shape.

Format: 8 bytes little-endian length n, then n bytes of JSON {name: {dtype, shape, data_offsets}}.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import Invalid

HEADER_LIMIT = 100 << 20
"""Bytes a safetensors header may have; the format's own limit."""

SIZE_LIMIT = 1 << 48
"""Elements a tensor may have, far above any that exists."""

RANK_LIMIT = 16
"""Dimensions a tensor may have."""

INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]


def read_header(head: bytes, name: str, size: int | None = None) -> dict[str, Tensor]:
    """The tensors that a safetensors file starting with `head` holds; Invalid when it is not one or `head` is short.

    With the whole file's `size` in bytes, also when the file ends before its last tensor does.
    """
    if len(head) < 8:
        raise Invalid(f"{name}: not a safetensors file (only {len(head)} bytes)")
    (length,) = struct.unpack("<Q", head[:8])
    if length > HEADER_LIMIT or len(head) < 8 + length:
        raise Invalid(f"{name}: not a safetensors file, or cut short (its header claims {length} bytes)")
    try:
        entries = json.loads(head[8 : 8 + length])
        found = {_name(key): _tensor(value) for key, value in entries.items() if key != "__metadata__"}
        end = 8 + length + max((entries[key]["data_offsets"][1] for key in found), default=0) if size else 0
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise Invalid(f"{name}: its safetensors header cannot be read ({str(error)[:200]})") from None
    if size and end > size:
        raise Invalid(f"{name}: cut short: its header speaks of {end:,} bytes, and it has {size:,}; upload it again")
    return found


def weight_files(paths: Collection[str], index: Mapping[str, Any] | None = None) -> list[str]:
    """The safetensors files at a checkpoint's root that make up the model, in order; [] when it has none.

    `index` is the content of model.safetensors.index.json. Without it, model.safetensors stands alone; else every file
    counts but `consolidated*`, which some repositories keep beside as a second copy. Invalid when the index is no index
    or names a file that is not there, or when files that call themselves parts have none.
    """
    if index is not None:
        files = index.get("weight_map")
        if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
            raise Invalid(f"{INDEX}: 'weight_map' must map the name of each tensor to its file")
        named = sorted(set(files.values()))
        gone = [file for file in named if file not in paths]
        if gone:
            raise Invalid(f"{INDEX}: 'weight_map' names {gone[0]}, which is not in the fileset; upload it too")
        return named
    if "model.safetensors" in paths:
        return ["model.safetensors"]
    found = sorted(path for path in paths if path.endswith(".safetensors") and "/" not in path)
    if part := next((path for path in found if _SHARD.search(path)), None):
        raise Invalid(
            f"{part} is a part of a checkpoint, and {INDEX}, which says what lies where, is missing; upload it"
        )
    return [path for path in found if not path.startswith("consolidated")] or found


def _name(key: str) -> str:
    key.encode()
    if "\0" in key:
        raise ValueError("a name with NUL")
    return key


def _tensor(entry: Any) -> Tensor:
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise ValueError("dtype must be text and shape a list")
    if len(shape) > RANK_LIMIT:
        raise ValueError(f"a shape of {len(shape)} dimensions")
    for length in shape:
        if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length <= SIZE_LIMIT:
            raise ValueError(f"a shape must be of whole numbers, not {str(length)[:80]}")
    return Tensor(dtype, tuple(shape))
