"""A chat template: the jinja text of a checkpoint that turns messages into one string.

Templates are foreign code, so they run in jinja's immutable sandbox. The environment (block trimming, `tojson`,
`raise_exception`, `strftime_now`, loop controls, the `generation` tag) is the one that checkpoints are written for.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunesmith.errors import DataError

Message = Mapping[str, Any]
Span = tuple[int, int]
"""Characters [start, end) of a rendered text."""

_NONCE = secrets.token_hex(8)
_OPEN, _CLOSE = f"\ufdd0{_NONCE}\ufdd1", f"\ufdd2{_NONCE}\ufdd3"
"""What the `generation` tag leaves in the output; no row can contain them, and they never leave this module."""

_TEMPLATE_FAULTS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What foreign jinja code raises when messages are not as it expects."""


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` encloses what the assistant says."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks = [nodes.Output([nodes.TemplateData(mark)]).set_lineno(line) for mark in (_OPEN, _CLOSE)]
        return [marks[0], nodes.Scope(body).set_lineno(line), marks[1]]


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005 - templates mean the wall clock


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    return environment


class ChatTemplate:
    """A compiled template with the checkpoint's special tokens (`bos_token`, `eos_token`, ...) as variables."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """DataError if `source` is not lawful jinja."""
        self._special_tokens = dict(special_tokens)
        environment = _environment()
        try:
            self._template = environment.from_string(source)
            self.marks_generation = any(tag == "generation" for tag in _tags(environment, source))
            """True if the template itself says which text is the assistant's."""
        except TemplateError as error:
            raise DataError(f"the chat template is not lawful jinja: {error}") from None

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The messages as one string; DataError with the template's own words if it refuses them.

        With `add_generation_prompt` the text ends where an assistant's answer begins.
        """
        return self.render_marked(messages, add_generation_prompt, tools)[0]

    def render_marked(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> tuple[str, list[Span]]:
        """The text, and the character spans that stood between the template's `generation` marks."""
        try:
            marked = self._template.render(
                messages=[_as_templates_expect(message) for message in messages],
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except _TEMPLATE_FAULTS as error:
            raise DataError(f"the chat template refuses the messages: {error}") from None
        return _take_marks_out(marked)


def _as_templates_expect(message: Message) -> dict[str, Any]:
    """The message without nulls, with a content, and with the arguments of tool calls as objects rather than JSON.

    So do servers of the OpenAI kind before they render, since templates join strings and apply `tojson` themselves.
    A thought has both names that templates know it by.
    """
    found = {key: value for key, value in message.items() if value is not None}
    found.setdefault("content", "")
    if "thinking" in found:
        found.setdefault("reasoning_content", found["thinking"])
    if isinstance(found.get("tool_calls"), list):
        found["tool_calls"] = [with_arguments(call) for call in found["tool_calls"]]
    return found


def with_arguments(call: Any) -> Any:
    """A tool call whose arguments are an object, where they were the JSON of one."""
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), dict):
        return {**call, "function": with_arguments(call["function"])}
    arguments = call.get("arguments")
    if not isinstance(arguments, str):
        return call
    try:
        return {**call, "arguments": json.loads(arguments) if arguments.strip() else {}}
    except (ValueError, RecursionError):
        return call


def _tags(environment: ImmutableSandboxedEnvironment, source: str) -> list[str]:
    """The name behind each `{%`."""
    tokens = [(kind, value) for _, kind, value in environment.lex(source) if kind != "whitespace"]
    return [value for (before, _), (_, value) in itertools.pairwise(tokens) if before == "block_begin"]


def _take_marks_out(marked: str) -> tuple[str, list[Span]]:
    pieces: list[str] = []
    spans: list[Span] = []
    length = 0
    for number, part in enumerate(marked.split(_OPEN)):
        inside, close, outside = part.partition(_CLOSE)
        if number and close:
            spans.append((length, length + len(inside)))
        pieces += [inside, outside]
        length += len(inside) + len(outside)
    return "".join(pieces), spans
