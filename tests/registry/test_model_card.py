from dataclasses import replace

from evaluated import make_run

from emseg.data.datasets.card import Card, Noted
from emseg.data.datasets.known import can_be_downloaded
from emseg.records.evaluation import read_fitting
from emseg.registry.package import model_card
from emseg.training.plan import RunPlan
from emseg.training.run import train_model


def card_of(folder, **facts):
    make_run(folder, "run", 0.05, **facts)
    run, evaluated = read_fitting(folder / "run" / "evaluation")
    return model_card(run.model_validate(run.model_dump(mode="json") | facts), evaluated.evaluation)


def test_a_model_card_quotes_the_terms_of_the_data(tmp_path):
    assert "ask it for their licence" in card_of(tmp_path / "old")
    noted = {"recognised": None, "name": "cortex", "title": "our <b>cortex</b>", "licence": "CC0"}
    noted |= {"citations": [{"text": "Us 2026", "doi": "10.1234/us"}], "voxel_size_nm": [40.0, 5.0, 5.0]}
    text = card_of(tmp_path / "own", dataset_card=noted)
    assert "Our &lt;b&gt;cortex&lt;/b&gt;, voxels 40 x 5 x 5 nm" in text
    assert "Licence: CC0. Cite Us 2026, doi:10.1234/us." in text
    noted |= {"licence": None, "citations": []}
    assert "Licence: unknown; ask whoever made the sections." in card_of(tmp_path / "unknown", dataset_card=noted)


def test_the_terms_of_a_known_dataset_follow_its_pixels_not_its_name(tmp_path):
    text = card_of(tmp_path / "pixels", data_digest="0face5632f7b1d4238256f4a18cafd98")
    assert "non-commercial segmentation software" in text
    assert "Arganda-Carreras et al. 2015" in text
    assert "Arganda-Carreras" not in card_of(tmp_path / "name", dataset="isbi2012")


def test_what_a_name_brings_back_needs_no_folder():
    challenge, other = "0face5632f7b1d4238256f4a18cafd98", "a" * 32
    assert can_be_downloaded("isbi2012", challenge, None)
    assert not can_be_downloaded("mine", challenge, None)
    assert not can_be_downloaded("isbi2012", other, None)
    noted = Noted(recognised="isbi2012", name="isbi2012", title="as when its test stack has labels")
    assert can_be_downloaded("isbi2012", other, noted)


def test_a_run_notes_what_is_known_of_its_sections(tmp_path, tiny_settings, source):
    own = Card(name="cortex", title="our cortex", licence="CC0", voxel_size_nm=[40, 5, 5])
    record = train_model(RunPlan("residual_unet", 0, 0, tiny_settings, replace(source, own_card=own)), tmp_path / "run")
    noted = record.read().dataset_card
    assert noted is not None
    assert (
        noted.model_dump()
        == Noted(
            **{
                "recognised": None,
                "name": "cortex",
                "title": "our cortex",
                "licence": "CC0",
                "voxel_size_nm": [40.0, 5.0, 5.0],
            }
        ).model_dump()
    )
