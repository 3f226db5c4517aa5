"""Every command of a team through a real MLflow server."""

import json
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from crowned import champions
from servers import POSTGRESQL, free_port, mlflow_server, postgresql, refusing

from emseg.data.io.stack import read_stack
from emseg.tracking.store import connect


@pytest.fixture(scope="session")
def server(tmp_path_factory, empty_store):
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder / "mlflow.db")
    with mlflow_server(f"sqlite:///{folder / 'mlflow.db'}", folder) as address:
        yield address


@pytest.fixture
def member(tmp_path, tiny_params, monkeypatch):
    """A team member's folder, with a rule that two test sections can meet."""
    text = tiny_params.read_text().replace("minimum_sections: 5", "minimum_sections: 2")
    tiny_params.write_text(text.replace("minimum_seeds: 2", "minimum_seeds: 1"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def forget(address, monkeypatch):
    """A client of an address where nothing is registered any more."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    client = connect()
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    return client


def work_as_a_team(emseg, evaluated, member, client):
    """From two published runs to segmented sections and back."""
    records = [evaluated(seed).folder.parent for seed in (0, 1)]
    code, out, err = emseg("publish", *records, "--json")
    assert code == 0, err
    published = json.loads(out)
    assert sorted(published["versions"].values()) == [1, 2]
    assert json.loads(emseg("publish", *records, "--json")[1]) == published
    assert len(client.search_model_versions("name = 'cortex'")) == 2
    assert emseg("promote", "1")[0] == 0
    assert emseg("promote", "2", "--force", "to have two")[0] == 0
    assert champions(client) == [1, 2]
    code, out, _ = emseg("rollback")
    assert (code, champions(client)) == (0, [1])
    (group,) = json.loads(emseg("registry", "--json")[1])
    assert {v["version"] for v in group["versions"] if "champion" in v["aliases"]} == {1}
    code, out, _ = emseg("lineage", "models:/cortex@champion")
    assert code == 0
    assert "emseg train residual_unet --fold 0 --seed 0" in out
    images = member / "cortex" / "images.tif"
    for name, model in (("registry.tif", "models:/cortex@champion"), ("run.tif", str(records[0]))):
        code, _, err = emseg("predict", images, member / name, "--model", model)
        assert code == 0, err
    np.testing.assert_array_equal(read_stack(member / "registry.tif"), read_stack(member / "run.tif"))


def test_a_team_works_through_a_server(server, emseg, evaluated, member, monkeypatch, stack):
    client = forget(server, monkeypatch)
    work_as_a_team(emseg, evaluated, member, client)
    from fastapi.testclient import TestClient

    from emseg.registry.serve import champion_of_registry, make_app

    answer = TestClient(make_app(champion_of_registry())).post(
        "/segment?kind=probability", content=(member / "cortex" / "images.tif").read_bytes()
    )
    assert answer.status_code == 200
    assert answer.headers["x-emseg-version"] == "1"
    code, out, _ = emseg("ui")
    assert code == 0
    assert out.startswith(f"{server}/#/experiments")


@pytest.mark.skipif(not POSTGRESQL, reason="no PostgreSQL here (Debian: apt-get install postgresql)")
def test_a_team_works_on_postgresql_and_its_password_stays_secret(
    emseg, evaluated, member, monkeypatch, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("postgresql")
    with postgresql("mlflow") as database, mlflow_server(database, folder) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        work_as_a_team(emseg, evaluated, member, connect())
        monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
        for command in (["publish", member / "runs" / "seed0", "--json"], ["registry", "--json"], ["lineage", "1"]):
            code, out, err = emseg(*command)
            assert "open-sesame" not in out + err
            assert code in (0, 1), err


PUBLISH = """
import sys
from emseg.tracking.store import connect
client = connect()
print("ready", flush=True)
sys.stdin.readline()
from emseg.cli import main
sys.argv = ["emseg", "publish", sys.argv[1]]
main()
"""


@pytest.mark.parametrize("machines", ["one folder", "a copy on each machine"])
def test_a_record_published_by_several_at_once_is_one_run_and_one_version(
    server, evaluated, member, monkeypatch, machines
):
    client = forget(server, monkeypatch)
    record = evaluated()
    folders = [record.folder.parent] * 2
    if machines != "one folder":
        folders = [shutil.copytree(record.folder.parent, member / f"machine{n}") for n in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for folder in folders
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    (version,) = client.search_model_versions("name = 'cortex'")
    runs = client.search_runs(
        [e.experiment_id for e in client.search_experiments()], f"tags.`emseg.record_id` = '{record.read().id}'"
    )
    assert [run.info.run_id for run in runs] == [version.run_id]
    for name in ("train/loss", "validation/dice", "dice", "train/total_seconds"):
        points = client.get_metric_history(version.run_id, name)
        assert len({(p.step, p.timestamp, p.value) for p in points}) == len(points)
        assert len({p.step for p in points}) == len(points), name


REFUSED = {
    "publish": (["create-experiment", "runs/create"], "may not publish"),
    "register": (["registered-models/create", "model-versions/create"], "may not register"),
    "promote": (["registered-models/create", "model-versions/create"], "may not promote"),
    "registry": (["registered-models"], "may not read the registry"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_member_may_not_do_is_said_in_a_sentence(server, emseg, evaluated, member, monkeypatch, case):
    forget(server, monkeypatch)
    run = evaluated().folder.parent
    if case in ("promote", "registry"):
        assert emseg("publish", run)[0] == 0
    parts, sentence = REFUSED[case]
    command = {"promote": ["promote", "1"], "registry": ["registry"]}.get(case, ["publish", run])
    with refusing(server, 403, parts) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        code, _, err = emseg(*command)
    assert code == 1
    *warnings, last = err.splitlines()
    assert last.startswith(f"emseg: ada {sentence}")
    assert all(case == "promote" and "worse than no network" in line for line in warnings)


def test_an_unknown_login_is_told_what_to_set(server, emseg, member, monkeypatch):
    with refusing(server, 401, ["/api/"]) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("://", "://ada:open-sesame@"))
        code, _, err = emseg("registry")
    assert code == 1
    assert "does not know who asks" in err
    assert "MLFLOW_TRACKING_USERNAME" in err
    assert "open-sesame" not in err


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+psycopg://lab:open-sesame@127.0.0.1:{port}/mlflow",
        "http://ada:open-sesame@127.0.0.1:{port}",
        "postgresql+psycopg://lab:open@sesame@127.0.0.1:{port}/mlflow",
        "http://open-sesame@127.0.0.1:{port}",
        "postgresql://lab:open-sesame@127.0.0.1:not-a-port/mlflow",
        "nothing://lab:open-sesame@host/x",
    ],
)
def test_a_store_out_of_reach_is_said_without_its_password(uri, emseg, member, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(port=free_port()))
    code, out, err = emseg("registry")
    assert code == 1
    assert "cannot be reached" in err
    assert err.count("\n") == 1
    assert "sesame" not in out + err


@pytest.mark.parametrize("command", ["serve", "ui"])
def test_a_taken_port_is_a_sentence_before_anything_else(command, store, emseg):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, out, err = emseg(command, "--port", taken.getsockname()[1])
    assert (code, out) == (2, "")
    assert "choose another with --port" in err
    assert err.count("\n") == 1
