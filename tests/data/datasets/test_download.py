import hashlib

import pytest
from servers import FileServer, free_port

from emseg.data.datasets.card import RemoteFile
from emseg.data.datasets.download import download
from emseg.errors import InputError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with FileServer({"/stack.h5": CONTENT, "/other.h5": CONTENT[::-1]}) as server:
        yield server


def remote(*urls, **known):
    return RemoteFile(name="stack.h5", urls=list(urls), **known)


@pytest.mark.parametrize("known", [{"sha256": SHA256, "bytes": len(CONTENT)}, {}])
def test_a_download_goes_on_where_it_was_cut(tmp_path, server, known):
    file, path = remote(f"{server.address}/stack.h5", **known), tmp_path / "downloads" / "stack.h5"
    server.cut_after = 300_000
    with pytest.raises(InputError, match=r"ended after 300,000 of 1,024,000 bytes.*try again to continue"):
        download(file, path)
    assert not path.exists()
    server.cut_after = None
    seen = []
    origin = download(file, path, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert server.asked == [("/stack.h5", 0), ("/stack.h5", 300_000)]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert (origin.url, origin.sha256, origin.bytes) == (file.urls[0], SHA256, len(CONTENT))
    assert [file.name for file in path.parent.iterdir()] == ["stack.h5"]


def test_a_mirror_goes_on_with_what_the_first_gave(tmp_path, server):
    with FileServer({"/mirror": CONTENT}) as mirror:
        server.cut_after = 1000
        file = remote(f"{server.address}/stack.h5", f"{mirror.address}/mirror", sha256=SHA256)
        assert download(file, tmp_path / "stack.h5").url == file.urls[1]
        assert mirror.asked == [("/mirror", 1000)]
    assert (tmp_path / "stack.h5").read_bytes() == CONTENT


def test_where_the_first_address_is_dead_the_next_is_asked(tmp_path, server):
    dead = f"http://127.0.0.1:{free_port()}/stack.h5"
    file = remote(dead, f"{server.address}/gone", f"{server.address}/stack.h5", sha256=SHA256)
    assert download(file, tmp_path / "stack.h5").url == file.urls[2]
    with pytest.raises(InputError) as refused:
        download(remote(dead, f"{server.address}/gone"), tmp_path / "again.h5")
    assert f"{dead}: [Errno 111] Connection refused" in str(refused.value)
    assert f"{server.address}/gone: Not Found" in str(refused.value)
    assert "--from" in str(refused.value)


def test_another_file_than_the_card_names_is_thrown_away_and_the_next_address_asked(tmp_path, server):
    wrong = f"{server.address}/other.h5"
    with pytest.raises(InputError, match=f"{wrong} gave another file: its SHA-256 is .*, not {SHA256[:12]}"):
        download(remote(wrong, sha256=SHA256), tmp_path / "stack.h5")
    with pytest.raises(InputError, match="gave 1,024,000 bytes, not 7"):
        download(remote(wrong, bytes=7), tmp_path / "stack.h5")
    assert not list(tmp_path.iterdir())
    assert download(remote(wrong, f"{server.address}/stack.h5", sha256=SHA256), tmp_path / "stack.h5").sha256 == SHA256


def test_a_beginning_of_another_file_does_not_spoil_the_download(tmp_path, server):
    server.cut_after = 5000
    with pytest.raises(InputError, match="try again"):
        download(remote(f"{server.address}/other.h5", sha256=SHA256), tmp_path / "stack.h5")
    server.cut_after = None
    server.files["/other.h5"] = CONTENT  # it was replaced meanwhile
    download(remote(f"{server.address}/other.h5", sha256=SHA256), tmp_path / "stack.h5")
    assert (tmp_path / "stack.h5").read_bytes() == CONTENT
    assert [start for _, start in server.asked] == [0, 5000, 0]


def test_what_is_whole_already_is_not_asked_for_again(tmp_path, server):
    (tmp_path / ".stack.h5.part").write_bytes(CONTENT)
    download(remote(f"{server.address}/stack.h5", sha256=SHA256), tmp_path / "stack.h5")
    assert (tmp_path / "stack.h5").read_bytes() == CONTENT
    assert server.asked == [("/stack.h5", len(CONTENT))]
