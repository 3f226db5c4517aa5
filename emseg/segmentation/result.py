"""Results in the form of their input: axes, voxel size and, where nothing is lost by it, compression."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from emseg.data.io.metadata import Metadata
from emseg.data.io.sections import Format, Sections
from emseg.segmentation.segmenter import OUTPUT_TYPES, Output


def metadata_of_result(sections: Sections, form: Format, kind: Output) -> tuple[Metadata, str | None]:
    """What a result of `sections` takes over, with a compression that loses nothing and can be written.

    Returns:
        The metadata; and a sentence where the compression is not that of the input.
    """
    found = sections.metadata
    fitting = form.forms(found)
    # Headers may say what no encoder takes, and that must not show after the work.
    metadata = next((each for each in fitting[:-1] if _can_be_written(each, form, kind)), fitting[-1])
    # In another format than that of the input nobody expects its compression.
    is_other = form.kind != sections.kind and not isinstance(found.storage, type(metadata.storage))
    if metadata == found or is_other:
        return metadata, None
    named = found.compression or "what its header says"
    return metadata, f"{sections.where} is stored with {named}; its result is stored without, so that nothing is lost"


def _can_be_written(metadata: Metadata, form: Format, kind: Output) -> bool:
    """Try it on one small section, in memory."""
    # Of ones: Zarr leaves out what is all zero.
    section = np.ones((16, 16), OUTPUT_TYPES[kind])
    scratch: Any = {} if form.kind == "zarr" else io.BytesIO()
    assert form.write is not None
    try:
        form.write(scratch, lambda _: section, (1, 16, 16), section.dtype, metadata)
    except Exception:  # encoders raise whatever they like
        return False
    return True
