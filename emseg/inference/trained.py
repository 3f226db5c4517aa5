"""From the record of a run to its trained network."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.torch import load_file

from emseg.data.normalization import Normalization
from emseg.errors import InputError
from emseg.inference.device import available_device
from emseg.inference.predictor import Predictor
from emseg.models import Network, build_model
from emseg.models.own import require_networks_of_project
from emseg.records.record import RunRecord


def load_network(record: RunRecord) -> tuple[Network, Normalization]:
    """The trained network on the CPU, in evaluation mode, and its normalisation.

    Raises:
        InputError: the run has no weights yet, or they are not those that it ended with; or its network comes from a
            file that the current project lacks.
    """
    run = record.read()
    record.check_weights(run)
    if run.networks_sha256:
        require_networks_of_project(run.settings.architecture, run.networks_sha256)
    try:
        network = build_model(run.settings.architecture, **run.settings.network.overrides())
        network.load_state_dict(load_file(record.weights_file))
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{record.weights_file} cannot be loaded ({reason}); train the run again") from error
    return network.eval(), Normalization(run.normalization.low, run.normalization.high)


def require_same_networks(record: RunRecord) -> None:
    """Refuse a run whose network comes from a file of the project that has changed since.

    Raises:
        InputError: it has, or is not there.
    """
    run = record.read()
    if (sha256 := run.networks_sha256) is None:
        return
    file = require_networks_of_project(run.settings.architecture, sha256)
    if file.sha256 != sha256:
        raise InputError(
            f"{file.name} is not as it was when {record.folder} was trained (SHA-256 {file.sha256[:12]}, then "
            f"{sha256[:12]}); bring that one back, or train again"
        )


def load_predictor(record: RunRecord, normalized: bool = False) -> Predictor:
    """The trained network with its recipe's way of predicting, on a GPU where there is one.

    Args:
        record: of the run.
        normalized: it will get sections with normalised grey levels; else it normalises them itself.

    Raises:
        InputError: the run has no weights yet.
    """
    network, normalization = load_network(record)
    recipe = record.read().settings.training
    return Predictor(
        network,
        None if normalized else normalization,
        recipe.prediction,
        recipe.test_time_augmentation,
        available_device(),
        recipe.precision,
    )
