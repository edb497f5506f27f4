"""Templates as checkpoints have them: the text that transformers renders, and a loss on what the assistant says."""

from __future__ import annotations

import json

import pytest

from tests.data.brackets import bracketed, encoded
from tests.data.chat_templates import GEMMA, HARMONY, LLAMA, MARKED, MISTRAL, QWEN, tokenizer_with_markers
from tests.models import CHATML
from tunesmith.data.template import ChatTemplate
from tunesmith.data.tokens import Tokenizer

TOOLS = ({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},)
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
SYSTEM = {"role": "system", "content": "be kind"}
ASKED = {"role": "user", "content": "hi"}
SAID = {"role": "assistant", "content": "yo"}
AGAIN = {"role": "user", "content": "bye"}
THOUGHT = {"role": "assistant", "thinking": "hm"}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
COLD = {"role": "tool", "content": "-3"}

CASES = {
    "llama": (
        LLAMA,
        [SYSTEM, ASKED, {"role": "assistant", "content": " yo\n"}, AGAIN, CALLED, COLD, SAID],
        (
            "<s><|start_header_id|>system<|end_header_id|>\n\nbe kind<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n[yo<|eot_id|>]"
            "<|start_header_id|>user<|end_header_id|>\n\nbye<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
            '[{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>]'
            "<|start_header_id|>tool<|end_header_id|>\n\n-3<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n[yo<|eot_id|>]"
        ),
    ),
    "mistral": (MISTRAL, [ASKED, SAID, AGAIN, SAID], "<s>[INST] hi [/INST][ yo</s>][INST] bye [/INST][ yo</s>]"),
    "gemma": (
        GEMMA,
        [SYSTEM, ASKED, SAID, AGAIN, SAID],
        (
            "<s><start_of_turn>user\nbe kind\n\nhi<end_of_turn>\n<start_of_turn>model\n[yo<end_of_turn>]\n"
            "<start_of_turn>user\nbye<end_of_turn>\n<start_of_turn>model\n[yo<end_of_turn>]\n"
        ),
    ),
    "qwen thinks": (
        QWEN,
        [ASKED, THOUGHT, SAID, AGAIN, THOUGHT, SAID],
        (
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[yo<|im_end|>]\n"
            "<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n[<think>\nhm\n</think>\n\nyo<|im_end|>]\n"
        ),
    ),
    "qwen calls": (
        QWEN,
        [ASKED, CALLED, COLD, COLD, SAID, AGAIN, SAID],
        (
            '<|im_start|>system\n# Tools\n{"type": "function", "function": {"name": "weather", "parameters": '
            '{"type": "object"}}}<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n'
            '[<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>]\n'
            "<|im_start|>user\n<tool_response>\n-3\n</tool_response>\n<tool_response>\n-3\n</tool_response><|im_end|>\n"
            "<|im_start|>assistant\n[yo<|im_end|>]\n<|im_start|>user\nbye<|im_end|>\n"
            "<|im_start|>assistant\n[<think>\n\n</think>\n\nyo<|im_end|>]\n"
        ),
    ),
    "qwen thinks and calls": (
        QWEN,
        [ASKED, THOUGHT, CALLED, COLD, THOUGHT, SAID],
        (
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
            '[<think>\nhm\n</think>\n\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
            "<|im_end|>]\n<|im_start|>user\n<tool_response>\n-3\n</tool_response><|im_end|>\n"
            "<|im_start|>assistant\n[<think>\nhm\n</think>\n\nyo<|im_end|>]\n"
        ),
    ),
    "qwen, the assistant first": (
        QWEN,
        [SAID, ASKED, {"role": "assistant", "content": "what?"}],
        (
            "<|im_start|>assistant\n[yo<|im_end|>]\n<|im_start|>user\nhi<|im_end|>\n"
            "<|im_start|>assistant\n[<think>\n\n</think>\n\nwhat?<|im_end|>]\n"
        ),
    ),
    "harmony": (
        HARMONY,
        [ASKED, THOUGHT, SAID, AGAIN, THOUGHT, CALLED, COLD, THOUGHT, SAID],
        (
            "<|start|>user<|message|>hi<|end|><|start|>assistant[<|channel|>final<|message|>yo]<|end|>"
            "<|start|>user<|message|>bye<|end|>"
            "<|start|>assistant[<|channel|>analysis<|message|>hm<|end|>"
            '<|start|>assistant to=weather<|channel|>commentary<|message|>{"city": "Oslo"}<|call|>]'
            "<|start|>tool<|message|>-3<|end|>"
            "<|start|>assistant[<|channel|>analysis<|message|>hm<|end|>"
            "<|start|>assistant<|channel|>final<|message|>yo<|return|>]"
        ),
    ),
}


@pytest.fixture(scope="session")
def marked_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("markers")
    tokenizer_with_markers(directory)
    return directory


@pytest.fixture(scope="session")
def theirs(marked_dir):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(marked_dir)


@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_taken_on_what_the_assistant_says_and_its_end_token(marked_dir, name):
    source, messages, expected = CASES[name]
    tools = TOOLS if name == "qwen calls" else None
    assert bracketed(Tokenizer.load(marked_dir), source, messages, tools) == expected


@pytest.mark.parametrize("source", [CHATML, LLAMA, MISTRAL, GEMMA, QWEN, HARMONY], ids=lambda source: source[:24])
@pytest.mark.parametrize("prompted", [True, False])
def test_the_text_is_that_of_transformers(marked_dir, theirs, source, prompted):
    messages = [ASKED, SAID, AGAIN] if prompted else [ASKED, SAID, AGAIN, {"role": "assistant", "content": "so\n"}]
    expected = theirs.apply_chat_template(
        messages, chat_template=source, tokenize=False, add_generation_prompt=prompted
    )
    template = ChatTemplate(source, Tokenizer.load(marked_dir).special_tokens)
    assert template.render(messages, prompted) == expected


def test_tools_calls_and_thoughts_are_rendered_as_by_transformers(marked_dir, theirs):
    thinking = {**CALLED, "reasoning_content": "hm"}
    expected = theirs.apply_chat_template(
        [SYSTEM, ASKED, thinking, COLD, SAID], chat_template=QWEN, tools=list(TOOLS), tokenize=False
    )
    call = {"type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": "Oslo"})}}
    ours = [SYSTEM, ASKED, {"role": "assistant", "thinking": "hm", "tool_calls": [call]}, COLD, SAID]
    assert "<think>\nhm\n</think>" in expected
    assert ChatTemplate(QWEN, {}).render(ours, False, TOOLS) == expected


@pytest.mark.parametrize("content", ["yo", "", "é 😀", " two\n\nlines "])
def test_the_mask_of_a_marked_template_is_that_of_transformers(marked_dir, theirs, content):
    messages = [SYSTEM, ASKED, {"role": "assistant", "content": content}, AGAIN, SAID]
    expected = theirs.apply_chat_template(
        messages, chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True
    )
    row = encoded(Tokenizer.load(marked_dir), MARKED, messages)
    assert row.ids == expected["input_ids"]
    assert row.mask == expected["assistant_masks"]
    assert sum(row.mask) > 3
