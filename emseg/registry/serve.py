"""The champion behind HTTP: image bytes in, image bytes out.

    POST /segment?kind=mask|probability|cells&format=tiff|png    bytes of a TIFF or PNG section or stack
    GET  /health, GET /model, GET /metrics (Prometheus)

Every answer names the version that gave it. A promotion is taken up between two requests: those that run keep the
model they began with. What is served is the package that the registry has the digest of, and nothing else.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from emseg.errors import InputError, RunError
from emseg.registry.answer import Answer, segment_bytes
from emseg.registry.champions import CHAMPION
from emseg.registry.clients import BusyError, GivenUpError, ImpatientProtocol, Pause, Turns, client_of
from emseg.registry.described import Version
from emseg.registry.measured import Measured
from emseg.registry.tasks import find_task
from emseg.registry.telling import say
from emseg.registry.versions import find_version, load_version
from emseg.segmentation.segmenter import OUTPUTS, Segmenter
from emseg.text import plain
from emseg.tracking.address import bound
from emseg.tracking.store import asking, connect

_POLL_SECONDS = 2.0
_BYTES_PER_PIXEL = 4
"""Of the largest request: 32-bit sections without compression."""
_SENTENCES = {
    404: "there is nothing here; POST /segment, GET /model, GET /metrics and GET /health are all there is",
    405: "this takes another method: POST for /segment, GET for /model, /metrics and /health",
}
_OPEN = ("/health", "/ping")
"""What is answered without a token."""
_HELD_REQUESTS = 2
"""Of the largest size, that are held at once."""
_MOST_CONNECTIONS = 500
_ARRIVAL_SECONDS, _SLOWEST_BYTES = 10.0, 1e6
"""How long a request may take to arrive, and the bytes for each second more."""


@dataclass(frozen=True)
class Served:
    """One version, loaded."""

    version: Version
    segmenter: Segmenter


class Champion:
    """The loaded champion, replaced when the registry names another.

    Args:
        load: loads a version.
        current: tells the version that is champion.
    """

    def __init__(self, current: Callable[[], Version], load: Callable[[Version], Served]) -> None:
        self._current, self._load = current, load
        self.served = load(current())
        self._of_request: ContextVar[Served] = ContextVar("of_request")

    def begin_request(self) -> Served:
        """Keep the version of this moment for the request that begins, whatever is promoted meanwhile."""
        self._of_request.set(self.served)
        return self.served

    @property
    def of_request(self) -> Served:
        """The version that the request at hand began with; outside of one, that of the moment."""
        return self._of_request.get(self.served)

    def refresh(self) -> bool:
        """Take up a promotion, if there was one; True if so. What cannot be loaded leaves the old one in place."""
        version = self._current()
        if version.link == self.served.version.link:
            return False
        self.served = self._load(version)
        return True


def champion_of_registry(task: str | None = None) -> Champion:
    """The champion of a task; of the only one where none is named.

    Raises:
        InputError: there is no such task or no champion, or it is damaged.
        RunError: the store refuses.
    """
    client = connect(must_exist=True)
    told = functools.cache(say)  # not again at every look
    with asking("read the registry"):
        task = find_task(client, task)

    def current() -> Version:
        with asking("read the registry"):
            return find_version(client, CHAMPION, task, told)

    def load(version: Version) -> Served:
        with asking(f"load {version.uri}"), TemporaryDirectory() as folder:
            return Served(version, load_version(client, version, Path(folder)))

    return Champion(current, load)


def make_app(
    champion: Champion, largest_megapixels: float = 64.0, timeout: float = 60.0, token: str | None = None
) -> FastAPI:
    """The web application; whatever it is sent, it answers, and what it refuses it refuses with a sentence.

    Args:
        champion: who segments.
        largest_megapixels: of one request.
        timeout: seconds that a request may take to arrive, and then to be answered.
        token: that all but /health ask for, as `Authorization: Bearer TOKEN`; None: everybody is answered.
    """
    limit = int(largest_megapixels * 1e6)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    turns = Turns(_HELD_REQUESTS * limit * _BYTES_PER_PIXEL)
    measured = Measured(turns)

    def refused(status: int, sentence: str) -> Response:
        headers = {503: {"Retry-After": "10"}, 429: {"Retry-After": "10"}, 401: {"WWW-Authenticate": "Bearer"}}
        content = json.dumps({"error": sentence})
        return Response(content, status, media_type="application/json", headers=headers.get(status))

    @app.exception_handler(HTTPException)
    async def no_such_thing(request: Request, error: HTTPException) -> Response:
        return refused(error.status_code, _SENTENCES.get(error.status_code, plain(error.detail)))

    @app.exception_handler(RequestValidationError)
    async def odd_question(request: Request, error: RequestValidationError) -> Response:
        return refused(422, "the question is not one that /segment takes: ?kind=mask&format=tiff")

    @app.middleware("http")
    async def limits(request: Request, call_next: Any) -> Response:
        if token is not None and request.url.path not in _OPEN and not _has_token(request, token):
            return refused(401, "this server asks for a token: Authorization: Bearer TOKEN")
        length = request.headers.get("content-length", "")
        is_number = length.isascii() and length.isdecimal() and len(length) < 19
        if request.method == "POST" and not is_number:
            return refused(411, "the request needs a Content-Length")
        if is_number and int(length) > limit * _BYTES_PER_PIXEL:
            return refused(413, f"the request has {int(length):,} bytes; the most is {limit * _BYTES_PER_PIXEL:,}")
        served = champion.begin_request()
        try:
            with turns.admitted(client_of(request), int(length) if is_number else 0), measured.request() as told:
                response = await call_next(request)
                told.status = response.status_code
        except BusyError as error:
            return refused(error.status, str(error))
        response.headers["X-Emseg-Version"] = str(served.version.number)
        return cast(Response, response)

    @app.get("/health")
    @app.get("/ping")
    async def health() -> Response:
        return Response("ok", media_type="text/plain")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(measured.text(champion.of_request.version.number), media_type="text/plain; version=0.0.4")

    @app.get("/model")
    async def model() -> Response:
        served = champion.of_request
        version = served.version
        described = {
            "name": version.task,
            "version": version.number,
            "model": version.origin.model,
            "protocol": version.evaluation.protocol,
            "cells": version.evaluation.cells,
            "threshold": served.segmenter.threshold,
            "v_rand": version.evaluation.metrics["v_rand"].model_dump(),
            "outputs": OUTPUTS,
        }
        return Response(json.dumps(described), media_type="application/json")

    @app.post("/segment")
    async def segment(request: Request, kind: str = "mask", format: str = "tiff") -> Response:
        patience = min(timeout, _ARRIVAL_SECONDS + int(request.headers["content-length"]) / _SLOWEST_BYTES)
        try:
            body = await asyncio.wait_for(request.body(), patience)
        except TimeoutError:
            return refused(408, f"the request did not arrive within {patience:g} s")
        except ClientDisconnect:
            return refused(499, "the client has hung up")
        if kind not in OUTPUTS or format not in ("tiff", "png"):
            return refused(422, f"kind is one of {', '.join(OUTPUTS)}, format is tiff or png")
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            return refused(415, "the request is a form; send the bytes of the file alone (curl --data-binary @FILE)")
        served = champion.of_request

        def work(pause: Pause) -> Answer:
            return segment_bytes(served.segmenter, body, kind, format, limit, pause)

        try:
            answer = await turns.run(client_of(request), work, timeout, request.is_disconnected)
        except GivenUpError:
            return refused(499, "the client has hung up")
        except InputError as error:
            return refused(422, str(error))
        except TimeoutError:
            return refused(504, f"the request took longer than {timeout:g} s; send fewer sections, or try again later")
        measured.segmented(answer.sections, served.version.number, answer.warning is not None)
        headers = {"X-Emseg-Model": served.version.uri}
        if answer.warning:
            headers["X-Emseg-Warning"] = plain(answer.warning).encode("ascii", "replace").decode()
        media = "image/png" if format == "png" else "image/tiff"
        return Response(answer.content, media_type=media, headers=headers)

    return app


def _has_token(request: Request, token: str) -> bool:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def run_server(
    host: str, port: int, largest_megapixels: float, timeout: float, token: str | None, task: str | None = None
) -> None:
    """Serve until stopped; looks for a promotion every two seconds. Stopped, it answers what it has begun.

    Raises:
        InputError: there is no champion, or it is damaged; or the port is taken.
        RunError: the store refuses.
    """
    import uvicorn

    with bound(host, port) as listener:
        champion = champion_of_registry(task)
        app = make_app(champion, largest_megapixels, timeout, token)

        def watch() -> None:
            while True:
                time.sleep(_POLL_SECONDS)
                try:
                    if champion.refresh():
                        print(f"serving {champion.served.version.uri}", flush=True)
                # A registry that is away for a while, or a version that does not load: the old champion serves on.
                except (InputError, RunError, OSError) as error:
                    print(f"still serving {champion.served.version.uri}: {error}", flush=True)
                except Exception as error:
                    print(f"still serving {champion.served.version.uri}: {type(error).__name__}", flush=True)

        threading.Thread(target=watch, daemon=True).start()
        print(f"serving {champion.served.version.uri} on http://{host}:{port}", flush=True)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            http=ImpatientProtocol,
            timeout_keep_alive=30,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=int(timeout) + 1,
        )
        # uvicorn raises it again after it has stopped in order.
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
