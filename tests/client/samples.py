"""Answers as the platform gives them, and a platform that gives prepared ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

from tunesmith import AsyncTunesmith, Tunesmith

AT = "2026-01-02T03:04:05.000006"
STAMPS = {"created_at": AT, "updated_at": AT}

WORKSPACE = {"id": "ws-1", "name": "default", **STAMPS}
COLLECTED = {
    "dry_run": True,
    "blobs": 2,
    "blob_bytes": 10,
    "cached_files": 0,
    "runs": 0,
    "run_bytes": 0,
    "leftovers": 0,
    "leftover_bytes": 0,
    "bytes": 10,
}
PREVIEW = {
    "sequence_limit": 2048,
    "rows": [
        {
            "file": "train.jsonl",
            "line": 1,
            "format": "text",
            "segments": [{"text": "hi", "trained": True, "tokens": 1}],
            "tokens": 1,
            "trained_tokens": 1,
            "whole_tokens": 1,
            "truncated": False,
        }
    ],
}
DELETED = {"message": "gone", "id": "ws"}
MEMBER = {"principal": "a@b", "roles": ["Viewer"], "granted_at": AT + "Z", "granted_by": None}
PROJECT = {"id": "p-1", "name": "mail", "workspace": "default", "description": None, **STAMPS}
SECRET = {"name": "hf", "workspace": "default", "description": "token", **STAMPS}
FILESET = {
    "id": "fs-1",
    "name": "triage",
    "workspace": "default",
    "description": "",
    "purpose": "dataset",
    "storage": {"type": "local", "path": "/data/triage"},
    "metadata": {"dataset": None, "model": None},
    "custom_fields": {},
    "project": "",
    **STAMPS,
}
FILE = {
    "file_ref": "default/triage#a.jsonl",
    "file_url": "/x",
    "path": "a.jsonl",
    "size": 3,
    "cache_status": "not_cacheable",
}
ADAPTER = {
    "name": "triage",
    "workspace": "default",
    "fileset": "default/triage-files",
    "finetuning_type": "lora",
    "enabled": True,
    "lora_config": {"rank": 16, "alpha": 32},
    "model": "default/smol",
    **STAMPS,
}
SPEC = {
    "checkpoint_model_name": "LlamaForCausalLM",
    "family": "llama",
    "num_layers": 30,
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_kv_heads": 3,
    "ffn_hidden_size": 1536,
    "vocab_size": 49152,
    "tied_embeddings": True,
    "gated_mlp": True,
    "base_num_parameters": 134515008,
    "precision": "bfloat16",
}
MODEL = {
    "id": "m-1",
    "name": "smol",
    "workspace": "default",
    "spec": SPEC,
    "fileset": "default/smol",
    "adapters": [ADAPTER],
    **STAMPS,
}
JOB_SPEC = {
    "model": "default/smol",
    "dataset": {"training": "default/triage"},
    "training": {"lora": {"rank": 16}},
}
SPECS = {
    "automodel": JOB_SPEC,
    "unsloth": {"model": {"name": "default/smol"}, "dataset": {"path": "default/triage"}},
    "rl": {"model": "default/smol", "dataset": "default/pairs", "training": {"type": "dpo"}},
}
"""A small spec for each dialect."""
JOB = {
    "id": "j-1",
    "attempt_id": "a-1",
    "name": "first",
    "workspace": "default",
    "source": "customization",
    "spec": JOB_SPEC,
    "platform_spec": {"steps": []},
    "fileset": "job-fileset-first",
    "status": "active",
    "status_details": {"percentage_done": 40, "backend": "automodel"},
    "error_details": None,
    **STAMPS,
}
AUTOMODEL_JOB = {
    "id": "j-1",
    "name": "first",
    "workspace": "default",
    "spec": {**JOB_SPEC, "output": {"name": "out", "type": "adapter", "fileset": "out"}},
    "status": "created",
    "status_details": {},
    "error_details": None,
    "steps": [],
    **STAMPS,
}
OUTPUTS: dict[str, dict[str, str]] = {"automodel": {}, "unsloth": {"save_method": "lora"}, "rl": {}}
JOBS = {
    backend: {
        **AUTOMODEL_JOB,
        "spec": {**spec, "output": {"name": "out", "type": "adapter", "fileset": "out", **OUTPUTS[backend]}},
    }
    for backend, spec in SPECS.items()
}
"""A job of each dialect."""
SHORTHAND = {
    "model": "default/smol",
    "dataset": "fileset://default/triage",
    "training": {"type": "sft", "peft": {"type": "lora", "rank": 8, "alpha": 32}, "epochs": 3},
}
SHORTHAND_JOB = {**AUTOMODEL_JOB, "spec": {**SHORTHAND, "output": {"name": "out"}}}
LOG_LINE = {"timestamp": AT, "job": "first", "job_step": "training", "job_task": "t", "message": "hello"}
LOG_PAGE = {"data": [LOG_LINE], "total": 1, "next_page": None, "prev_page": None}
_ENTITY = {
    "id": "e-1",
    "entity_id": "e-1",
    "workspace": "default",
    "status": "active",
    "status_details": {},
    "error_details": None,
    "parent": "p-1",
    **STAMPS,
}
STEP = {**_ENTITY, "name": "one", "attempt_id": "a-1", "config": {"_step_spec_name": "one"}}
TASK = {**_ENTITY, "name": "task-1", "step_id": "s-1", "error_stack": None}
STEP_IN_CONTEXT = {
    "id": "s-1",
    "job": "first",
    "attempt_id": "a-1",
    "fileset": "job-fileset-first",
    "workspace": "default",
    "name": "one",
    "step_spec": None,
    "status": "active",
    "status_details": {},
    "error_details": None,
    **STAMPS,
}
RESULT = {
    "name": "scores",
    "job": "j-1",
    "workspace": "default",
    "artifact_url": "default/scores#a.json",
    "artifact_storage_type": "fileset",
    **STAMPS,
}
WEBHOOK = {
    "id": "w-1",
    "name": "tell",
    "workspace": "default",
    "url": "https://here/hook",
    "secret": "default/key",
    "statuses": ["completed"],
    "owed": 0,
    **STAMPS,
}
PLATFORM_SPEC = {
    "steps": [{"name": "one", "executor": {"provider": "subprocess", "profile": "default", "command": ["true"]}}]
}
CONFIG = {
    "id": "c-1",
    "name": "smol",
    "workspace": "default",
    "entity_version": 1,
    "engine": "nim",
    "model_spec": {"model_namespace": "default", "model_name": "smol", "lora_enabled": True},
    "executor_config": {"gpu": 1},
    "model_entity_id": "default/smol",
    **STAMPS,
}
DEPLOYMENT = {
    "id": "d-1",
    "name": "smol",
    "workspace": "default",
    "entity_version": 1,
    "config": "smol",
    "config_version": 1,
    "status": "READY",
    "status_message": "ready",
    "status_history": [],
    **STAMPS,
}
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Hello!"}}]}

Answer = httpx.Response | dict[str, Any] | Exception


def state(status: str, **more: Any) -> dict[str, Any]:
    """A job's status; `step=` and the like are its details."""
    error = more.pop("error_details", None)
    steps = more.pop("steps", [])
    return {
        "id": "j-1",
        "name": "first",
        "status": status,
        "status_details": more,
        "error_details": error,
        "steps": steps,
        **STAMPS,
    }


def frame(event: str, cursor: str, data: Any) -> str:
    """An event of a job, as it goes over the wire."""
    return f"event: {event}\nid: {cursor}\ndata: {json.dumps(data)}\n\n"


def stream(*frames: str) -> httpx.Response:
    """A connection on which these events come."""
    return httpx.Response(200, text="".join(frames), headers={"Content-Type": "text/event-stream"})


def told(*states: dict[str, Any]) -> httpx.Response:
    """A connection on which a job's states come; with a final one it ends."""
    final = ("completed", "error", "cancelled")
    return stream(*(frame("end" if it["status"] in final else "status", str(at), it) for at, it in enumerate(states)))


def step(name: str, status: str, **details: Any) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "status": status,
        "status_details": details,
        "error_details": {},
        "tasks": [],
        **STAMPS,
    }


def page(*items: Any, number: int = 1, pages: int = 1) -> dict[str, Any]:
    counts = {"page_size": 100, "current_page_size": len(items), "total_pages": pages, "total_results": 100 * pages}
    return {"data": list(items), "pagination": {"page": number, **counts}, "sort": None}


def events(*chunks: Any) -> httpx.Response:
    """A streamed answer; text is sent as it is."""
    lines = [f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks]
    return httpx.Response(200, text="".join(lines), headers={"Content-Type": "text/event-stream"})


class Platform:
    """Answers requests from a list, or by a function, and remembers them. Nobody waits: pauses are remembered, too."""

    def __init__(self, *answers: Answer, by: Callable[[httpx.Request], Answer] | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []
        self.pauses: list[float] = []
        self._answers = list(answers)
        self._by = by

    @property
    def sent(self) -> list[str]:
        """`METHOD /path?query` of each request, percent-encoded as it went over the wire."""
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]

    @property
    def body(self) -> Any:
        """The last request's JSON."""
        return json.loads(self.bodies[-1])

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._by(request) if self._by else self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):  # anew and unread, as from the wire
            return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))
        return httpx.Response(200, json=answer)

    def transport(self) -> httpx.MockTransport:
        """For both clients."""
        platform = self

        class Recorded(httpx.MockTransport):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                platform.bodies.append(request.read())
                return super().handle_request(request)

            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                platform.bodies.append(await request.aread())
                return await super().handle_async_request(request)

        return Recorded(self.answer)

    def client(self, **options: Any) -> Tunesmith:
        return Tunesmith("http://platform", "default", transport=self.transport(), sleep=self.pauses.append, **options)

    def aclient(self, **options: Any) -> AsyncTunesmith:
        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        return AsyncTunesmith("http://platform", "default", transport=self.transport(), sleep=pause, **options)
