"""What a lawful row is: a prompt with its completion, a text, or a conversation.

Which of them a row is, its keys say: `text`, else `prompt` and `completion`, else `messages`; a job may name others
(`RowRules`). Keys that are not asked for are ignored, except in messages.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.data.faults import RowFault
from tunesmith.errors import DataError

MESSAGE_KEYS = ("role", "content", "thinking", "tool_calls", "tool_call_id", "name")
"""All that a message may have; anything else is a misspelling that a template would drop without a word."""


@dataclass(frozen=True, slots=True)
class PromptCompletion:
    """Tokenised separately and joined as given; the loss is on the completion and the end token."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Text:
    """All tokens are trained on."""

    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Rendered by the chat template; the loss is on the assistant's turns."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] | None


Row = PromptCompletion | Text | Conversation

FORMATS: dict[type[Row], str] = {Conversation: "messages", PromptCompletion: "prompt/completion", Text: "text"}
"""What people call them."""


@dataclass(frozen=True, slots=True)
class RowRules:
    """How rows are read: what a job says about its data set beside where it lies."""

    text_field: str = "text"
    """The key whose text is trained on whole."""
    prompt_template: str = ""
    """Two placeholders, `"Q: {question} A: {answer}"`: then each row needs both keys. What stands before the second
    one is the prompt, all else the completion, with the spaces in front of it. "" = by keys."""
    conversations: bool = True
    """Whether `messages` rows are rendered; a dialect may want to be told so first."""
    columns: bool = True
    """Whether rows without any known key, but with exactly two texts, are prompts with completions."""


class RowParser:
    """Rows of one data set out of JSON values."""

    def __init__(self, rules: RowRules = RowRules()) -> None:
        """DataError if the prompt template does not have two placeholders."""
        self.rules = rules
        self.columns: tuple[str, str] | None = None
        """The two keys that were taken as prompt and completion for want of known ones: the first such row decides."""
        self._template = _pieces(rules.prompt_template) if rules.prompt_template else None

    def __call__(self, value: Any) -> Row:
        """The row that a JSON value is; RowFault names the first key that breaks a rule."""
        if not isinstance(value, dict):
            raise RowFault("", f"a row must be a JSON object, not {_kind(value)}")
        rules = self.rules
        if self._template:
            return self._filled(value, self._template)
        if rules.text_field in value:
            return Text(_string(value[rules.text_field], rules.text_field, filled=True))
        if "prompt" in value and "completion" in value:
            prompt = _string(value["prompt"], "prompt", filled=False)
            return PromptCompletion(prompt, _string(value["completion"], "completion", filled=True))
        if "messages" in value:
            if not rules.conversations:
                raise RowFault(
                    "messages", "conversations are rendered with dataset.apply_chat_template = true, which is false"
                )
            return Conversation(_messages(value["messages"]), _tools(value.get("tools")))
        return self._two_columns(value)

    def _filled(self, row: Mapping[str, Any], template: tuple[str, str, str, str, str]) -> PromptCompletion:
        before, first, between, second, after = template
        texts = []
        for key in (first, second):
            if key not in row:
                raise RowFault(key, f"is missing; dataset.prompt_template '{self.rules.prompt_template}' names it")
            texts.append(_string(row[key], key, filled=key == second))
        head = between.rstrip(" ")
        return PromptCompletion(before + texts[0] + head, between[len(head) :] + texts[1] + after)

    def _two_columns(self, row: Mapping[str, Any]) -> PromptCompletion:
        texts = tuple(key for key, value in row.items() if isinstance(value, str))
        if self.rules.columns and len(texts) == 2:
            first, second = self.columns = self.columns or (texts[0], texts[1])
            if set(texts) == {first, second}:
                return PromptCompletion(row[first], _string(row[second], second, filled=True))
        keys = ", ".join(map(repr, row)) or "none"
        known = f"'messages', or 'prompt' and 'completion', or '{self.rules.text_field}'"
        hint = "; name two of them in dataset.prompt_template" if self.rules.columns and len(texts) > 2 else ""
        raise RowFault("", f"a row needs {known}; its keys: {keys}{hint}")


def as_columns(columns: tuple[str, str]) -> str:
    """What a user should know of rows whose meaning was guessed."""
    first, second = columns
    return (
        f"rows have no key that is known: '{first}' is taken as the prompt and '{second}' as the completion; "
        "dataset.prompt_template says otherwise"
    )


def _pieces(template: str) -> tuple[str, str, str, str, str]:
    """Text before, first key, text between, second key, text after."""
    refusal = (
        f"dataset.prompt_template '{template}' must have two placeholders, such as '{{prompt}} {{completion}}': "
        "the first names the key of the prompt, the second that of the completion"
    )
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise DataError(f"{refusal} ({error})") from None
    texts, keys = [""], []
    for text, key, form, conversion in parts:
        texts[-1] += text
        if key is None:
            continue
        if not key or form or conversion:
            raise DataError(refusal)
        keys.append(key)
        texts.append("")
    if len(keys) != 2 or keys[0] == keys[1]:
        raise DataError(refusal)
    return texts[0], keys[0], texts[1], keys[1], texts[2]


def _messages(value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not value:
        raise RowFault("messages", f"must be a list with at least one message, not {_kind(value)}")
    for number, message in enumerate(value):
        _check_message(message, f"messages[{number}]")
    if not any(message["role"] == "assistant" for message in value):
        raise RowFault("messages", "no message has the role 'assistant', so there is nothing to train on")
    return tuple(value)


def _check_message(message: Any, key: str) -> None:
    if not isinstance(message, dict):
        raise RowFault(key, f"must be an object with 'role' and 'content', not {_kind(message)}")
    unknown = [name for name in message if name not in MESSAGE_KEYS]
    if unknown:
        raise RowFault(f"{key}.{unknown[0]}", f"is not a key of a message: {', '.join(MESSAGE_KEYS)}")
    role = _string(message.get("role"), f"{key}.role", filled=True)
    thinking, calls = message.get("thinking"), message.get("tool_calls")
    if message.get("content") is not None and thinking is not None:
        raise RowFault(f"{key}.thinking", "cannot stand beside 'content': make it a message of its own")
    for name, given in (("thinking", thinking), ("tool_calls", calls)):
        if given and role != "assistant":
            raise RowFault(f"{key}.{name}", f"belongs to the role 'assistant', not '{role}'")
    _check_calls(calls, f"{key}.tool_calls")
    if thinking is not None:
        _string(thinking, f"{key}.thinking", filled=False)
    elif not calls or message.get("content") is not None:
        _string(message.get("content"), f"{key}.content", filled=False)


def _check_calls(calls: Any, key: str) -> None:
    """A list of objects, whose arguments are an object, or text that is the JSON of one."""
    if calls is None:
        return
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise RowFault(key, f"must be a list of objects, not {_kind(calls)}")
    for number, call in enumerate(calls):
        inner = call.get("function")
        function, where = (inner, ".function") if isinstance(inner, dict) else (call, "")
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments.strip():
            try:
                json.loads(arguments)
            except (ValueError, RecursionError) as error:
                raise RowFault(f"{key}[{number}]{where}.arguments", f"must be an object or its JSON: {error}") from None


def _tools(value: Any) -> tuple[Mapping[str, Any], ...] | None:
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowFault("tools", f"must be a list of objects, not {_kind(value)}")
    return tuple(value)


def _string(value: Any, key: str, filled: bool) -> str:
    if not isinstance(value, str):
        raise RowFault(key, f"must be a string, not {_kind(value)}")
    if filled and not value:
        raise RowFault(key, "must not be empty")
    return value


def _kind(value: Any) -> str:
    """What a JSON value is, in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "an object"
    return "a string" if isinstance(value, str) else "a number"
