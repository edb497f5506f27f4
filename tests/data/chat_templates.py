"""Chat templates of the shapes that published checkpoints have, in small, and a tokenizer that knows their markers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.models import tiny_tokenizer

END_TOKENS = ("<|im_end|>", "<|eot_id|>", "</s>", "<end_of_turn>", "<|return|>", "<|call|>")
"""What ends an answer in one of these templates."""
_OTHERS = (
    "<s> <|start_header_id|> <|end_header_id|> <start_of_turn> [INST] [/INST] <|start|> <|channel|> <|message|> <|end|>"
)
MARKERS = (*END_TOKENS, *_OTHERS.split())

LLAMA = """{{- bos_token }}
{%- for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}
{%- if m.tool_calls %}{% set call = m.tool_calls[0].function %}
{{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- '}' }}
{%- else %}{{- m.content | trim }}
{%- endif %}{{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
"""Trims what is said."""

MISTRAL = """{{- bos_token }}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- if m.role == 'user' %}{{- '[INST] ' + m.content + ' [/INST]' }}
{%- else %}{{- ' ' + m.content + '</s>' }}
{%- endif %}{% endfor %}"""
"""Has no generation prompt."""

GEMMA = """{{- bos_token }}
{%- if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}{% set rest = messages[1:] %}
{%- else %}{% set first = '' %}{% set rest = messages %}{% endif %}
{%- for m in rest %}{% set role = 'model' if m.role == 'assistant' else m.role %}
{{- '<start_of_turn>' + role + '\n' + (first if loop.first else '') + m.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{% endif %}"""
"""Calls the assistant model and puts what the system says into the first turn."""

QWEN = """{%- if tools %}<|im_start|>system
{{ messages[0].content + '\n' if messages[0].role == 'system' else '' }}# Tools
{%- for tool in tools %}
{{- '\n' }}{{- tool | tojson }}
{%- endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- set asked = namespace(last=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set asked.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}
{%- elif m.role == 'assistant' %}
{%- set thought = m.reasoning_content if m.reasoning_content is string else '' %}
{{- '<|im_start|>assistant\n' }}
{%- if loop.index0 > asked.last and (loop.last or thought) %}{{- '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}
{{- m.content }}
{%- for call in m.tool_calls or [] %}
{{- '\n' if m.content or not loop.first else '' }}
{{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}{{- call.function.arguments | tojson }}
{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- elif m.role == 'tool' %}
{{- '<|im_start|>user' if loop.previtem.role != 'tool' else '' }}
{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
{{- '<|im_end|>\n' if loop.last or loop.nextitem.role != 'tool' else '' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}"""
"""Thinks behind the last question and forgets the thoughts before it."""

HARMONY = """{%- for m in messages %}
{%- if m.role != 'assistant' %}{{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}
{%- elif m.tool_calls %}
{%- if m.content and m.thinking %}{{ raise_exception('a thought or a content') }}{% endif %}
{%- if m.thinking %}{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}
{%- set call = m.tool_calls[0].function %}
{{- '<|start|>assistant to=' + call.name + '<|channel|>commentary<|message|>' }}{{- call.arguments | tojson }}
{{- '<|call|>' }}
{%- elif loop.last and not add_generation_prompt %}
{%- if m.thinking %}{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}
{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}
{%- else %}{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{% endif %}"""
"""Ends the last answer with a token that no earlier one has."""

MARKED = """{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}
{%- else %}{{- m.content + '<|im_end|>' }}{% endif %}
{{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}"""
"""Says itself what the assistant says."""


def tokenizer_with_markers(directory: Path) -> None:
    """`tiny_tokenizer` with every marker above as a special token, and all of `END_TOKENS` as ends."""
    import tokenizers

    tiny_tokenizer(directory)
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_special_tokens(list(MARKERS))
    tokenizer.save(str(directory / "tokenizer.json"))
    ends = [tokenizer.token_to_id(token) for token in END_TOKENS]
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    config = {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
