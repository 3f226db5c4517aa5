"""Where a run says that it comes from."""

import subprocess

import pytest

from emseg.errors import InputError
from emseg.models.own import NetworkFile
from emseg.records.lineage import describe_lineage, dvc_hashes
from emseg.records.run import Lineage


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in a folder of a repository, with one commit."""
    folder = tmp_path / "repository" / "studies" / "cortex"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    git("init", "--quiet", str(tmp_path / "repository"))
    (folder / "params.yaml").touch()
    (folder / "dvc.lock").touch()
    git("add", ".")
    git("-c", "user.email=a@b", "-c", "user.name=x", "commit", "--quiet", "--message", "start")
    return folder


def git(*arguments):
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def lineage(networks=None):
    found = describe_lineage("cpu", 1, networks)
    return Lineage.model_validate(found).model_dump()


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://lab:sesame@example.org/x.git", "https://example.org/x.git"),
        ("https://sesame@example.org/x.git", "https://example.org/x.git"),
        ("git@example.org:lab/x.git", "git@example.org:lab/x.git"),
        ("ssh://git@example.org/x.git", "ssh://git@example.org/x.git"),
        ("ssh://lab:sesame@example.org/x.git", "ssh://example.org/x.git"),
        ("/srv/git/x", "/srv/git/x"),
    ],
)
def test_addresses_are_noted_without_their_secrets(project, address, kept):
    git("remote", "add", "other", "https://example.org/other.git")
    git("remote", "add", "origin", address)
    (project / ".dvc").mkdir()
    (project / ".dvc/config").write_text(f"[core]\n    remote = lab\n['remote \"lab\"']\n    url = {address}\n")
    found = lineage()
    assert found["git_remote"] == found["dvc_remote"] == kept
    assert found["git_folder"] == "studies/cortex"
    assert found["code_in_project"] is False


def test_what_is_not_there_is_not_made_up(project, tmp_path, monkeypatch):
    found = lineage()
    assert (found["git_remote"], found["dvc_remote"], found["networks_file"]) == (None, None, None)
    assert (found["git_folder"], found["git_dirty"]) == ("studies/cortex", False)
    (project / ".gitignore").write_text("/scratch/\n")
    (project / "scratch").mkdir()
    monkeypatch.chdir(project / "scratch")
    assert lineage()["git_folder"] is None
    monkeypatch.chdir(tmp_path)
    found = lineage()
    assert (found["git_commit"], found["git_folder"], found["git_dirty"]) == (None, None, False)


def test_a_commit_does_not_hold_what_is_changed_or_was_never_added(project):
    own = NetworkFile("networks.py", "0" * 64)
    (project / "networks.py").touch()
    assert lineage()["git_dirty"] is False
    assert lineage(own)["git_dirty"] is True
    (project / "dvc.lock").write_text("schema: '2.0'\n")
    assert lineage()["git_dirty"] is False
    (project / "params.yaml").write_text("a: 1\n")
    assert lineage()["git_dirty"] is True


@pytest.mark.parametrize(
    "content", [b"stages: {prepare: 3}", b"\xff\x00\x8a", b"stages: {prepare: {outs: [3]}}", b"a: [\n"]
)
def test_a_damaged_dvc_lock_is_a_sentence(tmp_path, content):
    (tmp_path / "dvc.lock").write_bytes(content)
    with pytest.raises(InputError, match=r"dvc\.lock is damaged"):
        dvc_hashes(tmp_path / "dvc.lock")
