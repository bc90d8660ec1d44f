"""The server put together: endpoints, limits, the engine's thread, and the address it listens on."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import FileResponse, JSONResponse, Response

from glassbox import __version__
from glassbox.errors import RequestError
from glassbox.generate.engine import Engine
from glassbox.model.folder import LoadedModel, load_model
from glassbox.serve import protocol
from glassbox.serve.answers import ClientGone, Service
from glassbox.serve.chat_completions import chat_completions
from glassbox.serve.completions import completions
from glassbox.serve.guard import Guard, Limits, Refusal, answer_errors
from glassbox.serve.protocol import ChatRequest, CompletionRequest
from glassbox.serve.worker import BROKEN, Worker
from glassbox.tokens.tokenizer import token_bytes

log = logging.getLogger("glassbox")

PAGE = Path(__file__).with_name("chat.html")
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page may run its own script and talk to its own server, and nothing else."""
CLIENT_GONE = 499
"""Status (nginx's) in the log for a reply that nobody waits for any more."""
GRACE = 5
"""Seconds that replies under way get when the server is told to stop."""


def serve_model(folder: Path, *, name: str, host: str, port: int, api_key: str | None, slots: int) -> None:
    """Serve a model folder until interrupted; writes one line with the address. Port 0 takes a free one.

    Raises RequestError if the folder is no model or the address cannot be had.
    """
    app = create_app(load_model(folder), name=name, api_key=api_key, slots=slots)
    listener = _listen(host, port)
    if api_key is None and not _is_loopback(host):
        log.warning(
            "%s can be reached from other machines and no API key is set: anybody there can use the model", host
        )
    shown = f"[{host}]" if ":" in host else host
    sys.stdout.write(f"serving {name} at http://{shown}:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE, server_header=False)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn has shut down by then; Ctrl-C is how a server is ended
        uvicorn.Server(config).run(sockets=[listener])


def create_app(
    loaded: LoadedModel, *, name: str, api_key: str | None = None, slots: int = 8, limits: Limits | None = None
) -> FastAPI:
    """The application for a loaded model: decodes `slots` replies side by side while its lifespan runs."""
    limits = limits or Limits()
    worker = Worker(Engine(loaded.model, slots=slots, capacity=loaded.context), slots, limits.waiting)
    service = Service(name, loaded, token_bytes(loaded.tokenizer), worker, limits, protocol.now())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await asyncio.to_thread(worker.stop)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, api_key=api_key, limits=limits)
    answer_errors(app)
    _add_endpoints(app, service)
    return app


def _add_endpoints(app: FastAPI, service: Service) -> None:
    listing = protocol.models(service.name, service.created, service.loaded.context)

    @app.exception_handler(ClientGone)
    def gone(_: HttpRequest, __: ClientGone) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.get("/")
    def page() -> Response:
        return FileResponse(PAGE, headers={"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"})

    @app.get("/health")
    def health() -> Response:
        if not service.worker.healthy:
            raise Refusal(503, BROKEN)
        return JSONResponse({"status": "ok"})

    @app.get("/version")
    def version() -> dict[str, str]:
        return {"version": __version__}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return listing

    @app.get("/v1/models/{model:path}")
    def model(model: str) -> dict[str, Any]:
        if model != service.name:
            raise Refusal(404, f"there is no model '{model}' here", param="model", code="model_not_found")
        return listing["data"][0]

    @app.post("/v1/chat/completions")
    async def chat(http: HttpRequest, body: ChatRequest) -> Response:
        return await chat_completions(service, http, body)

    @app.post("/v1/completions")
    async def complete(http: HttpRequest, body: CompletionRequest) -> Response:
        return await completions(service, http, body)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise RequestError(
            f"cannot listen on {host}, port {port} ({error.strerror}); choose another --port or --host"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
