"""Two versions of labelled sections, compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emseg.cli.app import PARAMS, AsJson, data_app, require_suffix, warn

if TYPE_CHECKING:
    from emseg.data.difference import Difference
    from emseg.data.sources import Source


@data_app.command("diff")
def data_diff(
    before: Annotated[
        str, typer.Argument(help="A revision of git, such as HEAD, a tag or a commit; or a folder of sections.")
    ] = "HEAD",
    after: Annotated[
        str | None,
        typer.Argument(help="Likewise; by default the source of params.yaml as it is now.", show_default=False),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the sections whose label changed, before and after, into this PNG.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which sections came, went or moved between two versions, and how labels changed.

    Of a revision, data/prepared is compared, which DVC keeps. A folder is one of data/sources, data/prepared, or any
    that `emseg data check` reads; where a folder and a revision have one name, it is the folder. Without AFTER the
    source that params.yaml names is compared, so that a change is seen before anything trains on it.

    Sections are the same where their images are, to the last grey level, wherever they are in the stack.

    Examples:

        emseg data diff                                the last commit and the sections as they are now

        emseg data diff v1 v2 --picture changes.png    two tags

        emseg data diff data/sources/cortex ~/cortex   what `emseg data add --overwrite` would change
    """
    from emseg.data.difference import difference
    from emseg.reporting.difference import difference_text, difference_values

    if picture is not None:
        require_suffix(picture, ".png")
    then, (name, now) = _version(before), (after, _version(after)) if after else _source_of_project()
    found = difference(then, now)
    if as_json:
        print(json.dumps(difference_values(found, before, name), indent=2))
    else:
        print(difference_text(found, before, name))
    if picture is not None:
        _draw(found, picture)


def _source_of_project() -> tuple[str, Source]:
    """What params.yaml names, and what to call it."""
    from emseg.data.sources import load_source
    from emseg.settings import load_settings

    name = load_settings(PARAMS).data.source
    return f"source {name} as it is now", load_source(name)


def _version(name: str) -> Source:
    """The sections of a folder or of a revision."""
    from emseg.data.version import read_version
    from emseg.project.revisions import sections_at

    folder = Path(name).expanduser()
    return read_version(folder, warn) if folder.exists() else sections_at(name)


def _draw(found: Difference, picture: Path) -> None:
    from emseg.reporting.difference_figure import MOST_SECTIONS, difference_figure
    from emseg.reporting.figures import save_figure

    if not found.changed:
        warn(f"no label changed; {picture} is not written")
        return
    save_figure(difference_figure(found.changed), picture)
    if len(found.changed) > MOST_SECTIONS:
        warn(f"{picture} shows the {MOST_SECTIONS} of {len(found.changed)} sections that changed most")
