"""Promotions from many processes at once, some of which are killed."""

import logging
import multiprocessing
import os
import random
import time
import traceback

from emseg.registry.champions import read_line
from emseg.registry.decision import Condition

_PROMOTED = 10
"""Exit code of a process that promoted nothing; one more for each that it promoted."""


def promote_at_once(uri, versions, processes, each, killed, alive=None, seed=0):
    """Promote by force, each of `processes` processes `each` versions; kill some of them at a random moment.

    Args:
        uri: of a store that this process has no connection to, or of a server.
        versions: numbers of those that become champion, in turn.
        processes: how many there are.
        each: how many versions each process promotes.
        killed: the share of processes that get SIGKILL.
        alive: how many processes there are at a time; None: all.
        seed: of the moments.

    Returns:
        How many versions each process promoted; None of those that were killed.
    """
    draw = random.Random(seed)
    fork = multiprocessing.get_context("fork")
    counts, running = [], []
    for number in range(processes):
        while len(running) >= (alive or processes):
            time.sleep(0.005)
            running = _left(running, counts)
        own = [versions[(number + step) % len(versions)] for step in range(each)]
        process = fork.Process(target=_quietly, args=(uri, own))
        process.start()
        dies = time.monotonic() + draw.uniform(0.1, 1.0 + 0.5 * each) if draw.random() < killed else None
        running.append((process, dies))
    while running:
        time.sleep(0.005)
        running = _left(running, counts)
    return counts


def _left(running, counts):
    left = []
    for process, dies in running:
        if dies is not None and time.monotonic() > dies and process.exitcode is None:
            process.kill()
            process.join()
        if process.exitcode is None:
            left.append((process, dies))
        else:
            assert process.exitcode == -9 or process.exitcode >= _PROMOTED, process.exitcode
            counts.append(process.exitcode - _PROMOTED if process.exitcode > 0 else None)
    return left


def _quietly(uri, versions):
    code = 1
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        code = _PROMOTED + _promote(uri, versions)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _promote(uri, versions):
    import mlflow

    import emseg.evaluation.bootstrap as bootstrap
    import emseg.registry.promote as promoting
    from emseg.errors import InputError
    from emseg.settings import load_settings

    os.environ["MLFLOW_TRACKING_URI"] = uri
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri)
    bootstrap._RESAMPLES = 10
    promoting._loads = lambda *_: Condition("loads safely", True, "a test says so")
    rule = load_settings("params.yaml").promotion
    promoted = 0
    for version in versions:
        try:
            promoting.promote(client, rule, str(version), force="all at once")
            promoted += 1
        except InputError as error:
            if "is the champion already" not in str(error):
                raise
    return promoted


def require_one_chain(client, task):
    """The line of a task is one chain: each valid link was judged against the one before. Returns how many there are,
    and how many are void."""
    line = read_line(client, task)
    before = 0
    for link in line.valid:
        assert link.judged_against == before
        before = link.number
    assert sorted(line.found) == list(range(1, len(line.found) + 1))
    assert [link.number for link in line.standing] == [link.number for link in line.valid]
    return len(line.valid), len(line.found) - len(line.valid)
