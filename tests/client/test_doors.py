"""Every call asks the route it should, every route has a call, and both clients offer the same."""

from __future__ import annotations

import asyncio
import inspect
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.client.calls import CALLS, MADE_OF_OTHERS, NOT_ASKED, Call
from tests.client.samples import Platform
from tunesmith.api import paths


def called(client: Any, call: Call) -> Any:
    target = client
    for name in call.method.split("."):
        target = getattr(target, name)
    return target(**call.arguments)


def expected(call: Call) -> str:
    name = call.arguments.get("fileset") or call.arguments.get("name", "").split("/")[-1]
    parts = {"workspace": "default", "name": str(name).split("/")[-1], "backend": call.backend, **call.parts}
    template = getattr(paths, call.route).replace("{path}", "{file}")
    parts["file"] = parts.get("path", "")
    wanted = {key: value for key, value in parts.items() if f"{{{key}}}" in template}
    return f"{call.verb} {paths.at(template, **wanted)}"


def check(platform: Platform, call: Call) -> None:
    path, _, query = platform.sent[-1].partition("?")
    assert path == expected(call)
    if call.query:
        assert set(call.query.split("&")) <= set(query.split("&"))
    elif not call.method.endswith(".list"):
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
        made = called(client, call)
        if inspect.isgenerator(made):
            list(made)
    check(platform, call)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.method)
def test_the_async_client_asks_the_same(call):
    platform = answered(call)

    async def run() -> None:
        async with platform.aclient() as client:
            made = called(client, call)
            if inspect.isasyncgen(made):
                [event async for event in made]
            else:
                await made

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
    assert {name for name in known if not name.startswith(tuple(NOT_ASKED))} == {call.route for call in CALLS}


def test_the_openai_address_is_what_the_published_client_builds():
    url = Platform().client().models.get_openai_route_base_url()
    assert url == "http://platform/apis/inference-gateway/v2/workspaces/default/openai/-/v1"
