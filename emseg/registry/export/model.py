"""From what a user names to the model that is to travel: a checked package of files, and what is known of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from emseg.data.datasets.card import Provenance
from emseg.data.datasets.known import card_of_data
from emseg.data.normalization import Normalization
from emseg.errors import InputError
from emseg.inference.predictor import Predictor
from emseg.inference.trained import load_network
from emseg.models import Network
from emseg.records.calibration import Calibration, read_calibration
from emseg.records.record import RunRecord
from emseg.records.run import Run
from emseg.registry.manifest import is_exported, require_manifest
from emseg.registry.package import PACKAGE_FILES, open_package, require_digest, write_package


@dataclass(frozen=True)
class ModelToExport:
    """A model whose package was checked.

    Attributes:
        package: folder with the files of its package.
        run: that it was trained in.
        version: of the registry that it is, such as models:/cortex/3; None: it comes from a run folder.
        digest: of its package.
    """

    package: Path
    run: Run
    version: str | None
    digest: str

    @property
    def name(self) -> str:
        """Of its run, fit for a file name."""
        return re.sub(r"[^\w.-]", "-", self.run.name)

    @property
    def data(self) -> Provenance | None:
        """What is known of the sections that it was trained on."""
        return card_of_data(self.run.data_digest, self.run.dataset_card) or self.run.dataset_card

    @property
    def threshold(self) -> float:
        """Of the probability, above which a component is a cell."""
        return self._calibration.plain.v_rand

    @property
    def cells(self) -> str:
        """How cells are told apart, in a sentence for who has the probability alone."""
        plain = f"cells are the 4-connected components of probability above {self.threshold:.6g}."
        if self._calibration.agglomeration is None:
            return plain.capitalize()
        return f"Only emseg predict tells cells apart by the rules that this model learned; without them, {plain}"

    @property
    def _calibration(self) -> Calibration:
        return read_calibration(self.package, self.run)[0]

    @property
    def needs(self) -> str | None:
        """What a machine must have besides emseg to predict with its package; None: nothing."""
        if self.run.networks_sha256 is None:
            return None
        file = self.run.lineage.networks_file or "a file of its project"
        return (
            f"its network {self.run.settings.architecture} comes from {file} (SHA-256 "
            f"{self.run.networks_sha256[:12]}): take that file along, and predict in a folder whose params.yaml "
            "names it as `code`"
        )

    def card(self) -> str:
        """Its model card, Markdown."""
        return (self.package / "model-card.md").read_text(encoding="utf-8")

    def network(self) -> tuple[Network, Normalization]:
        """The trained network on the CPU and its normalisation."""
        return load_network(RunRecord(self.package))

    def predictor(self) -> Predictor:
        """What predicts as the recipe says, on the CPU in float32."""
        recipe = self.run.settings.training
        return Predictor(*self.network(), recipe.prediction, recipe.test_time_augmentation)


@contextmanager
def model_to_export(reference: str) -> Iterator[ModelToExport]:
    """The model that a reference names, its files checked and its test output reproduced.

    Args:
        reference: models:/cortex@champion, models:/cortex/3, a run folder, or an exported folder.

    Raises:
        InputError: there is no such model, its run was not evaluated, or it is damaged.
        RunError: the store cannot be reached.
    """
    with tempfile.TemporaryDirectory() as temporary:
        package, version, digest = _package(reference, Path(temporary) / "package")
        open_package(package, reference, digest)
        yield ModelToExport(package, RunRecord(package).read(), version, digest)


def _package(reference: str, folder: Path) -> tuple[Path, str | None, str]:
    """Where the package of a model is, which version it is, and its digest."""
    if reference.startswith("models:/"):
        from emseg.registry.versions import fetch_package, find_version
        from emseg.tracking.store import asking, connect

        client = connect(must_exist=True)
        folder.mkdir()
        with asking(f"export {reference}"):
            version = find_version(client, reference)
            fetch_package(client, version, folder)
        return folder, version.uri, require_digest(folder, version.uri, None)
    if not Path(reference).exists():
        raise InputError(
            f"no model {reference}: expected models:/TASK@champion, models:/TASK/NUMBER, "
            "a run folder, or a folder that was exported"
        )
    if is_exported(Path(reference)):
        manifest = require_manifest(Path(reference), list(PACKAGE_FILES))
        return Path(reference), manifest.version, manifest.digest
    write_package(RunRecord.open(reference), folder)
    return folder, None, require_digest(folder, reference, None)
