"""The champion over HTTP: right answers, bad requests, promotions under load."""

import io
import threading

import numpy as np
import pytest
import tifffile
from bad_inputs import FILES, rgb
from crowned import crown
from fastapi.testclient import TestClient
from PIL import Image

from emseg.inference import predict
from emseg.registry.register import register_record
from emseg.registry.serve import champion_of_registry, make_app
from emseg.registry.versions import find_version


@pytest.fixture
def champion(store, evaluated):
    for seed in (0, 1):
        register_record(store, evaluated(seed))
    crown(store, 1)
    return champion_of_registry()


@pytest.fixture
def client(champion):
    return TestClient(make_app(champion, largest_megapixels=0.5))


def as_tiff(stack):
    stream = io.BytesIO()
    tifffile.imwrite(stream, stack, photometric="minisblack")
    return stream.getvalue()


def expected(champion, stack):
    predictor = champion.served.segmenter.predictor
    return predict(predictor.network, stack, normalization=predictor.normalization)


def test_tiff_and_png_in_mask_probability_and_cells_out(client, champion, stack):
    sections = stack[0][:2]
    probability = expected(champion, sections)
    answer = client.post("/segment?kind=probability", content=as_tiff(sections))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/tiff"
    assert answer.headers["x-emseg-model"] == "models:/cortex/1"
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(answer.content)), probability)
    mask = client.post("/segment", content=as_tiff(sections)).content
    threshold = champion.served.segmenter.threshold
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(mask)) > 0, probability > threshold)
    stream = io.BytesIO()
    Image.fromarray(sections[0]).save(stream, "png")
    png = client.post("/segment?kind=mask&format=png", content=stream.getvalue())
    assert png.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png.content))) > 0, probability[0] > threshold)
    cells = tifffile.imread(io.BytesIO(client.post("/segment?kind=cells", content=as_tiff(sections)).content))
    assert (cells[probability > threshold] > 0).all()
    assert (probability[cells > 0] > min(threshold, 0.5)).all()


def test_health_and_what_is_served(client):
    assert client.get("/health").status_code == 200
    assert client.get("/ping").headers["x-emseg-version"] == "1"
    described = client.get("/model").json()
    assert described["version"] == 1
    assert described["cells"] == "threshold"
    assert described["outputs"] == ["probability", "mask", "cells"]


def test_the_corpus_is_refused_with_a_sentence_and_the_server_lives(client, stack):
    for name, (content, sentence) in FILES.items():
        if not name.endswith((".tif", ".png")):  # only its name is wrong, and bytes have none
            continue
        answer = client.post("/segment", content=content)
        assert 400 <= answer.status_code < 500, name
        assert sentence in answer.json()["error"], name
        assert "/tmp" not in answer.json()["error"], name
        assert client.post("/segment", content=as_tiff(stack[0][0])).status_code == 200


def test_requests_that_are_too_large_or_ask_for_nonsense(client, stack):
    assert client.post("/segment", content=bytes(3_000_000)).status_code == 413
    many = as_tiff(np.zeros((200, 64, 64), np.uint8))
    answer = client.post("/segment", content=many)
    assert answer.status_code == 422
    assert "the most is 500,000" in answer.json()["error"]
    for query in ("kind=nothing", "format=bmp"):
        assert client.post(f"/segment?{query}", content=as_tiff(stack[0][0])).status_code == 422
    answer = client.post("/segment?format=png", content=as_tiff(stack[0][:2]))
    assert "format=tiff" in answer.json()["error"]
    assert client.post("/segment", content=rgb()).status_code == 422


def test_a_promotion_is_taken_up_and_a_damaged_one_is_not(client, champion, store, stack):
    before = client.post("/segment?kind=probability", content=as_tiff(stack[0][:1])).content
    crown(store, 2)
    assert champion.refresh()
    after = client.post("/segment?kind=probability", content=as_tiff(stack[0][:1]))
    assert after.headers["x-emseg-version"] == "2"
    assert after.content != before
    import mlflow

    from emseg.errors import InputError

    file = mlflow.artifacts.download_artifacts(find_version(store, "1").uri) + "/extra_files/weights.safetensors"
    with open(file, "ab") as stream:
        stream.write(b"x")
    crown(store, 1)
    with pytest.raises(InputError, match="not those that were registered"):
        champion.refresh()
    assert client.post("/segment", content=as_tiff(stack[0][:1])).headers["x-emseg-version"] == "2"


def test_requests_in_flight_survive_promotions(client, champion, store, stack):
    body = as_tiff(stack[0][:1])
    answers = []

    def ask():
        for _ in range(10):
            answers.append(client.post("/segment", content=body))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in (2, 1, 2):
        crown(store, number)
        assert champion.refresh()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 40
    assert {answer.headers["x-emseg-model"] for answer in answers} <= {find_version(store, n).uri for n in "12"}
    for answer in answers:
        assert answer.headers["x-emseg-model"].endswith("/" + answer.headers["x-emseg-version"])


def test_an_answer_names_the_version_that_gave_it(client, champion, store, stack, monkeypatch):
    path, asked = "/segment?kind=probability", {"content": as_tiff(stack[0][0, :32, :32])}
    answer = client.post(path, **asked)
    assert answer.headers["x-emseg-version"] == "1"
    begin = champion.begin_request

    def promoted_after_the_beginning():
        served = begin()
        crown(store, 2)
        champion.refresh()
        return served

    monkeypatch.setattr(champion, "begin_request", promoted_after_the_beginning)
    meanwhile = client.post(path, **asked)
    assert meanwhile.headers["x-emseg-version"] == "1"
    assert meanwhile.content == answer.content
    after = client.post(path, **asked)
    assert after.headers["x-emseg-version"] == "2"
    assert after.content != answer.content


def test_without_a_champion_it_does_not_start(store):
    from emseg.errors import InputError

    with pytest.raises(InputError, match="nothing is registered"):
        champion_of_registry()


def test_a_form_is_told_to_send_the_bytes_alone(client, stack):
    answer = client.post("/segment", files={"file": ("x.tif", as_tiff(stack[0][0]))})
    assert answer.status_code == 415
    assert "--data-binary" in answer.json()["error"]


def test_grey_levels_unlike_the_training_data_are_said_in_a_header(client, stack):
    usual = client.post("/segment", content=as_tiff(stack[0][:2]))
    assert "x-emseg-warning" not in usual.headers
    twelve_bit = stack[0][:2].astype(np.uint16) * 16
    answer = client.post("/segment", content=as_tiff(twelve_bit))
    assert answer.status_code == 200
    assert "unlike the training data" in answer.headers["x-emseg-warning"]


def test_what_is_not_there_is_a_sentence(client):
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("POST", "/invocations", 404),
        ("GET", "/segment", 405),
        ("DELETE", "/model", 405),
    ):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert "/segment" in answer.json()["error"]


def test_no_body_is_answered_with_an_error_of_the_server(client, stack):
    from damage import damaged_bytes

    good = as_tiff(stack[0][0])
    entries = tifffile.TiffFile(io.BytesIO(good)).pages[0].tags
    bodies = [b"", b"II*\x00", b"MM\x00*", b"\x89PNG", b"\x00" * 100]
    for tag in entries:
        # Every tag once with an odd kind, and once with an odd number of values.
        for place, value in ((2, b"\xff\xff"), (2, b"\x00\x00"), (4, b"\x00\x00\x00\x00"), (0, b"\xff\xff")):
            bodies.append(good[: tag.offset + place] + value + good[tag.offset + place + len(value) :])
    bodies += [content for _, content in damaged_bytes(good, 1, 40)]
    for body in bodies:
        answer = client.post("/segment", content=body)
        assert answer.status_code in (200, 413, 422), body[:40]
        if answer.status_code != 200:
            assert "/tmp" not in answer.json()["error"]
    assert client.post("/segment?kind=a&kind=b&format=" + "x" * 500, content=good).status_code == 422
    assert client.post("/segment", content=good).status_code == 200


def test_a_request_that_takes_too_long_is_given_up(champion, stack, monkeypatch):
    import time

    from emseg.registry import serve as serving

    monkeypatch.setattr(serving, "segment_bytes", lambda *_: time.sleep(0.5))
    answer = TestClient(make_app(champion, timeout=0.05)).post("/segment", content=as_tiff(stack[0][0]))
    assert answer.status_code == 504
    assert "longer than 0.05 s" in answer.json()["error"]
