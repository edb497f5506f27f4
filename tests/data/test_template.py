"""Chat templates render as transformers renders them, in a sandbox."""

from __future__ import annotations

import pytest

from tests.models import CHATML
from tunesmith.data.template import ChatTemplate
from tunesmith.errors import DataError

TALK = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "1 < 2 & 'é'\n"},
    {"role": "assistant", "content": "yes"},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "dé"}}]
BLOCKS = """
  {%- for m in messages %}
    {% if m.role == 'system' %}
        {% continue %}
    {% endif %}
    {{ m.content | trim | tojson }}
  {% endfor %}
{{ bos_token }}{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{% if add_generation_prompt %}>{% endif %}
"""
MARKED = (
    "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
)


@pytest.mark.parametrize("source", [CHATML, BLOCKS, MARKED])
@pytest.mark.parametrize("prompted", [True, False])
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_text_equals_transformers(tokenizer, tokenizer_dir, source, prompted, tools):
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast.from_pretrained(tokenizer_dir)
    expected = theirs.apply_chat_template(
        TALK, chat_template=source, tools=tools, tokenize=False, add_generation_prompt=prompted
    )
    ours = ChatTemplate(source, tokenizer.special_tokens).render(TALK, prompted, tools)
    assert ours == expected


def test_generation_marks_give_spans_of_the_rendered_text():
    template = ChatTemplate(MARKED, {"eos_token": "$"})
    text, spans = template.render_marked([*TALK, *TALK[1:]])
    assert template.marks_generation
    assert [text[start:end] for start, end in spans] == ["yes$", "yes$"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('only one system message') }}", "refuses the messages: only one system message"),
        ("{{ ''.__class__.__mro__ }}", "refuses the messages: .*unsafe"),
        ("{{ messages.append(1) }}", "refuses the messages"),
        ("{{ 1 + messages[0].content }}", "refuses the messages"),
        ("{% for %}", "is not lawful jinja"),
    ],
)
def test_what_a_template_refuses_is_told_in_its_own_words(source, words):
    with pytest.raises(DataError, match=words):
        ChatTemplate(source, {}).render(TALK)
