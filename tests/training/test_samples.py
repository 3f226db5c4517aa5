import numpy as np
import pytest
import torch

from emseg.models import build_model
from emseg.settings import AugmentSettings
from emseg.training.samples import Sample, TrainingSamples, TrainingStack

STILL = AugmentSettings(rotation=0, shift=0, shear=0, zoom=0, flip=False)
WILD = AugmentSettings(rotation=180, zoom=0.2, elastic_amplitude=4, elastic_spacing=16, contrast=0.3)


@pytest.fixture
def stack(source):
    labels = source.labels
    return source.images, labels, (labels * 7).astype(np.float16)


def samples_of(stack, settings, augment, model="unet2", ignore=None, **network):
    recipe = settings.recipe("unet2").model_copy(update={"crop": 32, "symmetries": False})
    return TrainingSamples(
        TrainingStack(*stack, np.arange(len(stack[0])), ignore),
        build_model(model, base_channels=2, depth=1, **network),
        recipe,
        augment,
        torch.device("cpu"),
    )


CORNERS = [Sample(0, 0, 0, 0), Sample(3, 32, 32, 0), Sample(8, 5, 17, 0)]


@pytest.mark.parametrize(("model", "network"), [("unet2", {}), ("unet1", {"padding": "valid"})])
def test_a_warp_that_moves_nothing_gives_the_plain_crop(stack, tiny_settings, model, network):
    ignore = np.random.default_rng(0).random(stack[1].shape) < 0.4
    plain = samples_of(stack, tiny_settings, None, model, ignore, **network).batch(CORNERS, None)
    still = samples_of(stack, tiny_settings, STILL, model, ignore, **network)
    warped = still.batch(CORNERS, still.draw_warps(3, torch.Generator().manual_seed(0)))
    for before, after in zip(plain, warped, strict=True):
        assert before.shape == after.shape
        torch.testing.assert_close(before, after, atol=1e-4, rtol=0)


def test_plain_crops_are_cut_where_the_samples_say(stack, tiny_settings):
    ignore = np.random.default_rng(0).random(stack[1].shape) < 0.4
    images, labels, separations, ignored = samples_of(stack, tiny_settings, None, ignore=ignore).batch(CORNERS, None)
    for index, sample in enumerate(CORNERS):
        window = np.s_[sample.image, sample.top : sample.top + 32, sample.left : sample.left + 32]
        np.testing.assert_allclose(images[index, 0].numpy() * 255, stack[0][window], atol=1e-4)
        np.testing.assert_array_equal(labels[index, 0].numpy(), stack[1][window])
        np.testing.assert_array_equal(separations[index, 0].numpy(), stack[2][window])
        np.testing.assert_array_equal(ignored[index, 0].numpy(), ignore[window])


def test_a_network_with_neighbours_gets_the_sections_before_and_after(stack, tiny_settings):
    images, labels, _ = stack
    recipe = tiny_settings.recipe("residual_unet").model_copy(
        update={"images_per_epoch": 900, "crop": 32, "symmetries": False}
    )
    sections = [0, 1, 2, 3, 6, 7, 8]
    network = build_model("residual_unet", base_channels=2, depth=1, neighbours=1)
    seen = TrainingStack(images[sections], labels[sections], None, np.array(sections))
    samples = TrainingSamples(seen, network, recipe, STILL, torch.device("cpu"))
    drawn = samples.epoch(torch.Generator().manual_seed(0))
    # In sections: 3 and 6 are no neighbours, so 3 stands in for what comes after it, and 6 for what comes before.
    near = {0: (0, 1), 1: (0, 2), 2: (1, 3), 3: (2, 3), 6: (6, 7), 7: (6, 8), 8: (7, 8)}
    lost = reversed_order = 0
    for sample in drawn:
        here = sections[sample.image]
        seen = [sections[index] for index in (*sample.before, *sample.after)]
        assert len(seen) == 2
        assert set(seen) <= {*near[here], here}
        lost += here == 1 and 1 in seen
        reversed_order += here == 1 and tuple(seen) == near[here][::-1]
    of_section = sum(sections[sample.image] == 1 for sample in drawn)
    assert 0.1 < lost / of_section < 0.3
    assert 0.3 < reversed_order / of_section < 0.5
    batch, cut, *_ = samples.batch(drawn[:4], samples.draw_warps(4, torch.Generator().manual_seed(0)))
    assert batch.shape == (4, 3, 32, 32)
    for index, sample in enumerate(drawn[:4]):
        window = np.s_[sample.top : sample.top + 32, sample.left : sample.left + 32]
        for channel, image in enumerate((*sample.before, sample.image, *sample.after)):
            np.testing.assert_allclose(batch[index, channel] * 255, images[sections[image]][window], atol=0.05)
        np.testing.assert_array_equal(cut[index, 0], labels[sections[sample.image]][window])


def test_image_label_and_distance_move_together(stack, tiny_settings):
    # The label doubles as the image, so that both must stay the same picture whatever the warp.
    _, labels, separations = stack
    twins = samples_of((labels.astype(np.uint8) * 255, labels, separations), tiny_settings, WILD, ignore=labels)
    jitterless = twins.draw_warps(3, torch.Generator().manual_seed(1))
    images, labels, separations, ignored = twins.batch(
        CORNERS, type(jitterless)(jitterless.matrix, jitterless.shift, jitterless.displacement, None, None)
    )
    assert ((images > 0.5).float() != labels).float().mean() < 0.02
    torch.testing.assert_close(separations / 7, images, atol=1e-3, rtol=0)
    # The nearest pixel is rougher than what is sampled between pixels, at outlines.
    assert (ignored.float() != labels).float().mean() < 0.05


def test_a_part_of_a_batch_is_warped_as_the_whole_batch_is(stack, tiny_settings):
    samples = samples_of(stack, tiny_settings, WILD, ignore=~stack[1])
    warps = samples.draw_warps(3, torch.Generator().manual_seed(2))
    whole = samples.batch(CORNERS, warps)
    parts = [samples.batch(CORNERS[part], warps[part]) for part in (slice(0, 1), slice(1, 3))]
    for index, value in enumerate(whole):
        torch.testing.assert_close(value, torch.cat([part[index] for part in parts]))


def test_fresh_warps_differ_between_batches_and_repeat_with_the_seed(stack, tiny_settings):
    samples = samples_of(stack, tiny_settings, WILD)
    generator = torch.Generator().manual_seed(3)
    first, second = (samples.batch(CORNERS, samples.draw_warps(3, generator))[0] for _ in range(2))
    again = samples.batch(CORNERS, samples.draw_warps(3, torch.Generator().manual_seed(3)))[0]
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_what_is_ignored_comes_from_inside_the_section_alone(stack, tiny_settings):
    # Beyond the border sections are mirrored, and so is what is ignored in them.
    everywhere = samples_of(stack, tiny_settings, WILD, "unet1", np.ones_like(stack[1]), padding="valid")
    assert everywhere.batch(CORNERS, everywhere.draw_warps(3, torch.Generator().manual_seed(0))).ignore.all()
    nowhere = samples_of(stack, tiny_settings, WILD, "unet1", padding="valid")
    assert nowhere.batch(CORNERS, nowhere.draw_warps(3, torch.Generator().manual_seed(0))).ignore is None


def test_the_share_of_interior_is_of_what_trains():
    labels = np.array([[[True, True, False, True]]])
    stack = TrainingStack(labels.astype(np.uint8), labels, None, np.arange(1), labels & (np.arange(4) > 0))
    assert stack.interior_share == 0.5
