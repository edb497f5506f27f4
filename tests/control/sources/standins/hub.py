"""A Hugging Face hub: its routes, headers and refusals, and a CDN on another port behind its redirects."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Self

from tests.control.sources.standins.web import Reply, StandIn

COMMIT = "c0ffee" + "0" * 34
LFS_FROM = 256
"""Bytes from which a file lies in large file storage, behind a redirect."""
PAGE = 2
"""Entries of a page of a repository's tree."""


@dataclass
class Repository:
    """One repository at one commit."""

    files: dict[str, bytes]
    token: str | None = None
    """Who has it may see the repository; None = everybody."""
    gated: bool = False
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main", COMMIT)
    false_digests: dict[str, str] = field(default_factory=dict)
    """By path: a sha256 that the hub claims though the bytes have another."""


class Cdn(StandIn):
    """Where large files are; it knows nobody and must not be told a token."""

    def __init__(self) -> None:
        super().__init__()
        self.contents: dict[str, bytes] = {}

    def answer(self, reply: Reply, path: str, query: dict[str, list[str]]) -> None:
        self.send(reply, self.contents[path.rpartition("/")[2]], path)


class Hub(StandIn):
    """The hub, and its CDN."""

    def __init__(self) -> None:
        super().__init__()
        self.cdn = Cdn()
        self.repositories: dict[str, Repository] = {}
        """By kind and name: `models/acme/tiny`."""

    def __enter__(self) -> Self:
        self.cdn.__enter__()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.cdn.__exit__()

    def add(self, name: str, files: dict[str, bytes], kind: str = "models", **how: Any) -> Repository:
        """Make a repository."""
        repository = self.repositories[f"{kind}/{name}"] = Repository(files, **how)
        return repository

    def answer(self, reply: Reply, path: str, query: dict[str, list[str]]) -> None:
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            kind, name, rest = parts[1], "/".join(parts[2:4]), parts[4:]
        else:
            kind = parts.pop(0) if parts[0] in ("datasets", "spaces") else "models"
            name, rest = "/".join(parts[:2]), parts[2:]
        repository = self.repositories.get(f"{kind}/{name}")
        said = reply.asked.headers.get("authorization")
        if repository is None or (repository.token and not repository.gated and said != f"Bearer {repository.token}"):
            reply.json(401, {"error": "no such repository"}, {"X-Error-Code": "RepoNotFound"})
            return
        gated = repository.gated and said != f"Bearer {repository.token}"
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in repository.revisions:
            reply.json(404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
        elif gated:
            reply.json(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        elif parts[0] != "api":
            self._resolve(reply, repository, "/".join(rest[2:]))
        elif rest and rest[0] == "tree":
            self._tree(reply, repository, path, int(query.get("cursor", ["0"])[0]))
        else:
            reply.json(200, self._facts(name, repository))

    def _facts(self, name: str, repository: Repository) -> dict[str, Any]:
        siblings = []
        for path, content in repository.files.items():
            entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_id(content)}
            if len(content) >= LFS_FROM:
                entry["lfs"] = {"sha256": self._digest(repository, path), "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return {
            "id": name,
            "modelId": name,
            "sha": repository.commit,
            "private": False,
            "siblings": siblings,
            "tags": [],
        }

    def _tree(self, reply: Reply, repository: Repository, path: str, cursor: int) -> None:
        entries: list[dict[str, Any]] = [{"type": "directory", "oid": "d" * 40, "size": 0, "path": "folder"}]
        for name, content in repository.files.items():
            entry: dict[str, Any] = {"type": "file", "oid": git_id(content), "size": len(content), "path": name}
            if len(content) >= LFS_FROM:
                entry["lfs"] = {"oid": self._digest(repository, name), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        more = cursor + PAGE < len(entries)
        link = {"Link": f'<{self.url}{path}?recursive=True&cursor={cursor + PAGE}>; rel="next"'} if more else {}
        reply.json(200, entries[cursor : cursor + PAGE], link)

    def _resolve(self, reply: Reply, repository: Repository, path: str) -> None:
        content = repository.files.get(path)
        if content is None:
            reply.json(404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound"})
        elif len(content) < LFS_FROM:
            headers = {"ETag": f'"{git_id(content)}"', "X-Repo-Commit": repository.commit}
            self.send(reply, content, path, headers)
        else:
            digest = hashlib.sha256(content).hexdigest()
            self.cdn.contents[digest] = content
            headers = {
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(content)),
                "X-Repo-Commit": repository.commit,
            }
            reply.redirect(f"{self.cdn.url}/signed/{path}/{digest}?signature=hush", headers)

    def _digest(self, repository: Repository, path: str) -> str:
        return repository.false_digests.get(path) or hashlib.sha256(repository.files[path]).hexdigest()


def git_id(content: bytes) -> str:
    """The id of a git blob."""
    return hashlib.sha1(b"blob %d\x00" % len(content) + content).hexdigest()
