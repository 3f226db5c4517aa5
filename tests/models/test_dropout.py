import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emseg.models.blocks import Dropout

SHAPE = (4, 8, 64, 64)


def drawn(rate, features, seed=0):
    torch.manual_seed(seed)
    return Dropout(rate)(features)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.97])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_are_dropped_at_the_rate_and_the_mean_stays(rate, kind, layout):
    result = drawn(rate, torch.ones(SHAPE, dtype=kind).to(memory_format=layout))
    assert result.dtype == kind
    assert result.is_contiguous(memory_format=layout)
    # 131072 draws: five standard deviations.
    assert (result == 0).float().mean().item() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 131072) ** 0.5)
    kept = result[result != 0].float().unique()
    assert kept.tolist() == pytest.approx([1 / (1 - rate)], rel=1e-2 if kind == torch.bfloat16 else 1e-3)


def test_neighbours_are_dropped_independently():
    dropped = (drawn(0.5, torch.ones(SHAPE)) == 0).float() - 0.5
    for axis in range(4):
        pairs = dropped * dropped.roll(1, axis)
        assert abs(pairs.mean().item()) < 5 * 0.25 / 131072**0.5


def test_gradients_pass_where_values_do():
    features = torch.randn(SHAPE, requires_grad=True)
    result = drawn(0.3, features)
    (gradient,) = torch.autograd.grad(result.sum(), features)
    torch.testing.assert_close(gradient * features, result)
    assert torch.equal(gradient == 0, result == 0)


@given(shape=st.lists(st.integers(1, 9), min_size=1, max_size=5), strided=st.booleans())
def test_any_shape_and_layout(shape, strided):
    features = torch.ones([*shape[:-1], 2 * shape[-1]])[..., ::2] if strided else torch.ones(shape)
    result = drawn(0.5, features)
    assert result.shape == features.shape
    assert set(result.unique().tolist()) <= {0.0, 2.0}


def test_the_seed_decides_and_prediction_drops_nothing():
    features = torch.randn(SHAPE)
    assert torch.equal(drawn(0.2, features, 1), drawn(0.2, features, 1))
    assert not torch.equal(drawn(0.2, features, 1), drawn(0.2, features, 2))
    assert torch.equal(Dropout(0.2).eval()(features), features)
