"""Webhooks: made, listed and deleted; and the deliverer that tells them what they are owed.

What is owed was written with the change itself (`store/webhooks.py`), so nothing is lost; it is forgotten once it has
arrived, so a server that dies in between tells it twice, under the same id. Headers and signature are those of
Standard Webhooks (https://www.standardwebhooks.com).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import httpx

from tunesmith import __version__
from tunesmith.api.base import Page, PageRequest
from tunesmith.api.webhooks import CreateWebhook, Webhook
from tunesmith.control.secrets import Vault
from tunesmith.errors import Conflict, Invalid, NotFound, TunesmithError
from tunesmith.handoff.crash import crash_at
from tunesmith.settings import Settings
from tunesmith.store.database import Database, Tx
from tunesmith.store.ids import now
from tunesmith.store.webhooks import Delivery, Receiver

log = logging.getLogger(__name__)

SETTING: Final = "TUNESMITH_WEBHOOK_HOSTS"
PORTS: Final = {"http": 80, "https": 443}
ANSWER_SECONDS: Final = 10.0
"""That a receiver may take for an answer."""
WAITS: Final = [timedelta(seconds=seconds) for seconds in (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 8 * 3600, 8 * 3600)]
"""After the first try in vain, the second ...; 8 tries within a day, then the delivery is dropped."""
WHSEC: Final = "whsec_"


class WebhookService:
    """Addresses that are told of changes."""

    def __init__(self, database: Database, vault: Vault, settings: Settings) -> None:
        self.database = database
        self.vault = vault
        self.hosts = settings.webhook_hosts

    async def create(self, workspace: str, asked: CreateWebhook) -> Webhook:
        """A new webhook. Invalid for an address that is not allowed; Conflict without its secret, or for a twin."""
        check_url(asked.url, self.hosts)
        secret = self.vault.parse(asked.secret, workspace)
        try:
            key_of(await self.vault.value(secret))
        except NotFound:
            raise Conflict(
                f"secret: '{secret}' does not exist; create it with `tunesmith secrets create {secret.name}`"
            ) from None
        return await self.database.write(lambda tx: tx.webhooks.create(workspace, asked, secret))

    async def get(self, workspace: str, name: str) -> Webhook:
        """The webhook; NotFound without it."""
        return await self.database.read(lambda tx: tx.webhooks.get(workspace, name))

    async def page(self, workspace: str, asked: PageRequest) -> Page[Webhook]:
        """One page of a workspace's webhooks."""
        return await self.database.read(lambda tx: tx.webhooks.page(workspace, asked))

    async def delete(self, workspace: str, name: str) -> None:
        """Forget a webhook and what it is owed; NotFound without it."""
        await self.database.write(lambda tx: tx.webhooks.delete(workspace, name))


class Deliverer:
    """Takes turns with webhooks to which something is due: a task for each, so that none waits for a slow one."""

    def __init__(
        self, database: Database, vault: Vault, settings: Settings, http: httpx.AsyncClient, stir: Callable[[], None]
    ) -> None:
        self.database = database
        self.vault = vault
        self.hosts = settings.webhook_hosts
        self.http = http
        self._stir = stir
        """Called when a task has told all it had to: more may be due by then."""
        self._telling: dict[str, asyncio.Task[None]] = {}

    async def receivers(self) -> Sequence[Receiver]:
        """Whom to take a turn with: those that no task is busy with."""
        due = await self.database.read(lambda tx: tx.deliveries.receivers(now()))
        return [receiver for receiver in due if not self._busy(receiver)]

    async def turn(self, receiver: Receiver) -> bool:
        """Let a task tell it what is due; whether something moved. Raises what ended the task before."""
        if ended := self._telling.pop(receiver.id, None):
            ended.result()
        self._telling[receiver.id] = task = asyncio.create_task(self._tell(receiver))
        task.add_done_callback(lambda _: self._stir())
        return False

    async def close(self) -> None:
        """Stop in the middle; what has not arrived is told by the next server."""
        for task in self._telling.values():
            task.cancel()
        await asyncio.gather(*self._telling.values(), return_exceptions=True)

    def _busy(self, receiver: Receiver) -> bool:
        task = self._telling.get(receiver.id)
        return task is not None and not task.done()

    async def _tell(self, receiver: Receiver) -> None:
        """Send what is due, the oldest first, one after the other."""
        while delivery := await self.database.read(lambda tx: tx.deliveries.due(receiver.id, now())):
            wrong = await self._send(receiver, delivery)
            crash_at("webhook-after-send")
            if again := await self.database.write(_conclude, receiver, delivery, wrong):
                asyncio.get_running_loop().call_later(again.total_seconds(), self._stir)

    async def _send(self, receiver: Receiver, delivery: Delivery) -> str | None:
        """Why it did not arrive; None when it did. Redirects are not followed, the answer's body is not read."""
        content = json.dumps(delivery.body, separators=(",", ":")).encode()
        try:
            check_url(receiver.url, self.hosts)
            key = key_of(await self.vault.value(receiver.secret))
            headers = signed(delivery.id, int(time.time()), content, key)
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self.http.stream("POST", receiver.url, content=content, headers=headers) as answer,
            ):
                return None if answer.is_success else f"it answered {answer.status_code}"
        except TunesmithError as error:
            return error.message
        except TimeoutError:
            return f"it did not answer within {ANSWER_SECONDS:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"it cannot be reached ({error or type(error).__name__})"


def _conclude(tx: Tx, receiver: Receiver, delivery: Delivery, wrong: str | None) -> timedelta | None:
    """One transaction: it has arrived (`wrong` is None), was sent in vain too often, or is sent again in so long."""
    if wrong is not None and delivery.tries < len(WAITS):
        wait = WAITS[delivery.tries]
        due_at = now() + wait
        tx.deliveries.later(delivery, due_at)
        log.info("webhook %s: %s; %s is sent again at %s UTC", receiver.ref, wrong, delivery.id, due_at)
        return wait
    tx.deliveries.settle(delivery)
    if wrong is not None:
        tries, what = delivery.tries + 1, json.dumps(delivery.body)
        log.error("webhook %s: %s; given up after %d tries: %s", receiver.ref, wrong, tries, what)
    return None


def signed(message_id: str, timestamp: int, content: bytes, key: bytes) -> dict[str, str]:
    """The headers of a delivery; the signature covers id, time and body, so that none can be exchanged."""
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + content, hashlib.sha256)
    return {
        "content-type": "application/json",
        "user-agent": f"tunesmith/{__version__}",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def key_of(secret: str) -> bytes:
    """The bytes that sign: what stands in base64 behind `whsec_`, else the text itself. Invalid for bad base64."""
    if not secret.startswith(WHSEC):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(WHSEC), validate=True)
    except binascii.Error:
        raise Invalid(f"secret: its value begins with '{WHSEC}', but what follows is not base64") from None


def check_url(url: str, hosts: Sequence[str]) -> None:
    """Invalid unless it is an http or https address of an allowed host, without name and password."""
    try:
        address = _address(httpx.URL(url))  # as whoever sends will read it
    except httpx.InvalidURL:
        address = None
    if address is None:
        raise Invalid(f"url: '{url[:200]}' must be http:// or https://, a host, perhaps a port, and a path")
    scheme, host = address
    if host not in {each if _has_port(each) else f"{each}:{PORTS[scheme]}" for each in hosts}:
        listed = ", ".join(hosts) or "none"
        raise Invalid(
            f"url: this server may not call {host}: the setting {SETTING} lists {listed}. Add the receiver there, as "
            "host or host:port, and start the server again"
        )


def _address(url: httpx.URL) -> tuple[str, str] | None:
    """Scheme and `host:port`; None for what is no address of the web, or holds a name and password."""
    if url.scheme not in PORTS or not url.host or url.userinfo:
        return None
    host = f"[{url.host}]" if ":" in url.host else url.host
    return url.scheme, f"{host}:{url.port or PORTS[url.scheme]}"


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and not host.endswith("]")
