"""What stands before the endpoints: the API key, the size of bodies, and refusals that are one sentence in JSON."""

import hmac
import logging
from dataclasses import dataclass

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glassbox.errors import RequestError
from glassbox.serve import protocol

log = logging.getLogger("glassbox")


@dataclass(frozen=True)
class Limits:
    """What one client may ask of the server; beyond it a request is refused with a 4xx status."""

    body_bytes: int = 1 << 20
    """Size of a request's body (413)."""
    messages: int = 500
    """Turns of a conversation (400)."""
    waiting: int = 64
    """Replies that may wait for a free slot, all clients together (429)."""


class Refusal(Exception):
    """A request that is refused: status and the fields of OpenAI's error."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def response(self) -> JSONResponse:
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, "invalid_request_error")
        if self.status >= 500:
            kind = "server_error"
        headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(self.status)
        return JSONResponse(protocol.error_body(str(self), kind, self.param, self.code), self.status, headers)


class Guard:
    """ASGI middleware: a key for /v1 where one is set (compared in constant time), and a limit on every body."""

    def __init__(self, app: ASGIApp, api_key: str | None, limits: Limits):
        self._app, self._limits = app, limits
        self._expected = f"Bearer {api_key}".encode() if api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._expected and scope["path"].startswith("/v1"):
            given = Headers(scope=scope).get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, self._expected):
                refusal = Refusal(401, "a valid API key is needed: Authorization: Bearer KEY", code="invalid_api_key")
                await refusal.response()(scope, receive, send)
                return
        left = self._limits.body_bytes

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, f"the body is larger than {self._limits.body_bytes:,} bytes")
            return message

        await self._app(scope, counted, send)


def answer_errors(app: FastAPI) -> None:
    """Give every refusal OpenAI's form. What was not foreseen is logged here and is a bare 500 there."""

    @app.exception_handler(Refusal)
    def refused(_: Request, error: Refusal) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestError)
    def wrong(_: Request, error: RequestError) -> JSONResponse:
        return Refusal(400, str(error)).response()

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return Refusal(400, "the body is not valid JSON").response()
        name = protocol.field_name(first["loc"])
        says = first["msg"].removeprefix("Value error, ")
        return Refusal(400, f"{name}: {says}" if name else says, param=name or None).response()

    @app.exception_handler(StarletteHTTPException)
    def plain(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return Refusal(error.status_code, str(error.detail)).response()

    @app.exception_handler(Exception)
    def unforeseen(_: Request, error: Exception) -> JSONResponse:
        log.error("a request failed", exc_info=error)
        return Refusal(500, "the server failed at this request; its log says why").response()
