"""What `tunesmith.data` counted: written as `data.json` beside the memory-mapped rows, read by the trainer."""

from __future__ import annotations

from tunesmith.handoff.base import Handed, HandedFile

PREPARED_FILE = "data.json"


class RowSet(Handed):
    """One split of the rows, in files under `data/`.

    `ids` is a flat little-endian int32 array of all rows' tokens; `mask` a flat uint8 array of the same length, 1 where
    the token is trained on; `offsets` little-endian int64, rows + 1 values: row i is ids[offsets[i]:offsets[i + 1]].
    """

    rows: int
    tokens: int
    trained_tokens: int
    """Tokens that a loss is taken on."""
    longest: int
    """Tokens of the longest row."""
    ids: str
    mask: str
    offsets: str
    places: str = ""
    """File of little-endian int32 pairs, one for each row: which of `Prepared.files` it stands in, and on which line
    (1-based; negative: the item of a file that is one JSON array). "" where nobody wrote it down."""
    digests: str = ""
    """File of 16 bytes for each row: BLAKE2b of its line without the white space around it; of an item, of its JSON
    with sorted keys and nothing between the tokens. "" where nobody wrote it down."""


class Packs(Handed):
    """The training rows put into sequences of at most `sequence_limit` tokens: what a step counts when rows are packed.

    `rows` is a flat little-endian int32 array of row numbers, each once; pack i is rows[offsets[i]:offsets[i + 1]],
    with `offsets` as in RowSet.
    """

    packs: int
    per_step: int
    """Packs of one optimizer step: as many as hold `rows_per_step` rows on average, at least one."""
    rows: str
    offsets: str


class Prepared(HandedFile):
    """The rows of a run, counted."""

    training: RowSet
    validation: RowSet
    """Has 0 rows when there is nothing to validate on."""
    files: tuple[str, ...] = ()
    """The data files, as the user knows them; `RowSet.places` points here."""
    packs: Packs | None = None
    """None without packing."""
    truncated_rows: int
    """Rows that lost tokens to the sequence limit."""
    dropped_rows: int
    """Rows without a single trained token after truncation."""
    steps_per_epoch: int
    steps: int
    """Optimizer steps of the whole run."""
    validate_at: tuple[int, ...]
    """The steps after which a validation runs, ascending; the last one is `steps`. Empty without validation rows."""
