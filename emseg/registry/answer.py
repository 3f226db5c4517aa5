"""Bytes of a section or stack in, bytes of what a model makes of it out."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np

from emseg.data.io.formats import open_sections
from emseg.data.io.sections import Sections
from emseg.errors import InputError
from emseg.registry.clients import Pause
from emseg.segmentation.segmenter import Output, Segmenter
from emseg.text import plain


@dataclass(frozen=True)
class Answer:
    """What `segment_bytes` made: a file, and in a sentence how the input differs from the training data, or None."""

    content: bytes
    sections: int
    warning: str | None


def segment_bytes(segmenter: Segmenter, body: bytes, kind: str, format: str, limit: int, pause: Pause) -> Answer:
    """Segment the bytes of a TIFF or PNG and give those of the result.

    Args:
        segmenter: the model.
        body: the file.
        kind: probability, mask or cells.
        format: tiff, or png for one section; a probability becomes 16 bit there.
        limit: pixels of the whole stack.
        pause: called before each tile; see `Turns.run`.

    Raises:
        InputError: not an image, too large, or a stack asked for as PNG.
        GivenUpError: it was given up.
    """
    stack = _read_stack(body, format, limit)

    own = threading.get_ident()

    # Requests share the network, and what is hung on it.
    def before_tile(*_: object) -> None:
        if threading.get_ident() == own:
            pause()

    pausing = segmenter.predictor.network.register_forward_pre_hook(before_tile)
    try:
        results = list(segmenter.segment(stack.__getitem__, len(stack), cast(Output, kind)))
    except ValueError as error:
        raise InputError(str(error)) from None
    finally:
        pausing.remove()
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
    return Answer(stream.getvalue(), len(stack), warning)


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
