"""The champion behind HTTP: image bytes in, image bytes out.

    POST /segment?kind=mask|probability|cells&format=tiff|png    bytes of a TIFF or PNG section or stack
    GET  /health, GET /model

Every answer names the version that gave it. A promotion is taken up between two requests: those that run keep the
model they began with. What is served is the package that the registry has the digest of, and nothing else.
"""

from __future__ import annotations

import asyncio
import functools
import io
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from emseg.data.io.formats import open_sections
from emseg.data.io.sections import Sections
from emseg.errors import InputError, RunError
from emseg.registry.described import MODEL_NAME, Version
from emseg.registry.versions import CHAMPION, find_version, load_version, say
from emseg.segmentation.segmenter import OUTPUTS, Output, Segmenter
from emseg.text import plain
from emseg.tracking.address import bound
from emseg.tracking.store import asking, connect

_POLL_SECONDS = 2.0
_BYTES_PER_PIXEL = 4
"""Of the largest request: 32-bit sections without compression."""
_SENTENCES = {
    404: "there is nothing here; POST /segment, GET /model and GET /health are all there is",
    405: "this takes another method: POST for /segment, GET for /model and /health",
}


@dataclass(frozen=True)
class Served:
    """One version, loaded."""

    version: Version
    segmenter: Segmenter


@dataclass(frozen=True)
class Answer:
    """What `segment_bytes` made: a file, and in a sentence how the input differs from the training data, or None."""

    content: bytes
    warning: str | None


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
        if version.number == self.served.version.number:
            return False
        self.served = self._load(version)
        return True


def champion_of_registry() -> Champion:
    """The champion of the store.

    Raises:
        InputError: there is no champion, or it is damaged.
        RunError: the store refuses.
    """
    client = connect(must_exist=True)
    told = functools.cache(say)  # not again at every look

    def current() -> Version:
        with asking("read the registry"):
            return find_version(client, CHAMPION, told)

    def load(version: Version) -> Served:
        with asking(f"load {version.uri}"), TemporaryDirectory() as folder:
            return Served(version, load_version(client, version, Path(folder)))

    return Champion(current, load)


def make_app(champion: Champion, largest_megapixels: float = 64.0, timeout: float = 60.0) -> FastAPI:
    """The web application; whatever it is sent, it answers, and what it refuses it refuses with a sentence."""
    limit = int(largest_megapixels * 1e6)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # The network uses every core: one section at a time is fastest for everyone. Who gives up leaves the queue.
    queue = ThreadPoolExecutor(max_workers=1)

    def refused(status: int, sentence: str) -> Response:
        return Response(json.dumps({"error": sentence}), status, media_type="application/json")

    @app.exception_handler(HTTPException)
    async def no_such_thing(request: Request, error: HTTPException) -> Response:
        return refused(error.status_code, _SENTENCES.get(error.status_code, plain(error.detail)))

    @app.exception_handler(RequestValidationError)
    async def odd_question(request: Request, error: RequestValidationError) -> Response:
        return refused(422, "the question is not one that /segment takes: ?kind=mask&format=tiff")

    @app.middleware("http")
    async def limits(request: Request, call_next: Any) -> Response:
        length = request.headers.get("content-length", "")
        is_number = length.isascii() and length.isdecimal() and len(length) < 19
        if request.method == "POST" and not is_number:
            return refused(411, "the request needs a Content-Length")
        if is_number and int(length) > limit * _BYTES_PER_PIXEL:
            return refused(413, f"the request has {int(length):,} bytes; the most is {limit * _BYTES_PER_PIXEL:,}")
        served = champion.begin_request()
        response = await call_next(request)
        response.headers["X-Emseg-Version"] = str(served.version.number)
        return response

    @app.get("/health")
    @app.get("/ping")
    async def health() -> Response:
        return Response("ok", media_type="text/plain")

    @app.get("/model")
    async def model() -> Response:
        served = champion.of_request
        version = served.version
        described = {
            "name": MODEL_NAME,
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
        body = await request.body()
        if kind not in OUTPUTS or format not in ("tiff", "png"):
            return refused(422, f"kind is one of {', '.join(OUTPUTS)}, format is tiff or png")
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            return refused(415, "the request is a form; send the bytes of the file alone (curl --data-binary @FILE)")
        served = champion.of_request
        work = asyncio.get_running_loop().run_in_executor(
            queue, segment_bytes, served.segmenter, body, kind, format, limit
        )
        try:
            answer = await asyncio.wait_for(work, timeout)
        except InputError as error:
            return refused(422, str(error))
        except TimeoutError:
            return refused(504, f"the request took longer than {timeout:g} s; send fewer sections, or try again later")
        headers = {"X-Emseg-Model": served.version.uri}
        if answer.warning:
            headers["X-Emseg-Warning"] = plain(answer.warning).encode("ascii", "replace").decode()
        media = "image/png" if format == "png" else "image/tiff"
        return Response(answer.content, media_type=media, headers=headers)

    return app


def segment_bytes(segmenter: Segmenter, body: bytes, kind: str, format: str, limit: int) -> Answer:
    """Segment the bytes of a TIFF or PNG and give those of the result.

    Args:
        segmenter: the model.
        body: the file.
        kind: probability, mask or cells.
        format: tiff, or png for one section; a probability becomes 16 bit there.
        limit: pixels of the whole stack.

    Raises:
        InputError: not an image, too large, or a stack asked for as PNG.
    """
    stack = _read_stack(body, format, limit)
    try:
        results = list(segmenter.segment(stack.__getitem__, len(stack), cast(Output, kind)))
    except ValueError as error:
        raise InputError(str(error)) from None
    differences = [segmenter.difference(section[None]) for section in stack]
    unlike = next((sentence for sentence in differences if sentence), None)
    warning = f"the request is unlike the training data: {unlike}; expect a poor result" if unlike else None
    stream = io.BytesIO()
    if format == "png":
        from PIL import Image

        result = np.rint(results[0] * 65535).astype(np.uint16) if kind == "probability" else results[0]
        Image.fromarray(result).save(stream, "png")
    else:
        import tifffile

        tifffile.imwrite(stream, np.stack(results), photometric="minisblack", compression="zlib")
    return Answer(stream.getvalue(), warning)


def _read_stack(body: bytes, format: str, limit: int) -> list[np.ndarray]:
    """Every section of a file."""
    suffix = ".png" if body.startswith(b"\x89PNG") else ".tif"
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"request{suffix}"
        path.write_bytes(body)
        try:
            sections = open_sections(path)
            try:
                return _checked(sections, format, limit)
            finally:
                sections.close()
        except InputError as error:
            raise InputError(str(error).replace(str(path), "the request")) from None
        # Files come from anyone, and decoders raise whatever they like at odd ones.
        except Exception as error:
            reason = plain(str(error).replace(str(path), "the request"))[:120] or type(error).__name__
            raise InputError(f"the request is not readable as TIFF or PNG ({reason})") from None


def _checked(sections: Sections, format: str, limit: int) -> list[np.ndarray]:
    pixels = int(np.prod(sections.shape, dtype=object))
    if pixels > limit:
        raise InputError(f"the request has {pixels:,} pixels; the most is {limit:,}")
    if format == "png" and len(sections) > 1:
        raise InputError(f"the request has {len(sections)} sections; ask for format=tiff")
    return [sections.read(z) for z in range(len(sections))]


def run_server(host: str, port: int, largest_megapixels: float, timeout: float) -> None:
    """Serve until stopped; looks for a promotion every two seconds.

    Raises:
        InputError: there is no champion, or it is damaged; or the port is taken.
        RunError: the store refuses.
    """
    import uvicorn

    with bound(host, port) as listener:
        champion = champion_of_registry()
        app = make_app(champion, largest_megapixels, timeout)

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
        config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_keep_alive=30)
        uvicorn.Server(config).run(sockets=[listener])
