"""Server-sent events: a streamed reply on the wire, tied to the requests that make it."""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from glassbox.serve import protocol
from glassbox.serve.guard import Refusal
from glassbox.serve.worker import Group


class EventStream(StreamingResponse):
    """`data: {json}` lines, then `data: [DONE]`; the group is closed after the last or when the client hangs up."""

    def __init__(self, events: AsyncIterator[dict[str, Any]], group: Group):
        super().__init__(_lines(events), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._group = group

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._group.close()


async def _lines(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
    except Refusal as error:  # the status is sent already, so the error is an event
        yield f"data: {json.dumps(protocol.error_body(str(error), 'server_error'))}\n\n"
    yield "data: [DONE]\n\n"
