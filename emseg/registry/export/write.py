"""The export that a user asks for: which form, where to, and whether it may be there already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emseg.errors import InputError
from emseg.registry.export.bioimage_io import require_bioimageio, write_bioimageio
from emseg.registry.export.folder import write_folder
from emseg.registry.export.model import model_to_export
from emseg.registry.export.onnx_file import require_onnx, write_onnx

FOLDER, ONNX, BIOIMAGEIO = "folder", "onnx", "bioimageio"
SUFFIXES = {FOLDER: "", ONNX: ".onnx", BIOIMAGEIO: ".zip"}
_PLACE = Path("exports")


@dataclass(frozen=True)
class Written:
    """What was exported.

    Attributes:
        path: where it is.
        name: of the model's run.
        digest: of the model's package.
        difference: largest of a probability to what emseg predicts; None: the same network predicts.
        needs: what a machine must have besides emseg, in a sentence; None: nothing.
    """

    path: Path
    name: str
    digest: str
    difference: float | None
    needs: str | None


def write_export(
    reference: str, form: str, out: Path | None, licence: str | None, authors: list[str], overwrite: bool
) -> Written:
    """Export a model; what was asked for is checked before the model is fetched.

    Args:
        reference: see `model_to_export`.
        form: folder, onnx or bioimageio.
        out: where to; None: by the model's name in `exports`.
        licence: of a BioImage.IO package.
        authors: of a BioImage.IO package.
        overwrite: replace what is there; a folder only if it holds nothing but an exported model.

    Raises:
        InputError: the form is unknown, does not go with what else was said, or needs packages that are missing; there
            is something at `out`; or there is no such model.
        RunError: what was written does not give what emseg predicts, or the disk is full.
    """
    if form not in SUFFIXES:
        raise InputError(f"--to is one of {', '.join(SUFFIXES)}, not {form}")
    if form != BIOIMAGEIO and (licence is not None or authors):
        raise InputError("--licence and --author are for --to bioimageio")
    if out is not None:
        _require_place(out, form, overwrite)
    if form == ONNX:
        require_onnx()
    elif form == BIOIMAGEIO:
        require_bioimageio()
    with model_to_export(reference) as model:
        if out is None:
            out = _PLACE / f"{model.name}{SUFFIXES[form]}"
            _require_place(out, form, overwrite)
        difference = None
        if form == FOLDER:
            write_folder(model, out)
        elif form == ONNX:
            difference = write_onnx(model, out)
        else:
            difference = write_bioimageio(model, out, licence, authors)
        return Written(out, model.run.name, model.digest, difference, model.needs if form == FOLDER else None)


def _require_place(out: Path, form: str, overwrite: bool) -> None:
    if SUFFIXES[form] and out.suffix != SUFFIXES[form]:
        raise InputError(f"--out {out} is to end in {SUFFIXES[form]} for --to {form}")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists; give --overwrite to replace it")
