"""Files are whole or absent, nobody's files are lost, and what a kill leaves behind goes with the next command."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys

import pytest

from emseg.errors import InputError, RunError
from emseg.files import HeldError, atomic_folder, atomic_path, hold, write_text

KILLED = """
import os, signal, sys
from emseg.files import atomic_folder, atomic_path
path, kind = sys.argv[1:]
with (atomic_path(path) if kind == "file" else atomic_folder(path, ["new"])) as temporary:
    (temporary if kind == "file" else temporary / "new").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(path, kind):
    done = subprocess.run([sys.executable, "-c", KILLED, path, kind])
    assert done.returncode == -signal.SIGKILL


def write_half(path):
    path.write_text("half")
    raise ZeroDivisionError


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("name", ["table.csv", "no suffix", "two.parts.json", "#1, a?[x].txt"])
def test_a_file_is_whole_or_as_it_was(tmp_path, name):
    path = tmp_path / "deep" / name
    write_text(path, "before")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        write_half(temporary)
    assert path.read_text() == "before"
    killed(path, "file")
    assert path.read_text() == "before"
    assert len(names(path.parent)) == 2
    write_text(path, "after")
    assert path.read_text() == "after"
    assert names(path.parent) == [name]


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    folder = tmp_path / "result.zarr"
    for content in ("first", "second"):
        with atomic_folder(folder, ["new", "old"]) as temporary:
            (temporary / "new").write_text(content)
    killed(folder, "folder")
    assert (folder / "new").read_text() == "second"
    assert len(names(tmp_path)) == 2
    with atomic_folder(folder, ["new"]) as temporary:
        (temporary / "old").write_text("third")
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["result.zarr"]


def test_a_folder_that_was_being_replaced_at_the_kill_comes_back(tmp_path):
    folder = tmp_path / "result"
    with atomic_folder(folder, ["new"]) as temporary:
        (temporary / "new").write_text("whole")
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    import socket

    host = socket.gethostname().replace(".", "-")
    folder.rename(tmp_path / f".result.{host}.{dead.stdout.strip()}.replaced")
    with pytest.raises(ZeroDivisionError), atomic_folder(folder, ["new"]):
        raise ZeroDivisionError
    assert (folder / "new").read_text() == "whole"
    assert names(tmp_path) == ["result"]


def test_what_a_process_of_this_number_left_behind_goes_too(tmp_path):
    # In a container every command is process 1.
    import socket

    host = socket.gethostname().replace(".", "-")
    (tmp_path / f".result.{host}.{os.getpid()}-0.partial").mkdir()
    with atomic_folder(tmp_path / "result", ["new"]) as temporary:
        (temporary / "new").write_text("")
    assert names(tmp_path) == ["result"]


def test_a_link_is_followed_and_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to(tmp_path / "table.csv")
    write_text(tmp_path / "link.csv", "after")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "table.csv").read_text() == "after"
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, "/dev/null"):
        with pytest.raises(InputError, match="is not a file that can be replaced"):
            write_text(place, "text")


@pytest.mark.parametrize("foreign", ["thesis.txt", "new.bak", "deep/new", ".git/config", "new/of/mine"])
def test_a_folder_with_other_files_is_not_replaced(tmp_path, foreign):
    file = tmp_path / "result" / foreign
    file.parent.mkdir(parents=True)
    file.write_text("years of work")
    with (
        pytest.raises(InputError, match=f"emseg did not write .{foreign}"),
        atomic_folder(tmp_path / "result", ["new"]),
    ):
        raise AssertionError("never entered")
    assert file.read_text() == "years of work"


def test_what_systems_leave_in_folders_does_not_matter(tmp_path):
    (tmp_path / "result").mkdir()
    for name in (".DS_Store", "Thumbs.db", "._new"):
        (tmp_path / "result" / name).write_text("")
    with atomic_folder(tmp_path / "result", ["new"]) as temporary:
        (temporary / "new").write_text("")
    assert names(tmp_path / "result") == ["new"]


@pytest.mark.parametrize("kind", ["file", "link", "link to nothing"])
def test_what_is_no_folder_is_not_replaced_by_one(tmp_path, kind):
    target = tmp_path / "target"
    (tmp_path / "elsewhere").mkdir()
    if kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / ("elsewhere" if kind == "link" else "gone"))
    with pytest.raises(InputError, match="is not a folder of emseg's"), atomic_folder(target, []):
        pass
    assert target.is_symlink() or target.read_text() == "mine"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_what_the_umask_says(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        # Some writers make their file anew, for its owner alone.
        with atomic_path(tmp_path / "weights") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert (tmp_path / "weights").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("path", ["file/inside", "n" * 300])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, path):
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o644)
    with pytest.raises(InputError, match="cannot be written") as refused, atomic_folder(tmp_path / path, []):
        pass
    assert "\n" not in str(refused.value)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    def write():
        # A limit on the size of files stands in for the full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            write_text(tmp_path / "large.txt", "x" * 5000)
        except RunError as error:
            os._exit(0 if "make room" in str(error) else 1)
        os._exit(2)

    child = multiprocessing.get_context("fork").Process(target=write)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert names(tmp_path) == []


HOLDER = """
import sys, time
from emseg.files import hold
with hold(sys.argv[1], "busy"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_is_held_is_refused_until_its_holder_ends_however_it_ends(tmp_path):
    target = tmp_path / "new" / "result"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, target], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(HeldError, match="somebody writes there"), hold(target, "somebody writes there"):
        pass
    holder.kill()
    holder.wait()
    with hold(target, "busy"):
        pass
    assert names(target.parent) == []


COUNTER = """
import sys
from pathlib import Path
from emseg.files import hold
for _ in range(100):
    with hold(sys.argv[1], "busy", patience=60):
        number = int(Path(sys.argv[1]).read_text())
        Path(sys.argv[1]).write_text(str(number + 1))
"""


def test_only_one_process_holds_at_a_time(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNTER, counter]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert counter.read_text() == "400"
