"""What all stand-ins share: a server on loopback that remembers what it was asked and can fail on purpose."""

from __future__ import annotations

import json
import socket
import threading
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


class StandIn:
    """A server from `__enter__` to `__exit__`; subclasses say what it answers."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.busy: list[tuple[int, str]] = []
        """Status and Retry-After of the next answers, before any other."""
        self.cuts: dict[str, list[int]] = defaultdict(list)
        """By end of path: after how many bytes the next streams are cut."""
        self.hold: dict[str, int] = {}
        """By end of path: after how many bytes streams wait for `release`."""
        self.release = threading.Event()
        self.ignores_range = False

    def __enter__(self) -> Self:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers)
                stand_in.asked.append(asked)
                reply = Reply(self, asked)
                if stand_in.busy:
                    status, retry_after = stand_in.busy.pop(0)
                    reply.json(status, {"error": "busy"}, {"Retry-After": retry_after} if retry_after else {})
                    return
                parts = urlsplit(self.path)
                stand_in.answer(reply, unquote(parts.path), parse_qs(parts.query))

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, reply: Reply, path: str, query: dict[str, list[str]]) -> None:
        """What the server says to a path (decoded) and its query."""
        raise NotImplementedError

    def send(self, reply: Reply, content: bytes, name: str, headers: dict[str, str] | None = None) -> None:
        """A file's bytes, or the Range of them that was asked for; cut or held where a test wants it."""
        start, stop, status = 0, len(content), 200
        sent = {"Accept-Ranges": "bytes", **(headers or {})}
        if (asked := reply.asked.range) and not self.ignores_range:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else stop, stop)
            if start >= len(content):
                reply.json(416, {"error": "range"}, {"Content-Range": f"bytes */{len(content)}"})
                return
            sent["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            status = 206
        reply.head(status, stop - start, sent)
        if reply.asked.method == "HEAD":
            return
        body = content[start:stop]
        for end, cuts in self.cuts.items():
            if name.endswith(end) and cuts:
                reply.cut(body[: cuts.pop(0)])
                return
        for end, held in self.hold.items():
            if name.endswith(end) and held < len(body) and not self.release.is_set():
                reply.write(body[:held])
                self.release.wait(60)
                reply.write(body[held:])
                return
        reply.write(body)

    def bodies(self, end: str) -> list[Asked]:
        """The GETs of a path that ends so."""
        return [each for each in self.asked if each.method == "GET" and urlsplit(each.path).path.endswith(end)]


class Reply:
    """Writes one answer."""

    def __init__(self, handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        self.handler = handler
        self.asked = asked

    def head(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.handler.send_response(status)
        for name, value in {"Content-Length": str(length), **(headers or {})}.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def write(self, body: bytes) -> None:
        try:
            self.handler.wfile.write(body)
            self.handler.wfile.flush()
        except OSError:  # whoever asked is gone
            self.handler.close_connection = True

    def cut(self, body: bytes) -> None:
        """Some of what was promised, then nothing."""
        self.write(body)
        self.handler.close_connection = True
        self.handler.connection.shutdown(socket.SHUT_RDWR)

    def json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.head(status, len(body), {"Content-Type": "application/json", **(headers or {})})
        if self.asked.method != "HEAD":
            self.write(body)

    def redirect(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.head(302, 0, {"Location": url, **(headers or {})})
