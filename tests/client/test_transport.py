"""What is repeated and what is not, how long the client waits, and how a refusal reads."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.client import samples
from tests.client.samples import Platform
from tunesmith import Tunesmith
from tunesmith.client import errors
from tunesmith.errors import Conflict, Invalid, NotFound, TunesmithError

REFUSED = httpx.ConnectError("Connection refused")
CUT_OFF = httpx.ReadError("connection reset")
BUSY = httpx.Response(503, json={"detail": "busy"})


@pytest.mark.parametrize("trouble", [REFUSED, CUT_OFF, httpx.ReadTimeout("slow"), BUSY, httpx.Response(429)])
def test_reading_is_tried_three_times(trouble):
    platform = Platform(trouble, trouble, samples.MODEL)
    assert platform.client().models.retrieve("smol").name == "smol"
    first, second = platform.pauses
    assert 0.375 <= first <= 0.5
    assert 0.75 <= second <= 1


def test_the_async_client_tries_as_often():
    platform = Platform(CUT_OFF, BUSY, samples.MODEL)

    async def run():
        async with platform.aclient() as client:
            return await client.models.retrieve("smol")

    assert asyncio.run(run()).name == "smol"
    assert len(platform.pauses) == 2


def test_the_third_failure_is_the_last():
    platform = Platform(BUSY, BUSY, BUSY)
    with pytest.raises(errors.InternalServerError, match="busy"):
        platform.client().models.retrieve("smol")
    assert len(platform.sent) == 3


@pytest.mark.parametrize("trouble", [CUT_OFF, httpx.ReadTimeout("slow"), BUSY])
def test_what_might_have_been_created_is_not_created_again(trouble):
    platform = Platform(trouble)
    with pytest.raises(errors.APIError):
        platform.client().models.create("smol", fileset="smol")
    assert len(platform.sent) == 1


@pytest.mark.parametrize("trouble", [CUT_OFF, httpx.ReadTimeout("slow"), BUSY])
def test_a_job_is_asked_for_again_under_the_same_key(trouble):
    platform = Platform(trouble, samples.AUTOMODEL_JOB, samples.AUTOMODEL_JOB)
    jobs = platform.client().customization.automodel.jobs
    jobs.create(spec=samples.JOB_SPEC)
    jobs.create(spec=samples.JOB_SPEC)
    first, again, another = [request.headers["idempotency-key"] for request in platform.requests]
    assert first == again != another


def test_a_key_of_ones_own_goes_along():
    platform = Platform(samples.JOBS["rl"])
    platform.client().customization.rl.jobs.create(spec=samples.SPECS["rl"], idempotency_key="night-7")
    assert platform.requests[0].headers["idempotency-key"] == "night-7"


@pytest.mark.parametrize("trouble", [REFUSED, httpx.Response(503, headers={"x-should-retry": "true"})])
def test_what_was_surely_not_created_is_tried_again(trouble):
    platform = Platform(trouble, samples.MODEL)
    platform.client().models.create("smol", fileset="smol")
    assert len(platform.sent) == 2


def test_the_platform_may_forbid_another_try():
    platform = Platform(httpx.Response(503, headers={"x-should-retry": "false"}))
    with pytest.raises(errors.InternalServerError):
        platform.client().models.retrieve("smol")
    assert platform.pauses == []


def test_cancelling_twice_does_no_harm_and_is_tried_again():
    platform = Platform(CUT_OFF, samples.JOB)
    assert platform.client().jobs.cancel("first").name == "first"


@pytest.mark.parametrize(
    ("headers", "seconds"), [({"retry-after": "7"}, 7), ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5)]
)
def test_the_platform_says_how_long_to_wait(headers, seconds):
    platform = Platform(httpx.Response(429, headers=headers), samples.MODEL)
    platform.client().models.retrieve("smol")
    assert platform.pauses == [seconds]


def test_nobody_waits_an_hour():
    platform = Platform(httpx.Response(429, headers={"retry-after": "3600"}), samples.MODEL)
    platform.client().models.retrieve("smol")
    assert platform.pauses[0] < 1


@pytest.mark.parametrize(
    ("status", "kind", "also"),
    [
        (400, errors.BadRequestError, TunesmithError),
        (401, errors.AuthenticationError, TunesmithError),
        (403, errors.PermissionDeniedError, TunesmithError),
        (404, errors.NotFoundError, NotFound),
        (409, errors.ConflictError, Conflict),
        (418, errors.APIStatusError, TunesmithError),
        (422, errors.UnprocessableEntityError, Invalid),
        (429, errors.RateLimitError, TunesmithError),
        (500, errors.InternalServerError, TunesmithError),
        (507, errors.InternalServerError, TunesmithError),
    ],
)
def test_each_status_has_its_exception(status, kind, also):
    platform = Platform(by=lambda _: httpx.Response(status, json={"detail": "no, because"}))
    with pytest.raises(kind, match="no, because") as caught:
        platform.client().models.retrieve("smol")
    assert isinstance(caught.value, also)
    assert caught.value.status_code == status
    assert caught.value.detail == "no, because"
    assert caught.value.body == {"detail": "no, because"}


def test_a_list_of_broken_rules_reads_as_a_line_each():
    detail = [
        {"type": "greater_than", "loc": ["body", "spec", "training", "lora", "rank"], "msg": "must be above 0"},
        {"type": "value_error", "loc": ["body"], "msg": "Value error, batch does not divide", "ctx": {"error": {}}},
    ]
    platform = Platform(httpx.Response(422, json={"detail": detail}))
    with pytest.raises(errors.UnprocessableEntityError) as caught:
        platform.client().models.create("smol", fileset="smol")
    assert caught.value.detail == "spec.training.lora.rank: must be above 0\nbatch does not divide"


def test_a_refusal_without_words_names_the_request():
    platform = Platform(httpx.Response(403))
    with pytest.raises(errors.PermissionDeniedError, match=r"GET /apis/models/.*/smol was answered with status 403"):
        platform.client().models.retrieve("smol")


def test_nobody_there_says_how_to_start_it():
    platform = Platform(REFUSED, REFUSED, REFUSED)
    with pytest.raises(errors.APIConnectionError, match=r"http://platform .*`tunesmith up`"):
        platform.client().models.retrieve("smol")


def test_too_slow_is_a_timeout():
    platform = Platform(by=lambda _: httpx.ReadTimeout("slow"))
    with pytest.raises(errors.APITimeoutError, match="did not answer in time"):
        platform.client().models.retrieve("smol")


def test_not_ready_is_an_answer():
    platform = Platform(httpx.Response(503, json={"status": "not_ready"}))
    assert platform.client().health() == {"status": "not_ready"}
    assert len(platform.sent) == 1


def test_another_server_at_the_address_is_noticed():
    platform = Platform(httpx.Response(200, text="<html>It works!</html>"))
    with pytest.raises(errors.APIResponseError, match="is platform the address of a Tunesmith server"):
        platform.client().models.retrieve("smol")


def test_what_a_newer_platform_adds_is_ignored():
    job = {**samples.AUTOMODEL_JOB, "new": 1, "spec": {**samples.AUTOMODEL_JOB["spec"], "new": {"a": 1}}}
    assert Platform(job).client().customization.automodel.jobs.retrieve("first").spec.model == "default/smol"


def test_an_absent_key_is_null_as_lists_drop_nulls():
    listed = {key: value for key, value in samples.JOB.items() if value is not None}
    assert "error_details" not in listed
    assert Platform(samples.page(listed)).client().jobs.list().data[0].error_details is None


def test_an_answer_of_another_shape_says_so():
    with pytest.raises(errors.APIResponseError, match=r"created_at: .*different versions"):
        Platform({**samples.MODEL, "created_at": "soon"}).client().models.retrieve("smol")


def test_a_wrong_call_fails_before_the_wire():
    platform = Platform()
    spec = {**samples.JOB_SPEC, "training": {"lora": {"rank": 0}}, "bach": {}}
    with pytest.raises(Invalid) as caught:
        platform.client().customization.automodel.jobs.create(name="first", spec=spec)
    lines = caught.value.message.splitlines()
    assert any(line.startswith("spec.training.lora.rank: ") for line in lines)
    assert any(line.startswith("spec.bach: ") for line in lines)
    assert platform.sent == []


@pytest.mark.parametrize(
    ("backend", "spec", "said"),
    [
        (
            "automodel",
            {"model": "m", "dataset": "d", "training": {"batch_size": 3}},
            [
                "spec.dataset: dataset has the shape that rl would take; here it is `dataset: {training: my-dataset}`",
                "spec.training.batch_size: training.batch_size is rl's; here it is batch.global_batch_size",
            ],
        ),
        (
            "unsloth",
            {"model": {"name": "m"}, "dataset": {"path": "d"}, "optimizer": {"adam_eps": 1e-6}},
            ["spec.optimizer.adam_eps: optimizer.adam_eps is automodel's; here it is optimizer.adam_epsilon"],
        ),
    ],
)
def test_a_field_of_another_backend_is_told_what_it_is_called_here(backend, spec, said):
    with pytest.raises(Invalid) as caught:
        getattr(Platform().client().customization, backend).jobs.create(spec=spec)
    assert caught.value.message.splitlines() == said


@pytest.mark.parametrize("name", ["", "a/b/c", "..", "/a"])
def test_what_is_no_name_never_becomes_another_address(name):
    platform = Platform()
    with pytest.raises(Invalid):
        platform.client().models.retrieve(name)
    assert platform.sent == []


def test_address_and_workspace_come_from_the_environment(monkeypatch):
    for name in ("TUNESMITH_BASE_URL", "NMP_BASE_URL", "TUNESMITH_WORKSPACE", "NMP_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    assert Tunesmith().base_url == "http://localhost:8080"
    assert Tunesmith().workspace == "default"
    monkeypatch.setenv("NMP_BASE_URL", "http://nmp/")
    monkeypatch.setenv("NMP_WORKSPACE", "theirs")
    assert Tunesmith().base_url == "http://nmp"
    assert Tunesmith().workspace == "theirs"
    monkeypatch.setenv("TUNESMITH_BASE_URL", "http://ours")
    monkeypatch.setenv("TUNESMITH_WORKSPACE", "ours")
    assert Tunesmith().base_url == "http://ours"
    assert Tunesmith().workspace == "ours"
    assert Tunesmith("https://given", "mine").base_url == "https://given"
    with pytest.raises(Invalid, match="must start with http"):
        Tunesmith("localhost:8080")


def test_an_existing_fileset_may_do():
    platform = Platform(httpx.Response(409, json={"detail": "exists"}), samples.FILESET)
    assert platform.client().files.filesets.create("triage", exist_ok=True).name == "triage"
    assert platform.sent[-1].startswith("GET ")
    with pytest.raises(errors.ConflictError):
        Platform(httpx.Response(409)).client().files.filesets.create("triage")
