import numpy as np
import pytest
import torch
from scipy import ndimage

from emseg.data import augment
from emseg.data.warp import augment_sections
from emseg.settings import AugmentSettings

STILL = AugmentSettings(rotation=0, shift=0, shear=0, zoom=0, flip=False)
REFERENCE = AugmentSettings()
FULL = AugmentSettings(elastic_amplitude=4, elastic_spacing=16, brightness=0.1, contrast=0.2)


def batch(count=4, side=48, seed=0):
    random = np.random.default_rng(seed)
    images = ndimage.gaussian_filter(random.random((count, 1, side, side)), (0, 0, 2, 2)).astype(np.float32)
    images = (images - images.min()) / (images.max() - images.min())
    return torch.from_numpy(images), torch.from_numpy(images > 0.5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_nothing_asked_for_changes_nothing():
    images, labels = batch()
    warped, warped_labels, other = augment(images, labels, images * 7, settings=STILL, generator=generator())
    torch.testing.assert_close(warped, images)
    torch.testing.assert_close(other, images * 7, rtol=1e-4, atol=1e-4)
    assert torch.equal(warped_labels, labels)


@pytest.mark.parametrize("settings", [REFERENCE, FULL])
def test_image_label_and_distance_move_together(settings):
    images, _ = batch(side=96)
    quiet = settings.model_copy(update={"brightness": 0.0, "contrast": 0.0})
    warped, same = augment(images, images.clone(), images.clone(), settings=quiet, generator=generator(5))[::2]
    torch.testing.assert_close(warped, same)
    labels = images > 0.5
    warped, warped_labels = augment(images, labels, settings=quiet, generator=generator(5))
    # They can differ only where the image is next to the level.
    assert ((warped > 0.5) != warped_labels).float().mean() < 0.05


@pytest.mark.parametrize("settings", [REFERENCE, FULL])
@pytest.mark.parametrize("interior", [True, 1, 255, 1.0])
def test_a_warped_label_is_the_half_level_of_the_warped_outline(settings, interior):
    _, labels = batch(side=64)
    quiet = settings.model_copy(update={"brightness": 0.0, "contrast": 0.0})
    given = torch.where(labels, torch.tensor(interior), torch.tensor(interior) * 0)
    outline, warped = augment(labels.float(), given, settings=quiet, generator=generator(3))
    assert warped.dtype == given.dtype
    assert torch.equal(warped, torch.where(outline > 0.5, torch.tensor(interior), torch.tensor(interior) * 0))


@pytest.mark.parametrize("settings", [REFERENCE, FULL])
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(settings):
    images, labels = batch()
    first = augment(images, labels, settings=settings, generator=generator(1))
    again = augment(images, labels, settings=settings, generator=generator(1))
    other = augment(images, labels, settings=settings, generator=generator(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_intensity_jitter_leaves_labels_alone():
    images, labels = batch()
    jitter = STILL.model_copy(update={"brightness": 0.2, "contrast": 0.3})
    warped, warped_labels = augment(images, labels, settings=jitter, generator=generator())
    assert torch.equal(labels, warped_labels)
    assert not torch.allclose(warped, images)
    assert warped.min() >= 0
    assert warped.max() <= 1


@pytest.mark.parametrize(
    ("key", "value", "measure"),
    [("rotation", 90.0, 90.0), ("rotation", 30.0, 30.0)],
)
def test_rotation_reaches_its_range_and_no_further(key, value, measure):
    # The direction of a ramp tells the angle it was turned by.
    side = 33
    ramp = torch.arange(side, dtype=torch.float32)[None, None, None, :].expand(300, 1, side, side) / side
    settings = STILL.model_copy(update={key: value})
    warped = augment(ramp.contiguous(), ramp > 0.5, settings=settings, generator=generator())[0][:, 0]
    centre = slice(side // 2 - 3, side // 2 + 4)
    patch = warped[:, centre, centre]
    slope_y = (patch[:, -1] - patch[:, 0]).mean(dim=-1)
    slope_x = (patch[:, :, -1] - patch[:, :, 0]).mean(dim=-1)
    angles = torch.rad2deg(torch.atan2(slope_y, slope_x)).abs()
    assert angles.max() <= measure + 1
    assert angles.max() > 0.9 * measure
    assert angles.min() < 0.1 * measure


def test_shift_is_a_share_of_the_side():
    side = 100
    ramp = (torch.arange(side, dtype=torch.float32) / side)[None, None, None, :].expand(200, 1, side, side)
    settings = STILL.model_copy(update={"shift": 0.05})
    warped = augment(ramp.contiguous(), ramp > 0.5, settings=settings, generator=generator())[0]
    moved = (warped[:, 0, 50, 50] - 0.5) * side
    assert moved.abs().max() <= 5 + 1e-3
    assert moved.abs().max() > 4.5


def test_borders_are_reflected_not_filled():
    images, labels = torch.ones(8, 1, 32, 32), torch.ones(8, 1, 32, 32)
    warped, warped_labels = augment(images, labels, settings=REFERENCE, generator=generator())
    torch.testing.assert_close(warped, images)
    assert torch.equal(warped_labels, labels)


def test_non_square_sections_keep_their_shape_and_angles():
    images = torch.rand(3, 1, 40, 70)
    warped, labels = augment(images, images > 0.5, settings=FULL, generator=generator())
    assert warped.shape == labels.shape == images.shape


def test_every_section_is_used_equally_often():
    images = np.zeros((4, 16, 16), np.float32)
    made = list(augment_sections(images, images > 1, images, count=22, settings=REFERENCE, seed=0))
    sources = np.concatenate([part[3] for part in made])
    counts = np.bincount(sources, minlength=4)
    assert counts.sum() == 22
    assert counts.max() - counts.min() <= 1


def test_batches_that_differ_in_size_are_refused():
    with pytest.raises(ValueError, match="agree"):
        augment(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 9), settings=REFERENCE, generator=generator())
