"""The peer of bench/api.py: FastAPI and SQLite with nothing built on them. `python bench/bare.py DIR PORT`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel

folder = Path(sys.argv[1])
database = sqlite3.connect(folder / "bare.db", isolation_level=None, check_same_thread=False)
database.execute("pragma journal_mode=wal")
database.execute("pragma synchronous=full")
database.execute("create table things (name text primary key, base_model text, body text)")
app = FastAPI()


class Thing(BaseModel):
    """What is created and read."""

    name: str
    base_model: str | None = None


@app.get("/health/ready")
async def ready() -> dict[str, str]:
    """It answers."""
    return {"status": "ready"}


@app.post("/things", status_code=201)
async def create(thing: Thing) -> Thing:
    """One insert and one commit."""
    row = (thing.name, thing.base_model, thing.model_dump_json())
    database.execute("insert into things values (?, ?, ?)", row)
    return thing


@app.get("/things/{name}")
async def read(name: str) -> Thing:
    """One indexed read."""
    (body,) = database.execute("select body from things where name = ?", (name,)).fetchone()
    return Thing.model_validate(json.loads(body))


@app.put("/files/{name}")
async def upload(name: str, request: Request) -> dict[str, Any]:
    """Receive, hash, write, fsync."""
    digest = hashlib.sha256()
    with (folder / name).open("wb", buffering=0) as file:
        async for chunk in request.stream():
            digest.update(chunk)
            file.write(chunk)
        await asyncio.to_thread(os.fsync, file.fileno())
    return {"digest": digest.hexdigest()}


@app.get("/files/{name}")
async def download(name: str) -> FileResponse:
    """A file as it lies."""
    return FileResponse(folder / name)


uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
