import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emseg.data.normalization import Normalization
from emseg.inference import Predictor, predict
from emseg.inference.device import has_fast_bfloat16
from emseg.inference.tiling import mirror_indices, mirrored_window, spread_starts
from emseg.models import Network, build_model


def network(name="unet1", **overrides):
    torch.manual_seed(0)
    return build_model(name, **({"base_channels": 2, "dropout": 0.0} | overrides)).eval()


def sections(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def whole_section_at_once(model, section):
    """Run the network once on the mirrored section, padded to a size that it takes."""
    side = max(section.shape)
    while not model.is_valid_side(side + 2 * model.margin):
        side += 1
    padded = mirrored_window(section, -model.margin, -model.margin, side + 2 * model.margin, side + 2 * model.margin)
    with torch.inference_mode():
        logits = model(torch.from_numpy(padded)[None, None])
    return torch.sigmoid(logits)[0, 0].numpy()[: section.shape[0], : section.shape[1]]


@pytest.mark.parametrize("shape", [(512, 512), (700, 433), (100, 60), (388, 388), (23, 31), (5, 7), (1, 1)])
def test_overlap_tile_equals_one_run_on_the_mirrored_section(shape):
    model = network()
    stack = sections(1, *shape)
    np.testing.assert_allclose(
        predict(model, stack, mode="overlap_tile")[0], whole_section_at_once(model, stack[0]), atol=1e-5
    )


def test_tiles_of_a_large_section_equal_one_run():
    model = network(depth=2)
    stack = sections(1, 1100, 530)
    np.testing.assert_allclose(predict(model, stack)[0], whole_section_at_once(model, stack[0]), atol=1e-5)


@given(st.integers(-50, 50), st.integers(0, 60), st.integers(1, 12))
def test_mirroring_is_numpys_reflection(start, length, side):
    indices = mirror_indices(start, start + length, side)
    before, after = max(0, -start), max(0, start + length - side)
    padded = np.pad(np.arange(side), (before, after), mode="reflect")
    np.testing.assert_array_equal(indices, padded[start + before : start + before + length])


@given(st.integers(1, 3000), st.integers(1, 600), st.integers(0, 40))
def test_spread_tiles_cover_every_pixel_and_end_on_the_border(side, tile, overlap):
    overlap = min(overlap, tile - 1)
    starts = spread_starts(side, tile, overlap)
    covered = np.zeros(side, int)
    for start in starts:
        covered[start : start + tile] += 1
    assert covered.min() >= 1
    if side > tile:
        assert starts[0] == 0
        assert starts[-1] + tile == side
        assert max(np.diff(starts)) <= tile - overlap + 1


@pytest.mark.parametrize("mode", ["overlap_tile", "average", "resize"])
@pytest.mark.parametrize("shape", [(64, 64), (513, 390), (17, 40)])
def test_every_mode_covers_every_pixel_of_a_valid_network(mode, shape):
    probability = predict(network(), sections(2, *shape), mode=mode)
    assert probability.shape == (2, *shape)
    assert probability.dtype == np.float32
    assert np.isfinite(probability).all()
    assert 0 <= probability.min() <= probability.max() <= 1


def test_average_is_the_mean_of_the_four_corner_tiles():
    model = network()
    stack = sections(1, 512, 512)
    found = predict(model, stack, mode="average")[0]
    padded = np.pad(stack[0], 92, mode="reflect")
    total, count = np.zeros((512, 512)), np.zeros((512, 512))
    for top in (0, 124):
        for left in (0, 124):
            with torch.inference_mode():
                tile = torch.sigmoid(model(torch.from_numpy(padded[None, None, top : top + 572, left : left + 572])))
            total[top : top + 388, left : left + 388] += tile[0, 0].numpy()
            count[top : top + 388, left : left + 388] += 1
    np.testing.assert_allclose(found, total / count, atol=1e-5)


@pytest.mark.parametrize("name", ["dmcn", "weighted_unet", "unet2"])
@pytest.mark.parametrize("shape", [(64, 64), (65, 47), (3, 200), (1, 1)])
def test_same_networks_take_any_size(name, shape):
    probability = predict(network(name), sections(2, *shape))
    assert probability.shape == (2, *shape)
    assert np.isfinite(probability).all()


def test_blended_tiles_agree_with_the_whole_section_away_from_seams():
    model = network("weighted_unet", depth=1)
    stack = sections(1, 1000, 700)
    whole = predict(model, stack, mode="auto")
    blended = predict(model, stack, mode="overlap_tile")
    difference = np.abs(whole - blended)
    assert np.quantile(difference, 0.9) < 1e-5
    assert difference.max() < 0.1


@pytest.mark.parametrize("name", ["unet1", "unet2"])
def test_test_time_augmentation_makes_prediction_symmetric(name):
    model = network(name, depth=2)
    stack = sections(1, 40, 56)
    plain = predict(model, stack, test_time_augmentation=True)
    for turns in range(4):
        for flip in (1, -1):
            turned = np.rot90(stack, turns, (1, 2))[..., ::flip]
            expected = np.rot90(plain, turns, (1, 2))[..., ::flip]
            found = predict(model, turned, test_time_augmentation=True)
            np.testing.assert_allclose(found, expected, atol=1e-5)


class WeightedSections(Network):
    """Logits are a weighted sum of the sections it sees."""

    padding, margin, stride = "same", 0, 1

    def __init__(self, *weights):
        super().__init__()
        self.neighbours = len(weights) // 2
        self.weights = torch.nn.Parameter(torch.tensor(weights))

    def forward(self, images):
        return torch.einsum("ncyx,c->nyx", images, self.weights)[:, None]


@pytest.mark.parametrize("weights", [(2.0,), (0.5, 2.0, -1.0), (0.25, 0.5, 2.0, -1.0, 3.0)])
@pytest.mark.parametrize("augmented", [False, True])
def test_a_network_sees_the_sections_before_and_after(weights, augmented):
    stack, reach = sections(4, 9, 14), len(weights) // 2
    model = WeightedSections(*weights)
    expected = np.zeros(stack.shape)
    for z in range(len(stack)):
        for weight, seen in zip(weights, range(z - reach, z + reach + 1), strict=True):
            expected[z] += weight * stack[min(max(seen, 0), len(stack) - 1)]
    found = predict(model, stack, test_time_augmentation=augmented)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-expected)), atol=1e-6)


def test_a_gap_between_sections_parts_neighbours():
    stack, predictor = sections(5, 9, 14), Predictor(WeightedSections(0.5, 2.0, -1.0))
    found = predictor.predict(stack, [3, 4, 9, 10, 11])
    np.testing.assert_array_equal(
        found, np.concatenate([predictor.predict(part, range(len(part))) for part in (stack[:2], stack[2:])])
    )
    assert (found != predictor.predict(stack, range(5))).any()
    with pytest.raises(ValueError, match="sees 3 sections, not 1"):
        predictor.section(stack[:1])


def test_sections_are_taken_one_by_one():
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield sections(32, 32)

    stream = Predictor(network("unet2", depth=2)).stream(endless())
    for count in range(1, 4):
        next(stream)
        assert len(taken) == count


def test_prediction_into_a_memory_map(tmp_path):
    model, stack = network("unet2", depth=2), sections(3, 32, 40)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, stack.shape)
    assert predict(model, stack, out=out) is out
    np.testing.assert_array_equal(out, predict(model, stack))


def test_grey_levels():
    model = network("unet2", depth=2)
    stack = (sections(1, 32, 32) * 255).astype(np.uint8)
    np.testing.assert_allclose(predict(model, stack), predict(model, stack.astype(np.float32) / 255), atol=1e-6)
    wide = stack.astype(np.uint16) * 200
    with pytest.raises(ValueError, match="expected 8 bit, float"):
        predict(model, wide)
    normalization = Normalization(0, 255 * 200)
    np.testing.assert_allclose(predict(model, wide, normalization=normalization), predict(model, stack), atol=1e-5)
    assert Normalization.of(stack) == Normalization(0, 255)
    with pytest.raises(ValueError, match=r"stack \(Z, Y, X\)"):
        predict(model, stack[0])


def test_modes_and_precisions_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="'valid' padding"):
        Predictor(network("unet2"), mode="average")
    with pytest.raises(ValueError, match="mode must be one of"):
        Predictor(network("unet2"), mode="tiles")
    with pytest.raises(ValueError, match="precision must be one of"):
        Predictor(network("unet2"), precision="half")


@pytest.mark.parametrize("name", ["dmcn", "unet1", "deeply_supervised_unet"])
def test_bfloat16_is_another_arithmetic_and_changes_probabilities_little(name):
    model, stack = network(name, base_channels=8, normalization="batch"), sections(1, 64, 80)
    exact = predict(model, stack)
    half = predict(model, stack, precision="bfloat16")
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.05
    fastest = half if has_fast_bfloat16(torch.device("cpu")) else exact
    np.testing.assert_array_equal(predict(model, stack, precision="auto"), fastest)


def test_training_mode_is_given_back():
    model = network("weighted_unet", depth=1, dropout=0.5).train()
    stack = sections(1, 32, 32)
    np.testing.assert_array_equal(predict(model, stack), predict(model, stack))
    assert model.training
