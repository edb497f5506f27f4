"""The NGC catalogue: key exchange, versions, pages of files, and downloads that are redirected to another port."""

from __future__ import annotations

import base64
import hashlib
from typing import Self

from tests.control.sources.standins.hub import Cdn
from tests.control.sources.standins.web import Reply, StandIn

PAGE = 2


class Catalogue(StandIn):
    """One model with versions, `acme/team-a/tiny`; who exchanges the key gets a token that holds."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.cdn = Cdn()
        self.key = key
        self.token = "t0ken-of-the-day"
        self.versions: dict[str, dict[str, bytes]] = {}
        self.collection = "models"
        self.incomplete = False

    def __enter__(self) -> Self:
        self.cdn.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.cdn.__exit__()

    def answer(self, reply: Reply, path: str, query: dict[str, list[str]]) -> None:
        said = reply.asked.headers.get("authorization", "")
        if path == "/token":
            basic = base64.b64encode(f"$oauthtoken:{self.key}".encode()).decode()
            if said != f"Basic {basic}" or query["scope"] != ["group/ngc:acme", "group/ngc:acme/team-a"]:
                reply.json(401, {"error": "no"})
            else:
                reply.json(200, {"token": self.token, "expires_in": 600})
            return
        if said not in (f"Bearer {self.token}", f"Bearer {self.key}"):
            reply.json(401, {"requestStatus": {"statusCode": "UNAUTHORIZED"}})
            return
        base = f"/v2/org/acme/team/team-a/{self.collection}/tiny"
        thing = "model" if self.collection == "models" else "recipe"
        where = path.removeprefix(base).strip("/").split("/")
        if not path.startswith(base) or (where[0] == "versions" and where[1] not in self.versions):
            reply.json(404, {"requestStatus": {"statusCode": "NOT_FOUND"}})
        elif where == [""]:
            reply.json(200, {thing: {"latestVersionIdStr": max(self.versions)}})
        elif len(where) == 2:
            status = "UPLOAD_PENDING" if self.incomplete else "UPLOAD_COMPLETE"
            reply.json(200, {f"{thing}Version": {"versionId": where[1], "status": status}})
        elif len(where) == 3:
            self._page(reply, thing, self.versions[where[1]], int(query["page-number"][0]))
        else:
            content = self.versions[where[1]]["/".join(where[3:])]
            digest = hashlib.sha256(content).hexdigest()
            self.cdn.contents[digest] = content
            reply.redirect(f"{self.cdn.url}/{where[-1]}/{digest}")

    def _page(self, reply: Reply, thing: str, files: dict[str, bytes], number: int) -> None:
        listed = [
            {
                "path": path,
                "sizeInBytes": len(content),
                "sha256_base64": base64.b64encode(hashlib.sha256(content).digest()).decode(),
            }
            for path, content in files.items()
        ]
        pages = -(-len(listed) // PAGE)
        part = listed[number * PAGE : (number + 1) * PAGE]
        reply.json(200, {f"{thing}Files": part, "paginationInfo": {"totalPages": pages, "index": number}})
