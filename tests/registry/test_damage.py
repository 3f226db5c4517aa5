"""Damaged packages, runs and tags: a sentence, the right exit code, nothing left behind; never a traceback."""

import itertools
import json
import os
import random
import tempfile
import zlib
from types import SimpleNamespace

import pytest
from damage import ODD_VALUES, damaged_bytes, damaged_values
from evaluated import write_values
from mlflow.store.entities import PagedList

from emseg.errors import InputError, RunError, ending
from emseg.records.evaluation import read_evaluated
from emseg.registry.compare import Comparison
from emseg.registry.described import DIGEST_TAG, REPLACES_TAG, SCORES_TAG
from emseg.registry.judge import judge
from emseg.registry.package import PACKAGE_FILES, open_package, package_digest, segmenter_of_run, write_package
from emseg.registry.promote import best_candidate
from emseg.registry.standings import as_tables, standings
from emseg.registry.tasks import KIND_TAG
from emseg.registry.versions import read_registry
from emseg.settings import load_settings
from emseg.tracking.delivery import RECORD_TAG


@pytest.fixture
def litter(tmp_path, monkeypatch):
    """An empty folder for temporary files, which is empty again after."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert not os.listdir(folder)


def refused(what, *arguments, **keywords):
    """The sentence with which something ends, or None where it does not."""
    try:
        what(*arguments, **keywords)
        return None
    except (InputError, RunError) as error:
        known = error
    sentence, code = ending(known)
    assert code == (2 if isinstance(known, InputError) else 1)
    assert sentence.isprintable()
    assert len(sentence) < 600
    return sentence


@pytest.fixture
def package(evaluated, tmp_path):
    record = evaluated()
    write_package(record, tmp_path / "package")
    return tmp_path / "package"


def test_a_damaged_package_is_refused_against_its_digest(package, litter):
    digest = package_digest(package)
    for name in (name for name in PACKAGE_FILES if (package / name).is_file()):
        file = package / name
        content = file.read_bytes()
        for kind, damaged in damaged_bytes(content, zlib.crc32(name.encode()), 6):
            file.write_bytes(damaged)
            sentence = refused(open_package, package, "model", digest)
            assert sentence, (name, kind)
            assert "`emseg publish RUN --again`" in sentence
        file.unlink()
        assert name in refused(open_package, package, "model", digest)
        file.write_bytes(content)
    assert refused(open_package, package, "model", digest) is None


def test_a_damaged_package_with_a_digest_of_its_own_loads_or_says_why(package, litter):
    # Whoever may write to the registry as well: nothing of it is run, and nothing ends in a traceback.
    for name in ("record.json", "metrics.json"):
        file = package / name
        content = file.read_text()
        for _, values in damaged_values(json.loads(content), zlib.crc32(name.encode()), 25):
            file.write_text(json.dumps(values))
            refused(open_package, package, "model", package_digest(package))
        file.write_text(content)
    for name in ("weights.safetensors", "check.npz"):
        file = package / name
        content = file.read_bytes()
        for kind, damaged in damaged_bytes(content, zlib.crc32(name.encode()), 8):
            file.write_bytes(damaged)
            sentence = refused(open_package, package, "model", package_digest(package))
            assert sentence or kind.startswith(("flip", "zeros", "doubled")), kind
        file.write_bytes(content)


def test_a_run_folder_that_lacks_or_spoils_a_part_is_refused(evaluated, litter):
    run = evaluated().folder.parent
    for part in ("training/weights.safetensors", "training/record.json", "cells.json"):
        file = run / part
        content = file.read_bytes()
        for kind, damaged in itertools.islice(damaged_bytes(content, zlib.crc32(part.encode()), 8), 3):
            file.write_bytes(damaged)
            assert refused(segmenter_of_run, run), (part, kind)
        file.unlink()
        assert refused(segmenter_of_run, run), part
        file.write_bytes(content)
    cells = json.loads((run / "cells.json").read_text())
    for odd in ODD_VALUES:
        if odd is not None:
            write_values(run / "cells.json", cells | {"agglomeration": odd})
            assert refused(segmenter_of_run, run)


def test_odd_records_are_refused_by_publish_before_anything_is_written(evaluated, store, litter):
    from emseg.registry.deliver import publish_records

    record = evaluated()
    run = record.folder.parent
    places = {"training/record.json": 20, "evaluation/metrics.json": 20}
    for part, count in places.items():
        file = run / part
        content = file.read_text()
        for _, values in damaged_values(json.loads(content), zlib.crc32(part.encode()), count):
            file.write_text(json.dumps(values))
            refused(check_delivery, record)
        file.write_text(content)
    for odd in ("it's", 'a"b', "`", "x" * 300, "a\nb", ""):
        content = record.read().model_dump(mode="json")
        (run / "training" / "record.json").write_text(json.dumps(content | {"id": odd}))
        assert "damaged" in refused(publish_records, store, [record])
        write_values(run / "training" / "record.json", content | {"id": odd})
        assert "(id: " in refused(publish_records, store, [record])
        (run / "training" / "record.json").write_text(json.dumps(content))
    assert [experiment.name for experiment in store.search_experiments()] == ["Default"]


def check_delivery(record):
    from emseg.tracking.delivery import read_delivery

    read_delivery(record)


class FakeClient:
    """What MLflow would give; its pages let anyone edit every tag."""

    def __init__(self, tags, line):
        self.found = {"cortex": self._versions(tags), "cortex-champion": self._versions(line)}

    @staticmethod
    def _versions(tags):
        return [
            SimpleNamespace(version=str(n), run_id="0" * 32, tags=own, source="models:/m-1", name="cortex")
            for n, own in enumerate(tags, start=1)
        ]

    def search_registered_models(self, query, page_token):
        return PagedList([SimpleNamespace(name="cortex")], None)

    def get_registered_model(self, name):
        return SimpleNamespace(name=name, tags={KIND_TAG: "task"}, aliases={"champion": "1", "odd": "9"})

    def search_model_versions(self, query, page_token):
        return PagedList(self.found[query.split("'")[1]], None)


def test_odd_tags_of_versions_are_told_of_and_never_end_a_command(evaluated, tiny_params, monkeypatch):
    monkeypatch.setattr("emseg.evaluation.bootstrap._RESAMPLES", 10)
    from emseg.registry.register import version_tags

    rule = load_settings(tiny_params).promotion
    record = evaluated()
    scores = read_evaluated(record.evaluation_folder).scores
    monkeypatch.setattr("emseg.registry.compare.scores_of_version", lambda client, version: scores)
    tags = version_tags(record) | {DIGEST_TAG: "d" * 64, SCORES_TAG: "e" * 64}
    links = [{"champion.version": "1", "champion.judged_against": "0"}]
    links += [{"champion.version": "2", "champion.judged_against": "1"}]
    draw = random.Random(3)
    odd = [str(value) for value in ODD_VALUES]
    odd += [damaged.decode("utf-8", "replace") for _, damaged in damaged_bytes(b"0.812345 [0.7, 0.9]", 4, 12)]
    read = sorted(set(tags) - {RECORD_TAG, DIGEST_TAG, SCORES_TAG})
    cases = [tags | {key: draw.choice(odd), RECORD_TAG: "other"} for key in read for _ in range(3)]
    cases += [{k: v for k, v in tags.items() if k != key} | {RECORD_TAG: "other"} for key in read]
    cases += [tags | {RECORD_TAG: "other", REPLACES_TAG: text} for text in ("", "x", "-1", "1", "2", "9" * 30, "²")]
    told = 0
    for case in cases:
        sentences = []
        for line in (links[:1], [links[0], links[1]], [links[0], links[1] | {"champion.version": draw.choice(odd)}]):
            champions = [own | link for own, link in zip((tags, case), line, strict=False)]
            registry = read_registry(FakeClient([tags, case], champions), "cortex", sentences.append)
            assert 1 in {version.number for version in registry.versions} or REPLACES_TAG in case
            assert refused(as_tables, standings(None, registry)) is None
            refused(best_candidate, registry.versions, registry.champion, rule)
            for version in registry.versions:
                compared = Comparison(scores, scores, [7, 8], "the same")
                judge(version, compared, registry.versions, rule)
        assert all(sentence.isprintable() and sentence.startswith("version 2 of") for sentence in sentences)
        told += bool(sentences)
    assert told > 30
