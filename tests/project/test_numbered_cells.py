"""Cells by number through every stage of the pipeline, to a champion that segments."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import ndimage

from emseg.data.io.stack import read_stack, write_stack
from emseg.data.sources import load_source, load_source_of
from emseg.data.synthetic import make_synthetic
from emseg.project.stages import run_stage

RUN = "runs/benchmark/unet2-fold0-seed0"


@pytest.fixture
def project(tmp_path, tiny_params, store):
    values = yaml.safe_load(tiny_params.read_text())
    values["data"]["source"] = "cortex"
    values["benchmark"] = ["unet2"]
    values["promotion"] |= {"minimum_sections": 2, "minimum_seeds": 1, "clean_git": False}
    tiny_params.write_text(yaml.safe_dump(values, sort_keys=False))
    return tmp_path


def test_separate_cells_by_number_score_as_their_mask_and_are_promoted(project, emseg):
    images, _, numbers = make_synthetic(9, 64, 3, by_number=True)
    write_stack(project / "lab/images.tif", images)
    np.save(project / "lab/labels.npy", numbers)
    assert emseg("data", "add", "cortex", "--from", project / "lab", "--cells")[0] == 0
    found = {}
    for labels in ("cells", "interior"):
        code, _, err = emseg("set", f"data.labels={labels}")
        assert code == 0, err
        for stage in ("prepare", "augment", "recipes"):
            run_stage(stage)
        assert (project / "data/prepared/cells.tif").is_file() == (labels == "cells")
        for stage in ("train", "calibrate", "evaluate"):
            run_stage(stage, "unet2", 0, 0)
        found[labels] = pd.read_csv(project / RUN / "evaluation/scores.csv")
        digest = json.loads((project / RUN / "training/record.json").read_text())["data_digest"]
        assert digest == load_source("cortex", labels=labels).digest == load_source_of("cortex", digest).digest
        # The commands find the sections as the run has them.
        assert emseg("evaluate", RUN)[0] == 0
        if labels == "cells":
            run_stage("publish")
            code, out, err = emseg("promote", "1")
            assert code == 0, out + err
    pd.testing.assert_frame_equal(found["cells"], found["interior"], check_exact=True)
    code, _, err = emseg("predict", project / "lab/images.tif", project / "cells.tif", "--kind", "cells")
    assert code == 0, err
    assert read_stack(project / "cells.tif", labels=True).shape == images.shape


def test_numbers_that_are_not_there_are_asked_for(project, source_folder, emseg):
    assert emseg("data", "add", "cortex", "--from", source_folder)[0] == 0
    emseg("set", "data.labels=cells")
    code, _, err = emseg("stage", "prepare")
    assert (code, err.count("\n")) == (2, 1)
    assert "the cells of cortex have no numbers, which data.labels asks for" in err
    assert not (project / "data/prepared").exists()


def test_synthetic_sections_have_cells_by_number_too(tmp_path):
    numbered, mask = (load_source("synthetic", tmp_path, labels) for labels in ("cells", "interior"))
    assert (numbered.card.name, numbered.digest == mask.digest) == ("synthetic", False)
    np.testing.assert_array_equal(numbered.labels, numbered.cells > 0)
    for section in numbered.cells[:3]:
        _, count = ndimage.label(section)
        assert count == len(np.unique(section)) - 1
