"""A version beside the champion, on the same sections: as they were tested, or with the champion scored again.

Where the two were tested on other sections, or on other versions of their dataset, the champion is scored again on the
version's test sections, with its own thresholds and rules. Sections that the champion was trained or calibrated on, as
they are, turned or mirrored, do not count.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from emseg.data.sources import PREPARED_FOLDER, Source, load_source_of, read_source
from emseg.errors import InputError
from emseg.evaluation.evaluate import score_sections
from emseg.metrics.scoring import Scores
from emseg.records.calibration import CELLS_FILE
from emseg.records.record import RunRecord
from emseg.records.run import Run
from emseg.registry.described import DIGEST_TAG, Version
from emseg.registry.scores import read_scores, scores_of_version
from emseg.registry.telling import say
from emseg.registry.versions import fetch_package
from emseg.tracking.store import reason_of
from emseg.training.plan import parts_of_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

_AGAIN_FOLDER = "champion-scored-again"
_AGAIN_TAG = "emseg.champion_scored_again"


@dataclass(frozen=True)
class Comparison:
    """Scores of a version and of the champion on the same sections.

    Attributes:
        candidate: of the version's recipe, with all its seeds.
        champion: of the champion's recipe with all its seeds; of the champion alone where it was scored again.
        sections: that count.
        evidence: what was compared, in a sentence.
    """

    candidate: Scores
    champion: Scores
    sections: list[int]
    evidence: str


class NotComparableError(InputError):
    """Two versions have no sections in common that both can be judged by; the message says why."""


def are_comparable(one: Version, other: Version) -> bool:
    """Whether two versions were scored on the same sections of the same data, under one protocol and fold."""
    return one.evaluation.test == other.evaluation.test


def siblings(version: Version, every: list[Version]) -> list[Version]:
    """Versions of the same recipe, whatever their seed, scored on the same sections; the version is among them."""
    own = [v for v in every if v.origin.recipe == version.origin.recipe and are_comparable(v, version)]
    return own if version.number in {v.number for v in own} else [version, *own]


def compare(client: MlflowClient, candidate: Version, champion: Version, every: list[Version]) -> Comparison:
    """Scores of a version and of the champion on the same sections.

    Args:
        client: of the store.
        candidate: the version.
        champion: that it is compared with; scored again where need be, which takes as long as an evaluation.
        every: version of the task.

    Raises:
        NotComparableError: scores are gone, or the champion has to be scored again and cannot be.
        RunError: the store refuses.
    """
    own, other = candidate.evaluation, champion.evaluation
    try:
        if are_comparable(candidate, champion):
            pooled = _pooled(client, champion, every)
            sections = sorted({int(section) for section in pooled.per_section["section"]})
            tested = f"protocol {own.protocol}, data {own.data_digest[:8]}, fold {own.fold}, {len(sections)} sections"
            return Comparison(_pooled(client, candidate, every), pooled, sections, f"both tested on {tested}")
        differing = ", ".join(
            f"{name} {getattr(own, key)[:8] if key == 'data_digest' else getattr(own, key)}, champion's "
            f"{getattr(other, key)[:8] if key == 'data_digest' else getattr(other, key)}"
            for key, name in (
                ("dataset", "dataset"),
                ("protocol", "protocol"),
                ("data_digest", "data"),
                ("fold", "fold"),
            )
            if getattr(own, key) != getattr(other, key)
        )
        differing = differing or "other test sections than the champion's"
        if own.dataset != other.dataset:
            raise NotComparableError(f"{differing}; scores of different datasets are not compared")
        if own.leaks:
            raise NotComparableError(f"{differing}; images of a protocol that leaks are no test of the champion")
        table, count = _scored_again(client, candidate, champion)
        sections = sorted(int(section) for section in table["section"])
        pooled = _pooled(client, candidate, every)
    except NotComparableError:
        raise
    except InputError as error:
        raise NotComparableError(str(error)) from error
    seen = f"; the champion was trained on the {count - len(sections)} others" if len(sections) < count else ""
    counted = f"{len(sections)} of {count} test sections count ({', '.join(map(str, sections)) or 'none'}){seen}"
    kept = pooled.per_section[pooled.per_section["section"].isin(sections)]
    return Comparison(
        Scores(own.protocol, own.data_digest, kept),
        Scores(own.protocol, own.data_digest, table.assign(seed=champion.origin.seed)),
        sections,
        f"{differing}; the champion was scored again: {counted}",
    )


def _pooled(client: MlflowClient, version: Version, every: list[Version]) -> Scores:
    """Scores of a version and of its recipe's other seeds; a seed whose scores are gone is told of."""
    found = [scores_of_version(client, version)]
    for sibling in siblings(version, every):
        if sibling.number == version.number:
            continue
        try:
            found.append(scores_of_version(client, sibling))
        except InputError as error:
            say(str(error))
    tables = pd.concat([scores.per_section for scores in found])
    return Scores(found[0].protocol, found[0].data_digest, tables)


def _scored_again(client: MlflowClient, candidate: Version, champion: Version) -> tuple[pd.DataFrame, int]:
    """Scores of the champion on those test sections of a version that it was not trained on, and how many there are
    with those; kept with the version's run, so that they are made once."""
    key = f"{champion.tags[DIGEST_TAG][:16]}-{candidate.evaluation.test[:16]}"
    count = candidate.evaluation.sections
    if (kept := _kept(client, candidate, key)) is not None:
        return kept, count
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, version in (("candidate", candidate), ("champion", champion)):
            (folder / name / "training").mkdir(parents=True)
            fetch_package(client, version, folder / name / "training")
            shutil.move(folder / name / "training" / CELLS_FILE, folder / name)
        own, other = (RunRecord(folder / name / "training") for name in ("candidate", "champion"))
        run, champions_run = own.read(), other.read()
        source = _source_of(run, candidate)
        # Their grey levels as the champion was trained to see them.
        own.update(normalization=champions_run.normalization)
        test = parts_of_run(own, source).test
        seen = _trained_on(other, champions_run, source)
        tested_on = _tested_on(run, source, [int(number) for number in test.numbers])
        # Sections that do not count are seen all the same: cells are told apart by what lies above and below.
        table = score_sections(other, champions_run, test).table
        counts = {int(number) for number, digest in zip(test.numbers, tested_on, strict=True) if digest not in seen}
        file = folder / f"{key}.csv"
        table[table["section"].isin(counts)].to_csv(file, index=False, float_format="%.6f", lineterminator="\n")
        _keep(client, candidate, key, file)
        return _read(file.read_bytes()), count


def _source_of(run: Run, version: Version) -> Source:
    """The dataset of a run, as it was then."""
    needed = f"the champion has to be scored again on the test sections of {version.uri}, which are not here"
    bring = f"bring in {run.dataset} with digest {run.data_digest} (`emseg data add {run.dataset}`, or `dvc pull`)"
    try:
        source = load_source_of(run.dataset, run.data_digest)
        if source.digest != run.data_digest and (PREPARED_FOLDER / "images.tif").is_file():
            source = read_source(PREPARED_FOLDER, run.dataset)
    except InputError as error:
        raise NotComparableError(f"{needed} ({error}); {bring}") from error
    if source.digest != run.data_digest:
        raise NotComparableError(f"{needed}: {run.dataset} here has digest {source.digest}; {bring}")
    return source


def _tested_on(run: Run, source: Source, numbers: list[int]) -> list[str]:
    """Digests of the sections with these numbers, that a run is tested on."""
    noted = run.section_digests
    if noted is not None and len(noted.test) == len(numbers):
        return noted.test
    digests = source.test_section_digests if run.protocol == "official" else source.section_digests
    return [digests[number] for number in numbers]


def _trained_on(record: RunRecord, run: Run, source: Source) -> frozenset[str]:
    """Digests of the sections that a run was trained or calibrated on."""
    if run.trained_on is not None:
        return run.trained_on
    if run.data_digest != source.digest:
        raise NotComparableError(
            "the champion's record is of an earlier emseg and does not say which sections it was trained on, so they "
            "cannot be told from the test sections; train it again"
        )
    parts = parts_of_run(record, source)
    numbers = [*parts.training.numbers, *parts.validation.numbers]
    return frozenset(source.section_digests[int(number)] for number in numbers)


def _kept(client: MlflowClient, candidate: Version, key: str) -> pd.DataFrame | None:
    """What `_keep` kept, if it is still that."""
    from mlflow.exceptions import MlflowException

    try:
        digest = client.get_run(candidate.run_id).data.tags.get(f"{_AGAIN_TAG}.{key}")
        if digest is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            file = client.download_artifacts(candidate.run_id, f"{_AGAIN_FOLDER}/{key}.csv", folder)
            content = Path(file).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            return None
        return _read(content)
    except (MlflowException, OSError, ValueError):
        return None


def _keep(client: MlflowClient, candidate: Version, key: str, file: Path) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.log_artifact(candidate.run_id, str(file), _AGAIN_FOLDER)
        client.set_tag(candidate.run_id, f"{_AGAIN_TAG}.{key}", hashlib.sha256(file.read_bytes()).hexdigest())
    except (MlflowException, OSError) as error:
        say(f"the champion's new scores could not be kept with {candidate.uri} ({reason_of(error)})")


def _read(content: bytes) -> pd.DataFrame:
    """Scores that were made again, of which there may be none."""
    return read_scores(content) if content.count(b"\n") > 1 else pd.DataFrame({"section": []})
