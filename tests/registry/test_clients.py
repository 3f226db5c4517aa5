"""Many clients of one server: turns, limits, those who give up or dawdle."""

import asyncio
import io
import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from servers import free_port

from emseg.registry import clients
from emseg.registry.answer import segment_bytes
from emseg.registry.clients import BusyError, GivenUpError, ImpatientProtocol, Turns
from emseg.registry.package import segmenter_of_run
from emseg.registry.serve import Champion, Served, make_app


@pytest.fixture
def champion(evaluated):
    version = SimpleNamespace(number=1, uri="models:/cortex/1")
    segmenter = segmenter_of_run(evaluated().folder.parent)
    return Champion(lambda: version, lambda version: Served(version, segmenter))


def as_tiff(stack):
    stream = io.BytesIO()
    tifffile.imwrite(stream, stack, photometric="minisblack")
    return stream.getvalue()


async def stays():
    return False


def test_addresses_are_served_in_turn_one_at_a_time():
    done, at_once = [], []

    async def ask(turns, client, number):
        def work(_):
            at_once.append(client)
            time.sleep(0.01)
            assert at_once == [client]
            at_once.clear()
            done.append(f"{client}{number}")

        await turns.run(client, work, 60, stays)

    async def all_ask():
        turns = Turns(10)
        asked = [asyncio.create_task(ask(turns, client, n)) for client, n in ("a1", "a2", "a3", "a4", "b1", "c1", "b2")]
        await asyncio.gather(*asked)

    asyncio.run(all_ask())
    # a1 found nobody; then each address in turn, its own in their order.
    assert done == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


def test_work_that_nobody_waits_for_ends_and_blocks_nobody():
    async def all_ask():
        turns, seen = Turns(10), threading.Event()

        def endless(pause):
            seen.set()
            while True:
                time.sleep(0.01)
                pause()

        async def gone():
            return seen.is_set()

        with pytest.raises(GivenUpError):
            await turns.run("a", endless, 60, gone)
        with pytest.raises(TimeoutError):
            await turns.run("a", endless, 0.05, stays)
        return await turns.run("b", lambda _: "answer", 60, stays)

    assert asyncio.run(all_ask()) == "answer"


def test_long_work_gives_way_to_other_addresses_and_goes_on_before_its_own():
    order, all_are_here = [], threading.Event()

    def steps(name):
        def work(pause):
            assert all_are_here.wait(60)
            for step in range(3):
                pause()
                order.append(f"{name}{step}")

        return work

    async def all_ask():
        turns = Turns(10)
        asked = []
        for client, name in (("a", "long"), ("a", "own"), ("b", "other")):
            asked.append(asyncio.create_task(turns.run(client, steps(name), 60, stays)))
            await asyncio.sleep(0.05)
        all_are_here.set()
        await asyncio.gather(*asked)

    asyncio.run(all_ask())
    # In turn while both addresses have work, each pausing before a step; then what is left.
    assert order == ["long0", "other0", "long1", "other1", "long2", "other2", "own0", "own1", "own2"]


def test_what_may_be_held_is_bounded():
    turns = Turns(100)
    with turns.admitted("a", 90):
        with pytest.raises(BusyError, match="bytes") as refused, turns.admitted("b", 11):
            pass
        assert refused.value.status == 503
        with turns.admitted("b", 10):
            assert turns.requests == 2
    # One request as large as may be held comes in when nothing else is.
    with turns.admitted("a", 101):
        pass
    held = [turns.admitted("a", 1) for _ in range(8)]
    for each in held:
        each.__enter__()
    with pytest.raises(BusyError, match="8 requests") as refused, turns.admitted("a", 1):
        pass
    assert refused.value.status == 429
    with turns.admitted("b", 1):
        pass
    for each in held:
        each.__exit__(None, None, None)
    assert turns.requests == 0


def test_a_request_that_was_given_up_is_segmented_no_further(champion, stack):
    paused = []

    def pause():
        paused.append(len(paused))
        if len(paused) == 3:
            raise GivenUpError

    ask = (champion.served.segmenter, as_tiff(stack[0][:2]), "mask", "tiff", 10**6, pause)
    assert segment_bytes(*ask).sections == 2
    with pytest.raises(GivenUpError):
        segment_bytes(*ask)
    assert paused == [0, 1, 2]


@contextmanager
def served(app):
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="warning", http=ImpatientProtocol, timeout_graceful_shutdown=30)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port, server
    finally:
        server.should_exit = True
        thread.join()


def request_to(port, head, body=b""):
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(head + body)
    return connection


def everything(connection):
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_clients_that_dawdle_are_let_go_and_those_who_wait_are_answered(champion, stack, monkeypatch):
    monkeypatch.setattr(clients, "_HEADER_SECONDS", 0.3)
    body = as_tiff(stack[0][:1])
    post = b"POST /segment HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    with served(make_app(champion, timeout=1.0)) as (port, server):
        silent, half = request_to(port, b""), request_to(port, b"POST /segment HTTP/1.1\r\nHo")
        assert everything(silent) == b""
        assert b"200 OK" not in everything(half)
        slow = everything(request_to(port, post % 100, b"II*"))
        assert b"408" in slow.splitlines()[0]
        assert b"did not arrive within 1 s" in slow
        assert b"200 OK" in everything(request_to(port, post % len(body), body))
        # Stopped while it works, the server still answers.
        inside, go_on = threading.Event(), threading.Event()
        section = champion.served.segmenter.predictor.section

        def waits(window):
            inside.set()
            go_on.wait(30)
            return section(window)

        monkeypatch.setattr(type(champion.served.segmenter.predictor), "section", lambda _, window: waits(window))
        last = request_to(port, post % len(body), body)
        assert inside.wait(30)
        server.should_exit = True
        go_on.set()
        assert b"200 OK" in everything(last)


def test_a_token_is_asked_for_and_numbers_are_told(champion, stack):
    from fastapi.testclient import TestClient

    client = TestClient(make_app(champion, token="open sesame"))
    body = as_tiff(stack[0][:2])
    right = {"Authorization": "Bearer open sesame"}
    assert client.get("/health").status_code == 200
    for headers in ({}, {"Authorization": "Bearer open"}, {"Authorization": "Basic open sesame"}):
        for method, path in (("GET", "/model"), ("GET", "/metrics"), ("POST", "/segment"), ("GET", "/nothing")):
            answer = client.request(method, path, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert client.post("/segment", content=body, headers=right).status_code == 200
    assert client.post("/segment", content=as_tiff(stack[0][:1].astype(np.uint16) * 16), headers=right).is_success
    assert client.post("/segment", content=b"nothing", headers=right).status_code == 422
    told = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics", headers=right).text)
        for sample in family.samples
    }
    assert told["emseg_requests_total", "200"] == 3  # /health, and two sections or stacks
    assert told["emseg_requests_total", "422"] == 1
    assert told["emseg_sections_total", "1"] == 3
    assert told["emseg_requests_unlike_training_total",] == 1
    assert told["emseg_champion_version",] == 1
    assert told["emseg_request_seconds_count",] == 4
    assert told["emseg_requests_held",] == 1  # the one that asks
