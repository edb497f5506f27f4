"""Lists read through their pages, streams through their chunks, and waiting until something is so."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from tests.client import samples
from tests.client.samples import Platform, events, frame, page, state, stream
from tunesmith.client.errors import APIError, DeploymentFailed, NotFoundError, WaitTimeoutError


def models(*names):
    return [{**samples.MODEL, "name": name} for name in names]


def three_pages(request: httpx.Request):
    number = int(request.url.params.get("page", 1))
    return page(*[models("a", "b"), models("c", "d"), models("e")][number - 1], number=number, pages=3)


def test_a_list_reads_through_all_its_pages():
    platform = Platform(by=three_pages)
    listed = platform.client().models.list()
    assert [model.name for model in listed.data] == ["a", "b"]
    assert listed.pagination.total_pages == 3
    assert len(platform.sent) == 1
    assert [model.name for model in listed] == list("abcde")
    assert [model.name for model in listed] == list("abcde")  # and again


def test_a_list_and_a_client_say_what_they_are():
    client = Platform(page(samples.PROJECT, pages=3)).client()
    assert repr(client).endswith("Tunesmith('http://platform', workspace='default')"), repr(client)
    shown = repr(client.projects.list())
    assert shown.startswith("Pages(page 1 of 3, ")
    assert samples.PROJECT["name"] in shown


def test_the_question_stays_the_same_from_page_to_page():
    platform = Platform(page(samples.JOB, pages=2), page(samples.JOB, number=2, pages=2))
    list(platform.client().jobs.list(status="error", sort="name", page_size=1))
    first, second = [dict(request.url.params) for request in platform.requests]
    assert first == {"page_size": "1", "sort": "name", "filter[status]": "error"}
    assert second == first | {"page": "2"}


def test_pages_are_asked_for_when_they_are_needed():
    platform = Platform(by=three_pages)
    for model in platform.client().models.list():
        if model.name == "b":
            break
    assert len(platform.sent) == 1


def test_a_list_begins_where_it_is_asked_to():
    assert [model.name for model in Platform(by=three_pages).client().models.list(page=2)] == list("cde")


def test_an_empty_list_is_empty():
    assert list(Platform(page(pages=0)).client().models.list()) == []


def test_a_list_that_shrinks_while_it_is_read_ends():
    platform = Platform(page(*models("a"), pages=3), page(number=2, pages=3))
    assert [model.name for model in platform.client().models.list()] == ["a"]


def test_an_async_list_reads_through_all_its_pages():
    async def run():
        async with Platform(by=three_pages).aclient() as client:
            return [model.name async for model in await client.models.list()]

    assert asyncio.run(run()) == list("abcde")


def deltas(*pieces):
    return [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]


def spoken(chunks):
    return [chunk["choices"][0]["delta"]["content"] for chunk in chunks]


ASKED = {"model": "triage", "messages": [{"role": "user", "content": "hi"}]}


def test_a_streamed_answer_comes_in_chunks():
    platform = Platform(events(*deltas("Hel", "lo\u2028!"), "[DONE]"))
    with platform.client().inference.chat(**ASKED, stream=True) as chunks:
        assert spoken(chunks) == ["Hel", "lo\u2028!"]
    assert platform.body["stream"] is True


def test_an_async_streamed_answer_comes_in_chunks():
    async def run():
        async with Platform(events(*deltas("a", "b"), "[DONE]")).aclient() as client:
            return [chunk async for chunk in await client.inference.chat(**ASKED, stream=True)]

    assert spoken(asyncio.run(run())) == ["a", "b"]


def test_events_survive_any_cut_through_the_bytes():
    from tunesmith.client.sse import Events

    text = "".join(f"data: {json.dumps(it, ensure_ascii=False)}\r\n\r\n" for it in deltas("grün", "\u2028"))
    whole = (": a comment\n\n" + text + "data: [DONE]\n\n").encode()
    for cut in range(len(whole)):
        reader = Events()
        assert spoken(reader.feed(whole[:cut]) + reader.feed(whole[cut:])) == ["grün", "\u2028"]
        assert reader.done


def test_an_answer_that_breaks_off_is_not_a_short_answer():
    with pytest.raises(APIError, match="broke off"):
        list(Platform(events(*deltas("a"))).client().inference.chat(**ASKED, stream=True))


def test_an_error_inside_of_a_stream_is_raised():
    answer = events(*deltas("a"), {"error": {"message": "out of memory"}})
    with pytest.raises(APIError, match="out of memory"):
        list(Platform(answer).client().inference.chat(**ASKED, stream=True))


def test_a_refused_stream_raises_at_once():
    with pytest.raises(APIError, match="no such model"):
        Platform(httpx.Response(404, json={"detail": "no such model"})).client().inference.chat(**ASKED, stream=True)


def test_waiting_for_a_job_hears_every_status():
    platform = Platform(state("created"), state("active", step=1), state("completed"))
    heard = []
    last = platform.client().jobs.wait("first", on_status=lambda it: heard.append(it.status))
    assert heard == ["created", "active", "completed"]
    assert last.status == "completed"
    assert len(platform.pauses) == 2


def test_waiting_for_a_job_ends_with_the_time():
    platform = Platform(state("active"))
    with pytest.raises(WaitTimeoutError, match="still active after 0 s"):
        platform.client().jobs.wait("first", timeout=0)


@pytest.mark.parametrize("silence", [[httpx.ConnectError("refused")] * 3, [httpx.Response(502)] * 3])
def test_a_platform_that_goes_away_for_a_while_is_waited_for(silence):
    platform = Platform(state("active"), *silence, *silence, state("resuming"), state("completed"))
    heard, missed = [], []
    platform.client().jobs.wait(
        "first", patience=60, on_status=lambda it: heard.append(it.status), on_silence=missed.append
    )
    assert heard == ["active", "resuming", "completed"]
    assert len(missed) == 2


def test_nobody_waits_for_a_platform_without_patience_or_for_a_job_that_is_gone():
    with pytest.raises(APIError, match="cannot reach"):
        Platform(*[httpx.ConnectError("refused")] * 3).client().jobs.wait("first")
    with pytest.raises(NotFoundError):
        Platform(httpx.Response(404)).client().jobs.wait("first", patience=60)


POINT = {"series": "train_loss", "step": 1, "epoch": 1, "value": 2.5}


def test_a_job_is_listened_to_until_its_end_over_connections_that_break():
    platform = Platform(
        stream(
            frame("status", "a", state("active")),
            ": nothing new\n\n",
            frame("log", "b", {"lines": [samples.LOG_LINE]}),
            "event: metrics\nid: lost\nda",
        ),
        *[httpx.ConnectError("refused")] * 3,
        stream(frame("metrics", "c", {"points": [POINT]}), frame("end", "d", state("completed"))),
    )
    missed = []
    heard = list(platform.client().jobs.events("first", patience=60, on_silence=missed.append))
    assert [(event.event, event.cursor) for event in heard] == [
        ("status", "a"),
        ("log", "b"),
        ("metrics", "c"),
        ("end", "d"),
    ]
    assert (heard[1].lines[0].message, heard[2].points[0].value, heard[3].state.status) == ("hello", 2.5, "completed")
    assert [request.url.params.get("cursor") for request in platform.requests] == [None, "b", "b", "b", "b"]
    assert len(missed) == 1


def test_whoever_listens_stops_when_the_job_is_gone_or_says_what_nobody_understands():
    gone = Platform(stream(frame("status", "a", state("active"))), httpx.Response(404))
    with pytest.raises(NotFoundError):
        list(gone.client().jobs.events("first"))
    with pytest.raises(APIError, match="cannot read: nonsense"):
        list(Platform(stream("event: status\nid: a\ndata: nonsense\n\n")).client().jobs.events("first"))


def test_a_result_becomes_a_file_whole_or_not_at_all(tmp_path):
    results = Platform(httpx.Response(200, content=b"abc"), httpx.Response(404)).client().jobs.results
    assert results.download("scores", tmp_path / "a.json", job="first").read_bytes() == b"abc"
    with pytest.raises(NotFoundError):
        results.download("none", tmp_path / "b.json", job="first")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def line(text):
    return {**samples.LOG_LINE, "message": text}


def logs(*lines, more=None):
    return {"data": list(map(line, lines)), "total": len(lines), "next_page": more, "prev_page": None}


def test_a_log_is_followed_through_its_pages_to_the_end_of_the_job():
    platform = Platform(
        logs("a", "b", more="two"),
        logs("c"),
        state("active"),
        logs("c", "d"),
        state("completed"),
        logs("c", "d", "e"),
    )
    assert [it.message for it in platform.client().jobs.follow_logs("first")] == list("abcde")


def deployment(status, message=""):
    return {**samples.DEPLOYMENT, "status": status, "status_message": message}


def test_a_deployment_is_ready_when_the_gateway_knows_it():
    unknown = httpx.Response(404, json={"detail": "unknown"})
    platform = Platform(deployment("PENDING"), deployment("READY"), unknown, deployment("READY"), {"ready": True})
    assert platform.client().inference.deployments.wait("smol").status == "READY"
    assert platform.sent[-1].endswith("/provider/smol/ready")


def test_a_deployment_that_fails_says_why():
    platform = Platform(deployment("ERROR", "no memory"))
    with pytest.raises(DeploymentFailed, match="no memory"):
        platform.client().inference.deployments.wait("smol")


@pytest.mark.parametrize("last", [deployment("DELETED"), httpx.Response(404, json={"detail": "unknown"})])
def test_a_deployment_is_gone_when_it_says_so_or_is_forgotten(last):
    platform = Platform(deployment("DELETING"), last)
    gone = platform.client().inference.deployments.wait("smol", until="DELETED")
    assert gone is None or gone.status == "DELETED"
