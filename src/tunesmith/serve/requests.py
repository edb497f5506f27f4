"""What a caller may ask, in OpenAI's words: every field is honoured, or neutral, or refused by name.

A field that would change the answer and is not built may only stand at the value that changes nothing.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from tunesmith.described import Described
from tunesmith.generate.sampling import Sampling

MOST_STOPS = 4
"""Stop strings per request, as OpenAI has it."""
COMPLETION_TOKENS = 16
"""Default `max_tokens` of /v1/completions, as OpenAI has it."""

StopString = Annotated[str, Field(min_length=1)]


class Asked(Described):
    """A request body: closed, so that a misspelt field is an error and not a silence."""

    model_config = ConfigDict(extra="forbid")


class StreamOptions(Asked):
    """How a stream is told."""

    include_usage: bool = False
    """Send one more chunk, with the token counts, before [DONE]."""


class TextFormat(Asked):
    """The only response format that is built: any text."""

    type: Literal["text"]


class Continue(Asked):
    """What chat and plain completions share."""

    model: str
    """The served base model's id, or a loaded adapter's name."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens to generate at most."""
    temperature: float | None = Field(None, ge=0, le=2)
    """0 = always the most likely token; 1 (the default) = the model's own distribution."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draw from the most likely tokens that together reach this probability."""
    top_k: int | None = Field(None, ge=-1)
    """Draw from this many most likely tokens; 0 or -1 = all."""
    seed: int | None = None
    """Keys the noise, so that the request repeats."""
    stop: StopString | list[StopString] | None = None
    """One or up to four texts before which the answer ends."""
    stream: bool | None = None
    """Send pieces as they come, as server-sent events."""
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    """Go on past the model's end token, for measurements."""

    n: Literal[1] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    repetition_penalty: Literal[1] | None = None
    min_p: Literal[0] | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=0)

    user: str | None = None
    """Who asks, for the caller's own books; changes nothing."""
    metadata: dict[str, Any] | None = None
    """For the caller's own books; changes nothing."""

    @model_validator(mode="after")
    def _few_stops(self) -> Continue:
        if isinstance(self.stop, list) and len(self.stop) > MOST_STOPS:
            raise ValueError(f"stop holds {len(self.stop)} texts; {MOST_STOPS} are the most")
        return self

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Continue:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is given, but stream is not true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple, however they were given."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self) -> Sampling:
        """How to choose tokens; a request without a seed draws one."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            seed=int.from_bytes(os.urandom(8), "big") if self.seed is None else self.seed,
        )


class TextPart(Asked):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class Message(Asked):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart]
    name: str | None = None

    def for_template(self) -> dict[str, str]:
        """As chat templates expect it: the content as one string."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        named = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": content, **named}


class ChatRequest(Continue):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    """The newer name of max_tokens. Without either, an answer may fill the context."""

    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    response_format: TextFormat | None = None
    tools: list[Any] | None = Field(None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> ChatRequest:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError(
                f"max_tokens ({self.max_tokens}) and max_completion_tokens ({self.max_completion_tokens}) "
                "are two names of one limit: give one"
            )
        return self

    @property
    def limit(self) -> int | None:
        """Tokens to generate at most; None = as many as the context holds."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens


class CompletionRequest(Continue):
    """POST /v1/completions."""

    prompt: str | list[int]
    """A text, or its token ids."""

    echo: Literal[False] | None = None
    logprobs: None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_prompt(cls, prompt: Any) -> Any:
        if isinstance(prompt, list) and any(isinstance(part, str | list) for part in prompt):
            raise ValueError("several prompts in one request are not built yet: send one request each")
        return prompt

    @property
    def limit(self) -> int:
        """Tokens to generate at most."""
        return COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens


class LoadAdapter(Asked):
    """POST /v1/load_lora_adapter, vLLM's call."""

    lora_name: str = Field(min_length=1)
    lora_path: str = Field(min_length=1)


class UnloadAdapter(Asked):
    """POST /v1/unload_lora_adapter, vLLM's call."""

    lora_name: str = Field(min_length=1)
