"""Every call asks the route it should, every route has a call, and both clients offer the same."""

from __future__ import annotations

import asyncio
import inspect
from types import ModuleType
from typing import Any, NamedTuple

import httpx
import pytest

from tests.client import samples
from tests.client.samples import Platform, page
from tunesmith.api import paths


class Call(NamedTuple):
    method: str
    """Dotted, below the client."""
    arguments: dict[str, Any]
    verb: str
    route: str
    answer: Any
    body: Any = None
    parts: dict[str, str] = {}
    query: str = ""


CALLS = [
    Call("live", {}, "GET", "HEALTH_LIVE", {"status": "ok"}),
    Call("health", {}, "GET", "HEALTH_READY", {"status": "ready"}),
    Call("status", {}, "GET", "STATUS", {}),
    Call("workspaces.list", {}, "GET", "WORKSPACES", page(samples.WORKSPACE)),
    Call("workspaces.retrieve", {"name": "default"}, "GET", "WORKSPACE", samples.WORKSPACE, parts={"name": "default"}),
    Call(
        "files.filesets.create",
        {"name": "triage", "purpose": "dataset"},
        "POST",
        "FILESETS",
        samples.FILESET,
        body={"name": "triage", "purpose": "dataset"},
    ),
    Call("files.filesets.list", {}, "GET", "FILESETS", page(samples.FILESET)),
    Call(
        "files.filesets.retrieve", {"name": "ws/triage"}, "GET", "FILESET", samples.FILESET, parts={"workspace": "ws"}
    ),
    Call(
        "files.list",
        {"fileset": "triage", "remote_path": "a b/"},
        "GET",
        "FILESET_FILES",
        {"data": [samples.FILE]},
        query="path=a+b%2F",
    ),
    Call(
        "files.upload_content",
        {"content": "abc", "remote_path": "a/ü b.txt", "fileset": "triage"},
        "PUT",
        "FILE",
        samples.FILE,
        parts={"path": "a/ü b.txt"},
    ),
    Call(
        "files.download_content",
        {"fileset": "ws/triage", "remote_path": "a/100%25.txt"},
        "GET",
        "FILE",
        {},
        parts={"path": "a/100%25.txt", "workspace": "ws"},
    ),
    Call(
        "files.delete",
        {"fileset": "triage", "remote_path": "a/b"},
        "DELETE",
        "FILE",
        samples.FILE,
        parts={"path": "a/b"},
    ),
    Call(
        "models.create",
        {"name": "smol", "fileset": "default/smol"},
        "POST",
        "MODELS",
        samples.MODEL,
        body={"name": "smol", "fileset": "default/smol"},
    ),
    Call("models.list", {"page_size": 5, "sort": "-name"}, "GET", "MODELS", page(), query="page_size=5&sort=-name"),
    Call(
        "models.retrieve",
        {"name": "smol", "verbose": True},
        "GET",
        "MODEL",
        samples.MODEL,
        parts={"name": "smol"},
        query="verbose=true",
    ),
    Call(
        "models.update_adapter",
        {"model_name": "smol", "workspace": "ws", "adapter_name": "triage", "enabled": False},
        "PATCH",
        "MODEL_ADAPTER",
        samples.ADAPTER,
        body={"enabled": False},
        parts={"name": "smol", "adapter": "triage", "workspace": "ws"},
    ),
    Call(
        "models.adapters.update",
        {"adapter_name": "triage", "model_name": "smol", "description": "new"},
        "PATCH",
        "MODEL_ADAPTER",
        samples.ADAPTER,
        body={"description": "new"},
        parts={"name": "smol", "adapter": "triage"},
    ),
    Call("adapters.list", {}, "GET", "ADAPTERS", page(samples.ADAPTER)),
    Call("adapters.retrieve", {"name": "triage"}, "GET", "ADAPTER", samples.ADAPTER),
    Call(
        "adapters.update", {"name": "triage", "enabled": True}, "PATCH", "ADAPTER", samples.ADAPTER, {"enabled": True}
    ),
    Call(
        "customization.automodel.jobs.create",
        {"workspace": "ws", "name": "first", "spec": samples.JOB_SPEC},
        "POST",
        "AUTOMODEL_JOBS",
        samples.AUTOMODEL_JOB,
        body={"name": "first", "spec": samples.JOB_SPEC},
        parts={"workspace": "ws"},
    ),
    Call("customization.automodel.jobs.list", {}, "GET", "AUTOMODEL_JOBS", page(samples.AUTOMODEL_JOB)),
    Call("customization.automodel.jobs.retrieve", {"name": "first"}, "GET", "AUTOMODEL_JOB", samples.AUTOMODEL_JOB),
    Call(
        "customization.automodel.jobs.get_status",
        {"name": "first"},
        "GET",
        "AUTOMODEL_JOB_STATUS",
        samples.state("active"),
    ),
    Call(
        "customization.automodel.jobs.cancel", {"name": "first"}, "POST", "AUTOMODEL_JOB_CANCEL", samples.AUTOMODEL_JOB
    ),
    Call(
        "customization.automodel.jobs.get_logs",
        {"name": "first", "limit": 5, "page_cursor": "a/b"},
        "GET",
        "AUTOMODEL_JOB_LOGS",
        samples.LOG_PAGE,
        query="limit=5&page_cursor=a%2Fb",
    ),
    Call(
        "jobs.list",
        {"status": "error"},
        "GET",
        "JOBS",
        page(samples.JOB),
        query="page_size=100&filter%5Bstatus%5D=error",
    ),
    Call("jobs.retrieve", {"name": "first"}, "GET", "JOB", samples.JOB),
    Call("jobs.get_status", {"name": "first"}, "GET", "JOB_STATUS", samples.state("active")),
    Call("jobs.cancel", {"name": "first"}, "POST", "JOB_CANCEL", samples.JOB),
    Call("jobs.get_logs", {"name": "first"}, "GET", "JOB_LOGS", samples.LOG_PAGE),
    Call(
        "inference.deployment_configs.create",
        {"name": "smol", "model_spec": {"model_name": "smol", "lora_enabled": True}, "executor_config": {"gpu": 1}},
        "POST",
        "DEPLOYMENT_CONFIGS",
        samples.CONFIG,
        body={
            "name": "smol",
            "engine": "nim",
            "model_spec": {"model_name": "smol", "lora_enabled": True},
            "executor_config": {"gpu": 1},
        },
    ),
    Call("inference.deployment_configs.retrieve", {"name": "c"}, "GET", "DEPLOYMENT_CONFIG", samples.CONFIG),
    Call("inference.deployment_configs.delete", {"name": "c"}, "DELETE", "DEPLOYMENT_CONFIG", httpx.Response(204)),
    Call(
        "inference.deployments.create",
        {"name": "d", "config": "c"},
        "POST",
        "DEPLOYMENTS",
        samples.DEPLOYMENT,
        body={"name": "d", "config": "c"},
    ),
    Call("inference.deployments.retrieve", {"name": "d"}, "GET", "DEPLOYMENT", samples.DEPLOYMENT),
    Call("inference.deployments.delete", {"name": "d"}, "DELETE", "DEPLOYMENT", httpx.Response(202, text="null")),
    Call(
        "inference.gateway.openai.post",
        {"uri": "v1/chat/completions", "body": {"model": "m"}},
        "POST",
        "GATEWAY_OPENAI",
        samples.ANSWER,
        body={"model": "m"},
        parts={"uri": "v1/chat/completions"},
    ),
    Call(
        "inference.gateway.openai.get",
        {"uri": "v1/models/ws/m"},
        "GET",
        "GATEWAY_OPENAI",
        {},
        parts={"uri": "v1/models/ws/m"},
    ),
    Call(
        "inference.gateway.model.post",
        {"uri": "v1/completions", "name": "m", "body": {"prompt": "a"}},
        "POST",
        "GATEWAY_MODEL",
        samples.ANSWER,
        body={"prompt": "a"},
        parts={"uri": "v1/completions", "name": "m"},
    ),
    Call(
        "inference.gateway.provider.post",
        {"uri": "/v1/completions", "name": "d", "body": {}},
        "POST",
        "GATEWAY_PROVIDER",
        samples.ANSWER,
        body={},
        parts={"uri": "v1/completions", "name": "d"},
    ),
    Call("inference.gateway.provider.ready", {"name": "d"}, "GET", "GATEWAY_PROVIDER_READY", {"ready": True}),
    Call(
        "inference.chat",
        {"model": "triage", "messages": [{"role": "user", "content": "hi"}], "temperature": 0},
        "POST",
        "GATEWAY_OPENAI",
        samples.ANSWER,
        body={
            "model": "triage",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": False,
            "temperature": 0,
        },
        parts={"uri": "v1/chat/completions"},
    ),
    Call(
        "inference.complete",
        {"model": "triage", "prompt": "Once"},
        "POST",
        "GATEWAY_OPENAI",
        samples.ANSWER,
        body={"model": "triage", "prompt": "Once", "stream": False},
        parts={"uri": "v1/completions"},
    ),
]

MADE_OF_OTHERS = {
    "files.upload",
    "files.download",
    "jobs.wait",
    "jobs.follow_logs",
    "inference.deployments.wait",
    "models.get_openai_route_base_url",
    "close",
}
"""Calls without a route of their own."""

NOT_ASKED = {"MODEL_ADAPTERS": "making adapters by hand is not on the wire yet"}
"""Paths without a call, each with its reason."""


def called(client: Any, call: Call) -> Any:
    target = client
    for name in call.method.split("."):
        target = getattr(target, name)
    return target(**call.arguments)


def expected(call: Call) -> str:
    name = call.arguments.get("fileset") or call.arguments.get("name", "").split("/")[-1]
    parts = {"workspace": "default", "name": str(name).split("/")[-1], **call.parts}
    template = getattr(paths, call.route).replace("{path}", "{file}")
    parts["file"] = parts.get("path", "")
    wanted = {key: value for key, value in parts.items() if f"{{{key}}}" in template}
    return f"{call.verb} {paths.at(template, **wanted)}"


def check(platform: Platform, call: Call) -> None:
    path, _, query = platform.sent[-1].partition("?")
    assert path == expected(call)
    if call.query:
        assert set(call.query.split("&")) <= set(query.split("&"))
    elif ".list" not in call.method:
        assert query == ""
    if call.body is not None:
        assert platform.body == call.body
    assert len(platform.sent) == 1


def answered(call: Call) -> Platform:
    return Platform(
        by=lambda _: httpx.Response(200, json=call.answer) if isinstance(call.answer, dict) else call.answer
    )


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.method)
def test_the_sync_client_asks_the_right_route(call):
    platform = answered(call)
    with platform.client() as client:
        called(client, call)
    check(platform, call)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.method)
def test_the_async_client_asks_the_same(call):
    platform = answered(call)

    async def run() -> None:
        async with platform.aclient() as client:
            await called(client, call)

    asyncio.run(run())
    check(platform, call)


def public_methods(thing: Any, prefix: str = "") -> set[str]:
    found = set()
    for name, value in inspect.getmembers(thing):
        if name.startswith("_"):
            continue
        if callable(value) and not type(value).__module__.startswith("tunesmith.client"):
            found.add(prefix + name)
        elif type(value).__module__.startswith("tunesmith.client"):
            found |= public_methods(value, f"{prefix}{name}.")
    return found


def test_every_public_method_is_checked_here():
    methods = public_methods(Platform().client())
    assert methods == {call.method for call in CALLS} | MADE_OF_OTHERS


def test_both_clients_offer_the_same():
    platform = Platform()
    plain, waiting = platform.client(), platform.aclient()
    assert public_methods(plain) == {"close" if name == "aclose" else name for name in public_methods(waiting)}


def test_every_path_has_a_call():
    assert isinstance(paths, ModuleType)
    known = {name for name, value in vars(paths).items() if name.isupper() and not name.startswith("_")}
    assert known == {call.route for call in CALLS} | NOT_ASKED.keys()


def test_the_openai_address_is_what_the_published_client_builds():
    url = Platform().client().models.get_openai_route_base_url()
    assert url == "http://platform/apis/inference-gateway/v2/workspaces/default/openai/-/v1"
