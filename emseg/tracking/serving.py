"""The champion behind HTTP: image bytes in, image bytes out, on MLflow's own scoring server.

    POST /segment?kind=mask|probability|cells&format=tiff|png    bytes of a TIFF or PNG section or stack
    POST /invocations                                            MLflow's tensor protocol
    GET  /health, GET /model

Every answer names the version that gave it. A promotion is taken up between two requests: those that run keep the
model they began with.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response

from emseg.data.sections import open_sections
from emseg.errors import InputError, RunError
from emseg.inference.segmenter import OUTPUTS, Output, Segmenter
from emseg.tracking.registry import CHAMPION, MODEL_NAME, Version, find_version, load_version
from emseg.tracking.store import connect

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

_POLL_SECONDS = 2.0
_BYTES_PER_PIXEL = 4
"""Of the largest request: 32-bit sections without compression."""


@dataclass(frozen=True)
class Served:
    """One version, loaded for both ways of asking."""

    version: Version
    segmenter: Segmenter
    network: PyFuncModel


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
    """
    client = connect()

    def load(version: Version) -> Served:
        import mlflow

        with TemporaryDirectory() as folder:
            segmenter = load_version(version, Path(folder))
        return Served(version, segmenter, mlflow.pyfunc.load_model(version.uri))

    return Champion(lambda: find_version(client, CHAMPION), load)


def make_app(champion: Champion, largest_megapixels: float = 64.0) -> FastAPI:
    """MLflow's scoring app with image bytes in and out added to it."""
    from mlflow.pyfunc import scoring_server

    limit = int(largest_megapixels * 1e6)
    app = scoring_server.init(_Forwarding(champion))
    # The network uses every core: one section at a time is fastest for everyone. Who gives up leaves the queue.
    queue = ThreadPoolExecutor(max_workers=1)

    def refused(status: int, sentence: str) -> Response:
        return Response(json.dumps({"error": sentence}), status, media_type="application/json")

    @app.middleware("http")
    async def limits(request: Request, call_next: Any) -> Response:
        length = request.headers.get("content-length", "")
        if request.method == "POST" and not length.isdigit():
            return refused(411, "the request needs a Content-Length")
        if length.isdigit() and int(length) > limit * _BYTES_PER_PIXEL:
            return refused(413, f"the request has {int(length):,} bytes; the most is {limit * _BYTES_PER_PIXEL:,}")
        served = champion.begin_request()
        response = await call_next(request)
        response.headers["X-Emseg-Version"] = str(served.version.number)
        return response

    @app.get("/model")
    async def model() -> Response:
        served = champion.of_request
        version = served.version
        described = {
            "name": MODEL_NAME,
            "version": version.number,
            "model": version.facts["model"],
            "protocol": version.metrics["protocol"],
            "cells": version.metrics.get("cells", "threshold"),
            "threshold": served.segmenter.threshold,
            "v_rand": version.metrics["v_rand"],
            "outputs": OUTPUTS,
        }
        return Response(json.dumps(described), media_type="application/json")

    @app.post("/segment")
    async def segment(request: Request, kind: str = "mask", format: str = "tiff") -> Response:
        body = await request.body()
        if kind not in OUTPUTS or format not in ("tiff", "png"):
            return refused(422, f"kind is one of {', '.join(OUTPUTS)}, format is tiff or png")
        served = champion.of_request
        try:
            loop = asyncio.get_running_loop()
            content = await loop.run_in_executor(queue, segment_bytes, served.segmenter, body, kind, format, limit)
        except InputError as error:
            return refused(422, str(error))
        media = "image/png" if format == "png" else "image/tiff"
        return Response(content, media_type=media, headers={"X-Emseg-Model": served.version.uri})

    return app


def segment_bytes(segmenter: Segmenter, body: bytes, kind: str, format: str, limit: int) -> bytes:
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
    suffix = ".png" if body.startswith(b"\x89PNG") else ".tif"
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"request{suffix}"
        path.write_bytes(body)
        try:
            sections = open_sections(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), "the request")) from None
        try:
            if int(np.prod(sections.shape)) > limit:
                raise InputError(f"the request has {np.prod(sections.shape):,} pixels; the most is {limit:,}")
            if format == "png" and len(sections) > 1:
                raise InputError(f"the request has {len(sections)} sections; ask for format=tiff")
            results = list(segmenter.segment(sections.read, len(sections), cast(Output, kind)))
        except (InputError, ValueError) as error:
            raise InputError(str(error).replace(str(path), "the request")) from None
        finally:
            sections.close()
    stream = io.BytesIO()
    if format == "png":
        from PIL import Image

        result = np.rint(results[0] * 65535).astype(np.uint16) if kind == "probability" else results[0]
        Image.fromarray(result).save(stream, "png")
    else:
        import tifffile

        tifffile.imwrite(stream, np.stack(results), photometric="minisblack", compression="zlib")
    return stream.getvalue()


def run_server(host: str, port: int, largest_megapixels: float, timeout: float) -> None:
    """Serve until stopped; looks for a promotion every two seconds.

    Raises:
        InputError: there is no champion, or it is damaged.
    """
    import uvicorn

    os.environ["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = str(max(1, round(timeout)))
    champion = champion_of_registry()
    app = make_app(champion, largest_megapixels)

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
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_keep_alive=30)


class _Forwarding:
    """The champion of the request, in the shape MLflow's server wants."""

    def __init__(self, champion: Champion) -> None:
        self._champion = champion

    def __getattr__(self, name: str) -> Any:
        return getattr(self._champion.of_request.network, name)
