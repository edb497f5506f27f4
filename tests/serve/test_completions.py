"""Chat and plain completions, as an OpenAI client sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from tests.generate.reference import greedy
from tests.serve.conftest import BASE
from tunesmith.data.tokens import Tokenizer

CHAT = "/v1/chat/completions"
PLAIN = "/v1/completions"
HELLO = [{"role": "user", "content": "hello world"}]


def ask(http: TestClient, path: str, **fields: Any) -> dict[str, Any]:
    reply = http.post(path, json={"model": BASE, "temperature": 0, **fields})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def refused(http: TestClient, path: str, status: int = 400, **fields: Any) -> dict[str, Any]:
    reply = http.post(path, json={"model": BASE, **fields})
    assert reply.status_code == status, reply.text
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    return dict(reply.json()["error"])


def events(http: TestClient, path: str, **fields: Any) -> list[dict[str, Any]]:
    reply = http.post(path, json={"model": BASE, "temperature": 0, "stream": True, **fields})
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in reply.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest.fixture(scope="module")
def tokenizer(deployment: Path) -> Tokenizer:
    return Tokenizer.load(deployment / "inputs" / "model")


def test_chat_answers_as_transformers_would_on_the_rendered_prompt(
    http: TestClient, plain: Any, tokenizer: Tokenizer
) -> None:
    text = "<|im_start|>user\nhello world<|im_end|>\n<|im_start|>assistant\n"
    prompt = tokenizer.encode(text)
    reference, _ = greedy(plain, prompt, 24)
    ends = reference[-1] in tokenizer.end_ids
    answer = ask(http, CHAT, messages=HELLO, max_tokens=24)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == BASE
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": tokenizer.decode(reference)}
    assert choice["finish_reason"] == ("stop" if ends else "length")
    assert answer["usage"] == {
        "prompt_tokens": len(prompt),
        "completion_tokens": len(reference),
        "total_tokens": len(prompt) + len(reference),
    }


def test_a_prompt_may_be_text_or_token_ids(http: TestClient, tokenizer: Tokenizer) -> None:
    as_text = ask(http, PLAIN, prompt="how are you")
    as_ids = ask(http, PLAIN, prompt=tokenizer.encode("how are you", special=True))
    assert as_text["object"] == "text_completion"
    assert as_text["choices"] == as_ids["choices"]
    assert as_text["usage"]["completion_tokens"] <= 16


@pytest.mark.parametrize("path", [CHAT, PLAIN])
def test_a_stream_adds_up_to_the_whole_answer(http: TestClient, path: str) -> None:
    prompt: dict[str, Any] = {"messages": HELLO} if path == CHAT else {"prompt": "hello"}
    whole = ask(http, path, max_tokens=30, ignore_eos=True, **prompt)
    options = {"stream_options": {"include_usage": True}}
    told = events(http, path, max_tokens=30, ignore_eos=True, **options, **prompt)
    *chunks, last = told
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert len({chunk["id"] for chunk in told}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    if path == CHAT:
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}
        text = "".join(choice["delta"].get("content", "") for choice in choices)
        assert text == whole["choices"][0]["message"]["content"]
    else:
        assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["length"]
    assert len(chunks) > 3


def test_a_stream_without_options_tells_no_usage(http: TestClient) -> None:
    assert all("usage" not in chunk for chunk in events(http, PLAIN, prompt="a", max_tokens=3))


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_a_stop_string(http: TestClient, stream: bool) -> None:
    fields: dict[str, Any] = {"prompt": "hello", "max_tokens": 30, "ignore_eos": True}
    whole = ask(http, PLAIN, **fields)["choices"][0]["text"]
    stop = whole[7:12]  # spans tokens: this model's are mostly single bytes
    if stream:
        chunks = [chunk["choices"][0] for chunk in events(http, PLAIN, stop=["never this", stop], **fields)]
        text, finish = "".join(chunk["text"] for chunk in chunks), chunks[-1]["finish_reason"]
    else:
        answer = ask(http, PLAIN, stop=stop, **fields)
        text, finish = answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]
        assert answer["usage"]["completion_tokens"] < 30
    assert text == whole[: whole.index(stop)]
    assert finish == "stop"


def test_a_seed_repeats(http: TestClient) -> None:
    hot = {"prompt": "hello", "temperature": 1.5, "top_k": 50, "top_p": 0.9, "ignore_eos": True}
    texts = [ask(http, PLAIN, seed=seed, **hot)["choices"][0]["text"] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_chat_without_a_limit_fills_the_context_at_most(http: TestClient) -> None:
    usage = ask(http, CHAT, messages=HELLO, ignore_eos=True)["usage"]
    assert usage["total_tokens"] == 256


def test_values_that_change_nothing_are_accepted(http: TestClient) -> None:
    neutral = {"n": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "user": "me", "stop": None}
    ask(
        http, CHAT, messages=HELLO, max_completion_tokens=2, logprobs=False, response_format={"type": "text"}, **neutral
    )
    ask(http, PLAIN, prompt="a", max_tokens=2, echo=False, logprobs=None, best_of=1, **neutral)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"bogus": 1}, "bogus"),
        (CHAT, {"n": 2}, "n"),
        (CHAT, {"frequency_penalty": 0.5}, "frequency_penalty"),
        (CHAT, {"logprobs": True}, "logprobs"),
        (CHAT, {"tools": [{"type": "function"}]}, "tools"),
        (CHAT, {"response_format": {"type": "json_object"}}, "response_format.type"),
        (CHAT, {"temperature": 3}, "temperature"),
        (CHAT, {"max_tokens": 0}, "max_tokens"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        (PLAIN, {"echo": True}, "echo"),
        (PLAIN, {"logit_bias": {"5": 1}}, "logit_bias"),
        (PLAIN, {"prompt": ["a", "b"]}, "prompt"),
        (PLAIN, {"stop": ["a", "b", "c", "d", "e"]}, None),
        (PLAIN, {"stream_options": {"include_usage": True}}, None),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(
    http: TestClient, path: str, fields: dict[str, Any], param: str | None
) -> None:
    full: dict[str, Any] = {"messages": HELLO} if path == CHAT else {"prompt": "a"}
    error = refused(http, path, **{**full, **fields})
    assert error["param"] == param
    assert next(iter(fields)) in error["message"]


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(http: TestClient) -> None:
    message = refused(http, PLAIN, prompt=[5] * 250, max_tokens=10)["message"]
    assert all(number in message for number in ("250", "10", "256"))
    assert "256" in refused(http, CHAT, messages=[{"role": "user", "content": "x" * 400}])["message"]


def test_an_unknown_model_is_a_404_that_lists_what_is_served(http: TestClient) -> None:
    error = refused(http, CHAT, 404, model="gpt-4", messages=HELLO)
    assert "gpt-4" in error["message"]
    assert BASE in error["message"]


@pytest.mark.parametrize("header", [None, "Bearer wrong", "a-token", "Bearer "])
def test_every_call_needs_the_token(http: TestClient, header: str | None) -> None:
    stranger = TestClient(http.app)
    headers = {} if header is None else {"Authorization": header}
    for reply in (stranger.get("/health", headers=headers), stranger.post(CHAT, json={}, headers=headers)):
        assert reply.status_code == 401
        assert "Authorization" in reply.json()["error"]["message"]
    assert http.get("/health").json() == {"status": "ok"}


def test_bodies_that_are_not_json_and_routes_that_do_not_exist_get_an_openai_error(http: TestClient) -> None:
    assert http.post(CHAT, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    missing = http.get("/v1/nothing")
    assert missing.status_code == 404
    assert "/v1/nothing" in missing.json()["error"]["message"]


def test_a_model_whose_logits_break_is_an_error_and_not_an_answer(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.generate import batch

    with monkeypatch.context() as broken:
        broken.setattr(batch, "forward", lambda model, step, tokens, last: torch.full((len(last), 320), torch.nan))
        assert "not finite" in refused(http, PLAIN, 500, prompt="a")["message"]
    ask(http, PLAIN, prompt="a", max_tokens=1)
