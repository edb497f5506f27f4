"""Secrets in the database: their values as ciphertext, bound to the row they stand in."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import RowMapping, func, select, update

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.secrets import CreateSecret, Secret, UpdateSecret
from tunesmith.errors import Conflict
from tunesmith.refs import Ref, check_name
from tunesmith.store.cipher import KeyRing
from tunesmith.store.ids import new_id
from tunesmith.store.rows import Named
from tunesmith.store.tables import secrets


class Secrets(Named):
    """Values that processes get as environment, and nobody gets to see."""

    table = secrets
    kind = "secret"
    missing = "Secret {workspace}/{name} not found"
    twin = "Secret '{workspace}/{name}' already exists"

    def create(self, workspace: str, asked: CreateSecret, keys: KeyRing) -> Secret:
        """A new secret; Conflict if the name is taken."""
        name, secret_id = check_name(asked.name), new_id(self.kind)
        sealed, key_id = keys.encrypt(asked.value.get_secret_value(), _bound_to(workspace, name, secret_id))
        row = self.insert(
            workspace,
            name,
            id=secret_id,
            description=asked.description,
            project=asked.project,
            ciphertext=sealed,
            key_id=key_id,
        )
        return Secret.model_validate(dict(row))

    def get(self, workspace: str, name: str) -> Secret:
        """That there is such a secret; NotFound without it."""
        return Secret.model_validate(dict(self.row(workspace, name)))

    def page(self, workspace: str, asked: PageRequest) -> Page[Secret]:
        """One page of a workspace's secrets."""
        return self.page_of(workspace, asked, _read)

    def update(self, workspace: str, name: str, asked: UpdateSecret, keys: KeyRing) -> Secret:
        """Another value, description or project; what is None stays."""
        row = self.row(workspace, name)
        values = asked.model_dump(include={"description", "project"}, exclude_none=True)
        if asked.value is not None:
            sealed, key_id = keys.encrypt(asked.value.get_secret_value(), _place(row))
            values.update(ciphertext=sealed, key_id=key_id)
        return Secret.model_validate(dict(self.change(row, **values)))

    def value(self, ref: Ref, keys: KeyRing) -> str:
        """What the secret holds. NotFound without it, Conflict when it cannot be decrypted."""
        return _opened(self.row(ref.workspace, ref.name), keys)

    def encrypted_with(self) -> dict[str, int]:
        """How many secrets each key has encrypted, by the key's id."""
        counted = select(secrets.c.key_id, func.count()).group_by(secrets.c.key_id)
        return {row[0]: row[1] for row in self.connection.execute(counted)}

    def encrypt_again(self, keys: KeyRing) -> int:
        """Encrypt with the newest key whatever another one encrypted; how many those were.

        Conflict names the first secret that cannot be decrypted; then nothing is changed.
        """
        others = select(secrets).where(secrets.c.key_id != keys.newest.id).order_by(secrets.c.id)
        rows = self.connection.execute(others).mappings().all()
        for row in rows:
            sealed, key_id = keys.encrypt(_opened(row, keys), _place(row))
            statement = update(secrets).where(secrets.c.id == row["id"])
            self.connection.execute(statement.values(ciphertext=sealed, key_id=key_id))
        return len(rows)


def _read(rows: Sequence[RowMapping]) -> list[Secret]:
    return [Secret.model_validate(dict(row)) for row in rows]


def _opened(row: RowMapping, keys: KeyRing) -> str:
    try:
        return keys.decrypt(row["ciphertext"], row["key_id"], _place(row))
    except Conflict as error:
        raise Conflict(f"Secret '{row['workspace']}/{row['name']}' cannot be decrypted: {error.message}") from None


def _place(row: RowMapping) -> str:
    return _bound_to(row["workspace"], row["name"], row["id"])


def _bound_to(workspace: str, name: str, secret_id: str) -> str:
    """What a ciphertext is tied to, so that it cannot be moved to another row."""
    return f"{workspace}/{name}/{secret_id}"
