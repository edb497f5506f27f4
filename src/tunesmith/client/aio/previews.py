"""Rows as a job would train on them."""

from __future__ import annotations

from typing import Literal

from tunesmith.api import paths
from tunesmith.api.previews import CreatePreview, Preview
from tunesmith.client import wire
from tunesmith.client.aio.resource import AsyncResource


class AsyncPreviews(AsyncResource):
    """`client.previews`."""

    async def create(
        self,
        *,
        model: str,
        dataset: str,
        rows: int | None = None,
        backend: Literal["automodel", "unsloth"] | None = None,
        max_seq_length: int | None = None,
        chat_template: str | None = None,
        prompt_template: str | None = None,
        text_field: str | None = None,
        apply_chat_template: bool | None = None,
        workspace: str | None = None,
    ) -> Preview:
        """The first training rows of a fileset in pieces, each trained on or not; nothing is stored.

        `chat_template` tries another one. A bad row among them is refused with file, line and key, and so is a template
        that takes longer than 10 seconds.
        """
        body = wire.ask(
            CreatePreview,
            model=model,
            dataset=dataset,
            rows=rows,
            backend=backend,
            max_seq_length=max_seq_length,
            chat_template=chat_template,
            prompt_template=prompt_template,
            text_field=text_field,
            apply_chat_template=apply_chat_template,
        )
        return await self._transport.post(Preview, self._in(paths.PREVIEWS, workspace), body, idempotent=True)
