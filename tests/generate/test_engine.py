"""The engine's tokens are those of transformers and PEFT, whoever shares the batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.generate.reference import GREEDY, PROMPTS, Asked, assert_same_choice, greedy
from tests.models import tiny_tokenizer
from tunesmith.data.tokens import Tokenizer
from tunesmith.errors import EngineError, Invalid
from tunesmith.generate import batch
from tunesmith.generate import engine as engine_module
from tunesmith.generate.engine import Engine
from tunesmith.generate.packed import pack_linears
from tunesmith.generate.request import Piece, Request
from tunesmith.generate.sampling import Sampling
from tunesmith.model.load import load_model
from tunesmith.model.peft_files import AdapterWeights, read_adapter

CPU = torch.device("cpu")


def test_prompts_of_many_lengths_in_one_batch_give_the_tokens_of_transformers(engine: Engine, plain: Any) -> None:
    asked = [Asked(engine, prompt, 24) for prompt in PROMPTS]
    for one, prompt in zip(asked, PROMPTS, strict=True):
        assert_same_choice(one.finish().tokens, greedy(plain, prompt, 24))


def test_a_request_alone_gives_what_it_gives_in_a_batch(engine: Engine) -> None:
    together = [Asked(engine, prompt, 16) for prompt in PROMPTS]
    batched = [one.finish().tokens for one in together]
    assert [Asked(engine, prompt, 16).finish().tokens for prompt in PROMPTS] == batched


def test_base_and_adapters_mixed_in_one_batch_give_the_tokens_of_peft(
    engine: Engine, plain: Any, adapted: list[tuple[Path, Any]]
) -> None:
    loaded = [None, *(engine.load(read_adapter(directory)) for directory, _ in adapted)]
    models = [plain, *(model for _, model in adapted)]
    whose = [0, 1, 2, 3, 1, 0, 2, 3]
    prompts = [PROMPTS[place % len(PROMPTS)] for place in range(len(whose))]
    asked = [Asked(engine, prompt, 12, loaded[who]) for prompt, who in zip(prompts, whose, strict=True)]
    answers = [one.finish().tokens for one in asked]
    for answer, prompt, who in zip(answers, prompts, whose, strict=True):
        assert_same_choice(answer, greedy(models[who], prompt, 12))
    assert len({tuple(answers[place]) for place in (0, 4)}) == 2, "the adapters must change something"


def test_more_requests_than_places_are_all_answered(engine: Engine, plain: Any) -> None:
    prompts = [[10 + number, 3, number + 40] for number in range(20)]
    lengths = [1 + number % 7 for number in range(20)]
    asked = [Asked(engine, prompt, length) for prompt, length in zip(prompts, lengths, strict=True)]
    for one, prompt, length in zip(asked, prompts, lengths, strict=True):
        assert_same_choice(one.finish().tokens, greedy(plain, prompt, length))


def test_a_prompt_computed_in_parts_beside_others_changes_nothing(
    engine: Engine, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "PREFILL_TOKENS", 7)
    asked = [Asked(engine, prompt, 10) for prompt in PROMPTS]
    for one, prompt in zip(asked, PROMPTS, strict=True):
        assert_same_choice(one.finish().tokens, greedy(plain, prompt, 10))


def test_rows_that_outgrow_the_memory_wait_and_still_answer_in_full(
    checkpoint: Path, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    position = 2 * 2 * (8 + 8) * 4  # layers x key-value heads x (key + value size) x bytes
    monkeypatch.setattr(engine_module, "free_bytes", lambda device: int(150 * position / 0.5))
    engine = Engine(load_model(checkpoint, "fp32", "sdpa", CPU), Tokenizer.load(checkpoint), most_rows=4)
    try:
        assert engine.context == 150
        monkeypatch.setattr(batch, "ROOM_TO_GROW", 4)
        prompts = [[9, 8, 7], [30, 31], [40] * 5]
        asked = [Asked(engine, prompt, 60, ignore_end=True) for prompt in prompts]
        for one, prompt in zip(asked, prompts, strict=True):
            tokens = one.finish().tokens
            assert len(tokens) == 60
            reference = greedy(plain, prompt, 60)
            assert_same_choice(tokens[: len(reference[0])], reference)
    finally:
        engine.close()


def test_sliding_window_attention_gives_the_tokens_of_transformers(tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    tiny_tokenizer(tmp_path)
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 256}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2, "eos_token_id": 2}
    config = MistralConfig(vocab_size=320, sliding_window=8, **shape, **heads)
    MistralForCausalLM(config).save_pretrained(tmp_path)
    plain = load_model(tmp_path, "fp32", "eager", CPU)
    engine = Engine(load_model(tmp_path, "fp32", "sdpa", CPU), Tokenizer.load(tmp_path), most_rows=4)
    try:
        asked = [Asked(engine, prompt, 12) for prompt in PROMPTS[:4]]
        for one, prompt in zip(asked, PROMPTS, strict=False):
            assert_same_choice(one.finish().tokens, greedy(plain, prompt, 12))
    finally:
        engine.close()


def test_a_seed_repeats_and_another_seed_does_not(engine: Engine) -> None:
    hot = Sampling(temperature=1.0, top_p=0.95, seed=1)
    first, again, other = (
        Asked(engine, PROMPTS[0], 20, sampling=sampling, ignore_end=True).finish().tokens
        for sampling in (hot, hot, replace(hot, seed=2))
    )
    assert first == again
    assert first != other


def test_a_cancelled_request_leaves_and_the_others_go_on(engine: Engine, plain: Any) -> None:
    heard: list[Piece] = []

    def hang_up(piece: Piece) -> None:
        heard.append(piece)
        leaving.cancelled = True

    leaving = Request([3, 4, 5], GREEDY, 200, hang_up, ignore_end=True)
    engine.submit(leaving)
    staying = Asked(engine, [7, 8], 12)
    assert_same_choice(staying.finish().tokens, greedy(plain, [7, 8], 12))
    assert [piece.finish for piece in heard] == [None]


def test_a_request_finishes_on_an_adapter_that_is_unloaded_meanwhile(
    engine: Engine, adapted: list[tuple[Path, Any]]
) -> None:
    directory, model = adapted[1]
    adapter = engine.load(read_adapter(directory))
    running = Asked(engine, [7, 8, 9], 20, adapter)
    running.next()
    engine.unload(adapter)
    assert_same_choice(running.finish().tokens, greedy(model, [7, 8, 9], 20))


def test_an_adapter_of_another_shape_is_refused_by_module_name(engine: Engine) -> None:
    name = "model.layers.0.self_attn.q_proj"
    wrong = AdapterWeights(2, 2, 1.0, {name: (torch.zeros(2, 31), torch.zeros(32, 2))}, "")
    with pytest.raises(EngineError, match=r"31 inputs .* at model\.layers\.0\.self_attn\.q_proj.* 32"):
        engine.load(wrong)
    foreign = AdapterWeights(2, 2, 1.0, {"model.layers.7.mlp.up_proj": (torch.zeros(2, 32), torch.zeros(64, 2))}, "")
    with pytest.raises(EngineError, match=r"model\.layers\.7\.mlp\.up_proj"):
        engine.load(foreign)


def test_log_probabilities_are_those_of_peft(engine: Engine, adapted: list[tuple[Path, Any]]) -> None:
    directory, model = adapted[1]
    ours = engine.log_probabilities(PROMPTS[4], engine.load(read_adapter(directory)))
    with torch.no_grad():
        theirs = model(torch.tensor([PROMPTS[4]])).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("prompt", "most", "says"),
    [([], 1, "no tokens"), ([1] * 250, 10, "250 tokens and 10 .* 256"), ([320], 1, "vocabulary"), ([-1], 1, "vocab")],
)
def test_what_cannot_be_answered_is_refused_with_the_numbers(
    engine: Engine, prompt: list[int], most: int, says: str
) -> None:
    with pytest.raises(Invalid, match=says):
        Asked(engine, prompt, most)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "longrope"},
        {"full_attention": {"rope_type": "dynamic"}, "sliding_attention": {"rope_type": "default"}},
    ],
)
def test_rotary_embeddings_that_change_with_the_longest_row_are_refused(rope: dict[str, Any]) -> None:
    model: Any = SimpleNamespace(config=SimpleNamespace(rope_parameters=rope))
    with pytest.raises(EngineError, match=r"rope_type \((longrope|dynamic)\) is not built yet"):
        Engine(model, model, 1)


def test_a_step_that_fails_ends_its_requests_and_not_the_engine(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as broken_once:
        broken_once.setattr(batch, "choose", broken)
        assert Asked(engine, [1], 1).finish().pieces[-1].error == "RuntimeError: out of luck"
    assert Asked(engine, [1], 1, sampling=GREEDY).finish().pieces[-1].finish in ("length", "stop")


def test_packed_layers_compute_what_dense_ones_do(checkpoint: Path) -> None:
    dense, packed = (load_model(checkpoint, "bf16", "sdpa", CPU) for _ in range(2))
    ids = torch.tensor([PROMPTS[2]])
    if pack_linears(packed):
        assert packed.model.layers[0].mlp.up_proj.weight.numel() == 0
    with torch.inference_mode():
        torch.testing.assert_close(packed(ids).logits, dense(ids).logits, atol=0.15, rtol=0.02)


def test_a_row_whose_numbers_break_fails_alone(engine: Engine, plain: Any) -> None:
    name = "model.layers.0.self_attn.v_proj"
    huge = AdapterWeights(1, 1, 1.0, {name: (torch.full((1, 32), 3e38), torch.full((16, 1), 3e38))}, "")
    adapter = engine.load(huge)
    broken = Asked(engine, list(range(40)), 4, adapter)
    beside = Asked(engine, [7, 8, 9], 200, ignore_end=True)
    assert "not finite" in broken.finish().pieces[-1].error
    # These take over its place while the other row still runs; the longest makes everyone look past its own end.
    after = [Asked(engine, prompt, 16) for prompt in PROMPTS]
    for one, prompt in zip(after, PROMPTS, strict=True):
        assert_same_choice(one.finish().tokens, greedy(plain, prompt, 16))
    assert len(beside.finish().tokens) == 200
