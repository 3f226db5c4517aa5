import torch

from emseg.models import build_model
from emseg.training.averaging import WeightAverage


def test_the_mean_is_the_one_worked_out_by_hand():
    network = build_model("residual_unet", base_channels=2, depth=1)
    average = WeightAverage(network, 0.5)
    bias = network.head.bias
    # Shares that a step brings in: 1 - min(0.5, (1 + step) / (10 + step)) = 0.9, 0.818..., 0.75
    expected = 0.0
    for step, value in enumerate([1.0, 2.0, 4.0]):
        with torch.no_grad():
            bias.fill_(value)
        average.update(network, step)
        share = 1 - (1 + step) / (10 + step)
        expected += share * (value - expected)
    torch.testing.assert_close(average.network.head.bias, torch.full_like(bias, expected))


def test_batch_statistics_are_averaged_and_counters_copied():
    network = build_model("residual_unet", base_channels=2, depth=1).train()
    average = WeightAverage(network, 0.9)
    for step in range(20):
        network(torch.rand(2, 1, 16, 16))
        average.update(network, step)
    states = zip(network.state_dict().items(), average.network.state_dict().values(), strict=True)
    for (name, value), mean in states:
        if name.endswith("num_batches_tracked"):
            assert mean == value == 20
        elif name.endswith("running_mean"):
            assert not torch.equal(mean, value)
            torch.testing.assert_close(mean, value, atol=0.2, rtol=0)
    assert not average.network.training
