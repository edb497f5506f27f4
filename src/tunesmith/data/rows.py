"""What a lawful row is: a prompt with its completion, a text, or a conversation.

Which of them a row is, its keys say: `text`, else `prompt` and `completion`, else `messages`. Other keys are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import DataError

MESSAGE_KEYS = ("role", "content", "thinking", "tool_calls", "tool_call_id", "name")
"""All that a message may have; anything else is a misspelling that a template would drop without a word."""

FAULTS_IN_MESSAGE, FAULTS_IN_DETAIL = 3, 100
"""How many bad rows an error tells of, in its message and in its detail."""


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


class RowFault(DataError):
    """One row breaks a rule; `key` is where in the row, "" for the row itself."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"key '{key}': {problem}" if key else problem)


class BadRows(DataError):
    """Some rows of a data set break rules: the first few in the message, more in `detail`."""

    def __init__(self, faults: Faults) -> None:
        count, shown = faults.count, faults.kept[:FAULTS_IN_MESSAGE]
        more = f"; and {count - len(shown)} more" if count > len(shown) else ""
        super().__init__(f"{count} bad row{'s' if count > 1 else ''}: {'; '.join(shown)}{more}")
        self.detail = "\n".join(faults.kept)


class Faults:
    """All bad rows of a data set, counted; the first FAULTS_IN_DETAIL in words."""

    def __init__(self) -> None:
        self.count = 0
        self.kept: list[str] = []

    def add(self, place: str, fault: DataError) -> None:
        """`place` names file and line."""
        self.count += 1
        if len(self.kept) < FAULTS_IN_DETAIL:
            self.kept.append(f"{place}: {fault.message}")

    def raise_any(self) -> None:
        """BadRows if there was a fault."""
        if self.count:
            raise BadRows(self)


def parse_row(value: Any) -> Row:
    """The row that a JSON value is; RowFault names the first key that breaks a rule."""
    if not isinstance(value, dict):
        raise RowFault("", f"a row must be a JSON object, not {_kind(value)}")
    if "text" in value:
        return Text(_string(value["text"], "text", filled=True))
    if "prompt" in value and "completion" in value:
        prompt = _string(value["prompt"], "prompt", filled=False)
        return PromptCompletion(prompt, _string(value["completion"], "completion", filled=True))
    if "messages" in value:
        return Conversation(_messages(value["messages"]), _tools(value.get("tools")))
    keys = ", ".join(map(repr, value)) or "none"
    raise RowFault("", f"a row needs 'messages', or 'prompt' and 'completion', or 'text'; its keys: {keys}")


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
    _string(message.get("role"), f"{key}.role", filled=True)
    if message.get("content") is not None and message.get("thinking") is not None:
        raise RowFault(f"{key}.thinking", "cannot stand beside 'content': make it a message of its own")
    calls = message.get("tool_calls")
    if calls is not None and (not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls)):
        raise RowFault(f"{key}.tool_calls", f"must be a list of objects, not {_kind(calls)}")
    if message.get("content") is None and (message.get("thinking") is not None or calls):
        if message.get("thinking") is not None:
            _string(message["thinking"], f"{key}.thinking", filled=False)
        return
    _string(message.get("content"), f"{key}.content", filled=False)


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
