"""A store of an earlier emseg, with one registered model for everything, is refused until it is taken over."""

import json

import pytest
from crowned import aliases, champions, crown
from evaluated import rewrite

from emseg.records.evaluation import read_evaluated
from emseg.records.recipe import recipe_digest
from emseg.registry.register import register_record
from emseg.registry.versions import find_version, read_registry

KEPT = ("emseg.record_id", "emseg.digest", "weights.sha256")


def as_earlier(record):
    """The tag in which an earlier emseg described a version."""
    run, evaluated = record.read(), read_evaluated(record.evaluation_folder)
    shared = ("model", "dataset", "protocol", "fold", "seed", "parameters", "data_digest", "augmented_digest")
    facts = {key: getattr(run, key) for key in (*shared, "created")}
    facts |= {key: getattr(run.lineage, key) for key in ("git_commit", "git_dirty", "code_digest", "dvc")}
    facts |= {"recipe": recipe_digest(run)}
    described = {"facts": facts, "metrics": evaluated.evaluation.model_dump(mode="json")}
    return json.dumps(described | {"scores": evaluated.table.to_csv(index=False, float_format="%.6f")})


@pytest.fixture
def earlier(store, evaluated):
    """Versions 1 to 4 of two datasets, a fifth without files; 1, 3 and 2 were champions, in this order."""
    other = evaluated(1)
    other.update(dataset="hippocampus")
    rewrite(other.folder.parent, dataset="hippocampus")
    sources = []
    for record in (evaluated(0), other):
        register_record(store, record)
        version = store.get_model_version(record.read().dataset, "1")
        sources.append((record, version, {key: version.tags[key] for key in KEPT}))
    decision = {"conditions": [{"name": "seeds", "is_met": True, "evidence": "2 | trained"}], "who": "ada", "when": "x"}
    store.create_registered_model("emseg-membrane", {"emseg.champions": "[1, 3, 2]"})
    for number, (record, version, tags) in enumerate([sources[0], sources[0], sources[1], sources[1], sources[0]], 1):
        tags = tags | {"emseg.record_id": f"{number:032x}", "emseg.description": as_earlier(record)}
        tags["emseg.decision"] = json.dumps(decision)
        source = version.source if number < 5 else "file:///nowhere"
        store.create_model_version("emseg-membrane", source, run_id=version.run_id, tags=tags)
    for name in ("cortex", "hippocampus"):
        store.delete_registered_model(name)
    return store


def test_an_earlier_store_is_refused_until_it_is_taken_over(earlier, emseg, tmp_path):
    run = tmp_path / "runs" / "seed0"
    for command in (["registry"], ["promote"], ["rollback"], ["lineage"], ["serve"], ["publish", run]):
        code, out, err = emseg(*command)
        assert (code, out, err.count("\n")) == (2, "", 1), command
        assert "`emseg registry --take-over`" in err
    code, out, err = emseg("registry", "--take-over")
    assert code == 0, err
    assert out.splitlines() == ["cortex: its champion is version 2", "hippocampus: its champion is version 1"]
    assert "version 5 of emseg-membrane is not taken over: its files are gone" in err
    assert [champions(earlier, task) for task in ("cortex", "hippocampus")] == [[1, 2], [1]]
    assert aliases(earlier) == {"champion": 2, "previous": 1}
    described = earlier.get_model_version("cortex-champion", "2").description
    assert "| seeds | yes | 2 \\| trained |" in described
    assert "by ada" in described
    registry = read_registry(earlier, "cortex")
    assert [version.number for version in registry.versions] == [2, 1]
    assert registry.versions[0].record_id == f"{2:032x}"
    assert emseg("predict", tmp_path / "cortex" / "images.tif", tmp_path / "o.tif", "--task", "hippocampus")[0] == 0
    assert emseg("rollback", "--task", "cortex")[0] == 0
    assert champions(earlier) == [1]
    crown(earlier, 2, task="cortex")
    # Once more changes nothing; nor is anything of the old model gone.
    assert emseg("registry", "--take-over")[0] == 0
    assert (champions(earlier), len(read_registry(earlier, "cortex").versions)) == ([1, 2], 2)
    assert len(earlier.search_model_versions("name = 'emseg-membrane'")) == 5


def test_a_take_over_that_was_stopped_goes_on(earlier, monkeypatch):
    from emseg.registry import takeover

    add, calls = takeover.add_link, []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return add(*arguments)

    monkeypatch.setattr(takeover, "add_link", stopped)
    with pytest.raises(KeyboardInterrupt):
        takeover.take_over(earlier)
    takeover.take_over(earlier)
    assert [champions(earlier, task) for task in ("cortex", "hippocampus")] == [[1, 2], [1]]
    assert find_version(earlier, "champion", "cortex").number == 2


def test_there_may_be_nothing_to_take_over(store, emseg):
    code, _, err = emseg("registry", "--take-over")
    assert code == 2
    assert "nothing to take over" in err
