"""kill -9 of the server in the middle of a fetch: the next one goes on where the bytes end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.control.sources.standins.hub import Hub
from tests.journeys.house import House
from tests.live import FILES, MODELS, Wire, checkpoint, eventually

BASE = checkpoint(hidden=256, vocabulary=8192)
WEIGHTS = BASE["model.safetensors"]
ROWS = b"no row at all\n"
"""The job ends when it has them: what is trained is not the matter here."""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "data")
    yield house
    house.down()


def test_a_fetch_goes_on_after_kill_9_of_the_server(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add("acme/base", BASE)
        hub.add("acme/rows", {"train.jsonl": ROWS})
        with house.up() as client, httpx.Client(base_url=str(client.base_url)) as http:
            wire = Wire(http)
            for name in ("base", "rows"):
                storage = {"type": "huggingface", "repo_id": f"acme/{name}"}
                assert http.post(FILES, json={"name": name, "storage": storage}).status_code == 200
            assert http.post(MODELS, json={"name": "base", "fileset": "default/base"}).status_code == 201
            eventually(lambda: http.get(f"{MODELS}/base").json()["spec"], "the model to be analysed")
            hub.cdn.hold[digest] = 3 << 20
            assert wire.submit().status_code == 201
            eventually(
                lambda: wire.state()["status_details"].get("downloaded_bytes", 0) > 2 << 20, "half of it to be here"
            )
            house.kill()
        hub.cdn.hold.clear()
        hub.cdn.asked.clear()
        with house.up() as client, httpx.Client(base_url=str(client.base_url)) as http:
            wire = Wire(http)
            assert wire.wait()["error_details"]["type"] == "DatasetFormatError"
            (resumed,) = (each.range for each in hub.cdn.bodies(digest))
            assert resumed is not None
            first, _, last = resumed.removeprefix("bytes=").partition("-")
            assert int(first) > 1 << 20
            assert int(last) == len(WEIGHTS) - 1
            assert http.get(f"{FILES}/base/-/model.safetensors").content == WEIGHTS
