"""Members of workspaces in the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from tunesmith.api.workspaces import Member, Role
from tunesmith.errors import Conflict, NotFound
from tunesmith.store.ids import now
from tunesmith.store.tables import members

ADMIN: Role = "Admin"


class Members:
    """Who may work in a workspace and as what. The workspace must exist; that is checked by who calls."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def all(self, workspace: str) -> list[Member]:
        """Those of a workspace, by name."""
        query = select(members).where(members.c.workspace == workspace).order_by(members.c.principal)
        return [Member.model_validate(dict(row)) for row in self.connection.execute(query).mappings()]

    def add(self, workspace: str, principal: str, roles: Sequence[Role], granted_by: str) -> Member:
        """A new member; Conflict when the principal is one already."""
        if self._find(workspace, principal) is not None:
            raise Conflict(f"'{principal}' is a member of workspace '{workspace}' already; change the roles with PUT")
        row = {"workspace": workspace, "principal": principal, "roles": _once(roles)}
        self.connection.execute(insert(members).values(**row, granted_at=now(), granted_by=granted_by))
        return self._get(workspace, principal)

    def put(self, workspace: str, principal: str, roles: Sequence[Role], granted_by: str) -> Member:
        """Other roles for a member, or a new one; Conflict when the last Admin would be none any more."""
        found = self._find(workspace, principal)
        if found is None:
            return self.add(workspace, principal, roles, granted_by)
        if ADMIN in found["roles"] and ADMIN not in roles:
            self._keep_an_admin(workspace, principal)
        where = (members.c.workspace == workspace, members.c.principal == principal)
        values = {"roles": _once(roles), "granted_at": now(), "granted_by": granted_by}
        self.connection.execute(update(members).where(*where).values(values))
        return self._get(workspace, principal)

    def remove(self, workspace: str, principal: str) -> None:
        """Not a member any more. NotFound for one who is none, Conflict for the last Admin."""
        found = self._find(workspace, principal)
        if found is None:
            raise NotFound(f"'{principal}' is not a member of workspace '{workspace}'")
        if ADMIN in found["roles"]:
            self._keep_an_admin(workspace, principal)
        where = (members.c.workspace == workspace, members.c.principal == principal)
        self.connection.execute(delete(members).where(*where))

    def _find(self, workspace: str, principal: str) -> RowMapping | None:
        query = select(members).where(members.c.workspace == workspace, members.c.principal == principal)
        return self.connection.execute(query).mappings().one_or_none()

    def _get(self, workspace: str, principal: str) -> Member:
        return Member.model_validate(dict(self._find(workspace, principal) or {}))

    def _keep_an_admin(self, workspace: str, leaving: str) -> None:
        """Conflict unless somebody else is Admin."""
        if not any(ADMIN in each.roles for each in self.all(workspace) if each.principal != leaving):
            raise Conflict(
                f"'{leaving}' is the last Admin of workspace '{workspace}'; make somebody else Admin first, or delete "
                "the workspace"
            )


def _once(roles: Sequence[Role]) -> list[Role]:
    """The roles without repetitions, in order."""
    return list(dict.fromkeys(roles))
