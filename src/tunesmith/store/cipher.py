"""Values that must not lie on disk in clear: AES-256-GCM, and the keys for it.

The keys come from the environment, or from a file in the data directory with one key a line, the newest first. The
newest encrypts; the others are there to read what they encrypted, until a rotation has been through all of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tunesmith.errors import Conflict, ServerStartError

KEY_FILE = "secret.key"
KEY_BYTES = 32
NONCE_BYTES = 12
"""In front of each ciphertext; random, as GCM's 96 bits allow for some billions of values under one key."""
PRIVATE = 0o600
OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class Key:
    """32 bytes that encrypt, and the name they go by."""

    value: bytes = field(repr=False)
    id: str
    """The first 16 hexadecimal digits of the key's sha256: tells keys apart and tells nothing about them."""

    @classmethod
    def of(cls, value: bytes) -> Self:
        """The key of these 32 bytes."""
        return cls(value, hashlib.sha256(value).hexdigest()[:16])

    @classmethod
    def new(cls) -> Self:
        """A random key."""
        return cls.of(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """A key in base64; ServerStartError names `where` it came from, never what it was."""
        try:
            value = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            value = b""
        if len(value) != KEY_BYTES:
            raise ServerStartError(
                f"{where} does not hold a key: it must be {KEY_BYTES} bytes in base64, as "
                f"`openssl rand -base64 {KEY_BYTES}` prints them"
            )
        return cls.of(value)

    def text(self) -> str:
        """The key in base64."""
        return base64.b64encode(self.value).decode("ascii")


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The key that encrypts, and those that can still be read."""

    newest: Key
    older: tuple[Key, ...] = ()

    @property
    def ids(self) -> frozenset[str]:
        """Of all keys at hand."""
        return frozenset(key.id for key in (self.newest, *self.older))

    def encrypt(self, value: str, bound_to: str) -> tuple[bytes, str]:
        """Nonce and ciphertext of a text, and the id of the key; it decrypts only beside the same `bound_to`."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(self.newest.value).encrypt(nonce, value.encode("utf-8"), bound_to.encode("utf-8"))
        return nonce + sealed, self.newest.id

    def decrypt(self, sealed: bytes, key_id: str, bound_to: str) -> str:
        """The text. Conflict when its key is not at hand, or when the bytes are not what was stored for `bound_to`."""
        key = next((each for each in (self.newest, *self.older) if each.id == key_id), None)
        if key is None:
            raise Conflict(
                f"it is encrypted with key {key_id}, which this server does not have: start it with that key in "
                f"TUNESMITH_SECRET_KEY_OLD, or set the value again"
            )
        try:
            value = AESGCM(key.value).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to.encode("utf-8"))
        except InvalidTag:
            raise Conflict("what is stored for it was changed outside this server; set the value again") from None
        return value.decode("utf-8")


class KeyFile:
    """The file that holds the keys, readable by its owner alone and replaced as a whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> KeyRing:
        """Its keys, with a first one made where there is no file; ServerStartError when others can read it."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            ring = KeyRing(Key.new())
            self.write(ring)
            return ring
        except OSError as error:
            raise ServerStartError(f"the key file {self.path} cannot be read: {error.strerror}") from None
        with os.fdopen(handle, encoding="ascii", errors="replace") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & OTHERS:
                raise ServerStartError(
                    f"the key file {self.path} can be read by others (mode {mode:o}); run `chmod 600 {self.path}`, "
                    "and rotate the keys if anybody may have read it"
                )
            lines = [line for line in file.read().splitlines() if line.strip()]
        if not lines:
            raise ServerStartError(f"the key file {self.path} is empty; put it back from a backup")
        keys = [Key.parse(line, f"line {number} of {self.path}") for number, line in enumerate(lines, 1)]
        return KeyRing(keys[0], tuple(keys[1:]))

    def write(self, ring: KeyRing) -> None:
        """Replace the file; on disk when this returns."""
        fresh = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.writelines(f"{key.text()}\n" for key in (ring.newest, *ring.older))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        finally:
            fresh.unlink(missing_ok=True)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
