"""What may happen to secrets, and the vault from which the platform's own rooms take their values."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Collection, Mapping

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.secrets import CreateSecret, Rotation, Secret, UpdateSecret
from tunesmith.errors import Conflict, Forbidden, Invalid, NotFound
from tunesmith.refs import Ref
from tunesmith.settings import Settings
from tunesmith.store.cipher import KEY_FILE, Key, KeyFile, KeyRing
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database

log = logging.getLogger(__name__)

LARGEST_BYTES = 64 * 1024
REFERENCE = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)?")
"""`name` or `workspace/name`, contract 1.6: narrower than the names themselves."""


class Keys:
    """The keys in use. ServerStartError when those of the environment or of the file cannot be used."""

    def __init__(self, settings: Settings, data_dir: DataDir) -> None:
        old = (Key.parse(settings.secret_key_old, "TUNESMITH_SECRET_KEY_OLD"),) if settings.secret_key_old else ()
        self.file = None if settings.secret_key else KeyFile(data_dir.root / KEY_FILE)
        """None when the environment gives the key."""
        if self.file is None:
            self.ring = KeyRing(Key.parse(settings.secret_key, "TUNESMITH_SECRET_KEY"), old)
        else:
            held = self.file.open()
            self.ring = KeyRing(held.newest, (*held.older, *old))

    def add_newest(self, used: Collection[str]) -> None:
        """Encrypt with a new key from now on; of the present ones, those of these ids are kept beside it. Blocking."""
        assert self.file is not None
        ring = KeyRing(Key.new(), tuple(key for key in (self.ring.newest, *self.ring.older) if key.id in used))
        self.file.write(ring)
        self.ring = ring

    def drop_older(self) -> None:
        """Forget every key but the newest, once nothing is encrypted with them. Blocking."""
        ring = KeyRing(self.ring.newest)
        if self.file is not None:
            self.file.write(ring)
            self.ring = ring


class Vault:
    """Values of secrets, for the rooms that hand them to a process or to a remote storage."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self.database = database
        self.keys = keys

    @staticmethod
    def parse(text: str, workspace: str, field: str = "secret") -> Ref:
        """`name` (in `workspace`) or `workspace/name`; Invalid names the field."""
        if not REFERENCE.fullmatch(text):
            raise Invalid(
                f"{field}: '{text[:80]}' is not a secret reference; expected 'name' or 'workspace/name' of lower-case "
                "letters, digits, '_' and '-'"
            )
        return Ref.parse(text, workspace, field)

    async def value(self, ref: Ref) -> str:
        """What the secret holds. NotFound without it; Conflict when its key is not at hand."""
        try:
            return await self.database.read(lambda tx: tx.secrets.value(ref, self.keys.ring))
        except NotFound:
            raise NotFound(f"Secret '{ref}' not found") from None


class SecretService:
    """Secrets: made, changed, listed, deleted and encrypted anew; never shown."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self.database = database
        self.keys = keys
        self._writing = asyncio.Lock()
        """Held by whatever encrypts, so that nothing is written with a key that is being dropped."""

    async def create(self, workspace: str, asked: CreateSecret) -> Secret:
        """A new secret; Invalid for a value that no process could be given."""
        check_value(asked.value.get_secret_value())
        async with self._writing:
            return await self.database.write(lambda tx: tx.secrets.create(workspace, asked, self.keys.ring))

    async def get(self, workspace: str, name: str) -> Secret:
        """That there is such a secret; NotFound without it."""
        return await self.database.read(lambda tx: tx.secrets.get(workspace, name))

    async def page(self, workspace: str, asked: PageRequest) -> Page[Secret]:
        """One page of a workspace's secrets."""
        return await self.database.read(lambda tx: tx.secrets.page(workspace, asked))

    async def update(self, workspace: str, name: str, asked: UpdateSecret) -> Secret:
        """Another value, description or project; what is None stays."""
        if asked.value is not None:
            check_value(asked.value.get_secret_value())
        async with self._writing:
            return await self.database.write(lambda tx: tx.secrets.update(workspace, name, asked, self.keys.ring))

    async def delete(self, workspace: str, name: str) -> None:
        """Forget a secret; NotFound without it."""
        await self.database.write(lambda tx: tx.secrets.delete(workspace, name))

    async def access(self, workspace: str, name: str) -> None:
        """Always Forbidden, as long as nobody can show who they are; NotFound without the secret."""
        await self.get(workspace, name)
        raise Forbidden(
            f"The value of secret '{workspace}/{name}' is not given out: this server has no authentication yet, so it "
            "cannot tell who asks. Jobs and remote storages that name the secret get its value from the server itself."
        )

    async def rotate(self) -> Rotation:
        """Encrypt everything with another key and forget the old one; safe to stop at any point and to repeat.

        Conflict when the key is the environment's and no other is given there, or when a secret cannot be decrypted.
        """
        async with self._writing:
            if self.keys.file is None and not self.keys.ring.older:
                raise Conflict(
                    "The key comes from TUNESMITH_SECRET_KEY, which only you can change: start the server with a new "
                    "key there and the present one in TUNESMITH_SECRET_KEY_OLD, then rotate"
                )
            used = await self._used()
            for key_id, count in lost(used, self.keys.ring).items():
                raise Conflict(
                    f"{count} secrets are encrypted with key {key_id}, which this server does not have: start it with "
                    "that key in TUNESMITH_SECRET_KEY_OLD, or set their values again or delete them, then rotate"
                )
            if self.keys.file is not None:
                await asyncio.to_thread(self.keys.add_newest, used)
            rotated = await self.database.write(lambda tx: tx.secrets.encrypt_again(self.keys.ring))
            await asyncio.to_thread(self.keys.drop_older)
        log.info("secrets: %d encrypted with key %s", rotated, self.keys.ring.newest.id)
        return Rotation(rotated_secrets=rotated, success=True)

    async def warn_of_lost_keys(self) -> None:
        """Say in the log how many secrets cannot be decrypted with the keys at hand."""
        for key_id, count in lost(await self._used(), self.keys.ring).items():
            log.warning(
                "%d secrets are encrypted with key %s, which this server does not have; start it with that key in "
                "TUNESMITH_SECRET_KEY_OLD, or set their values again",
                count,
                key_id,
            )

    async def _used(self) -> dict[str, int]:
        return await self.database.read(lambda tx: tx.secrets.encrypted_with())


def lost(used: Mapping[str, int], keys: KeyRing) -> dict[str, int]:
    """Of the secrets that each key has encrypted, those whose key is not at hand."""
    return {key_id: count for key_id, count in sorted(used.items()) if key_id not in keys.ids}


def check_value(value: str) -> None:
    """Invalid for what cannot be a process's environment; the message never holds the value."""
    if not value:
        raise Invalid("Secret value cannot be empty")
    if "\0" in value:
        raise Invalid(
            "value: holds a NUL character, which no environment variable can hold; store such bytes in base64"
        )
    size = len(value.encode("utf-8"))
    if size > LARGEST_BYTES:
        raise Invalid(f"value: {size} bytes; a secret holds at most {LARGEST_BYTES}. Larger data belongs in a fileset")
