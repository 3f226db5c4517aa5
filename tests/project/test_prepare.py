"""Stage prepare looks at both stacks before it hands them on."""

import json

import numpy as np
import pytest
import yaml

from emseg.data.io.stack import read_stack, write_stack
from emseg.data.synthetic import make_synthetic
from emseg.errors import InputError
from emseg.project.stages import run_stage


@pytest.fixture
def sources(tmp_path, tiny_params, stack, monkeypatch):
    values = yaml.safe_load(tiny_params.read_text())
    values["data"]["source"] = "cortex"
    tiny_params.write_text(yaml.safe_dump(values, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "sources" / "cortex"
    write_stack(folder / "images.tif", stack[0])
    write_stack(folder / "labels.tif", stack[1])
    return folder


def test_training_sections_in_the_test_stack_are_refused(sources, stack, tmp_path):
    write_stack(sources / "test-volume.tif", np.rot90(stack[0][2:4], axes=(1, 2)))
    with pytest.raises(InputError, match="section 1 of the test stack is section 3 of the training stack"):
        run_stage("prepare")
    assert not (tmp_path / "data" / "prepared").exists()


def test_a_sound_test_stack_is_handed_on(sources, tmp_path):
    images, labels = make_synthetic(4, 64, 11)
    write_stack(sources / "test-volume.tif", images)
    write_stack(sources / "test-labels.tif", labels)
    run_stage("prepare")
    np.testing.assert_array_equal(read_stack(tmp_path / "data" / "prepared" / "test-volume.tif"), images)
    facts = json.loads((tmp_path / "data" / "prepared" / "prepared.json").read_text())
    assert facts["test images"].startswith("4 sections")
