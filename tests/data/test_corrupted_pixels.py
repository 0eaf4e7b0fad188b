"""What each corruption does: pixels worked by hand, limiting cases, and the libraries' own.

Besides these, the corruptions were held once against scikit-image 0.26 and OpenCV 5.0, which are no
dependencies: Canny's edges both ways, HSV, disks, affine maps and blurs agree up to rounding.
"""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bnnlib import data
from bnnlib.data.corruptions import blurs, edges, pixels, shapes, weather


def rngs(count=1):
    return [np.random.default_rng(number) for number in range(count)]


def grey(rows):
    return np.array(rows, dtype=np.float32)[np.newaxis, :, :, np.newaxis]


def colours(*values):
    """An image of one row, in bytes."""
    return np.array([[values]], dtype=np.float32) / 255


def in_bytes(images):
    return np.rint(images * 255).astype(int).tolist()[0][0]


@pytest.fixture(scope="module")
def photographs():
    """Smooth colour images, as photographs are; 32 x 32."""
    noise = np.random.default_rng(0).normal(0.5, 1.5, (4, 32, 32, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 2, 2, 0))
    return np.clip(smooth, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits").x_test[:6].astype(np.float32) / 255


def test_brightness_and_saturation_keep_the_hue():
    image = colours((200, 100, 100), (100, 100, 100), (0, 0, 0))
    # 0.2 of 255 is 51: the value rises, and all channels in its proportion.
    assert in_bytes(pixels.brightness(image, 0.2, rngs())) == [[251, 126, 126], [151] * 3, [51] * 3]
    # Saturation 0.5 becomes 0.15; grey has none.
    faded = pixels.saturate(image, (0.3, 0), rngs())
    assert in_bytes(faded) == [[200, 170, 170], [100] * 3, [0] * 3]
    # 0.5 · 2 + 0.1 is at most 1; grey has hue 0, so that it becomes red.
    deep = pixels.saturate(image, (2, 0.1), rngs())
    assert in_bytes(deep) == [[200, 0, 0], [100, 90, 90], [0] * 3]


def test_noises():
    grounds = np.full((20, 32, 32, 3), 0.5, dtype=np.float32)
    assert pixels.gaussian_noise(grounds, 0.1, rngs(20)).std() == pytest.approx(0.1, rel=0.02)
    assert pixels.speckle_noise(grounds, 0.2, rngs(20)).std() == pytest.approx(0.1, rel=0.02)
    counts = pixels.shot_noise(grounds, 50, rngs(20)) * 50
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-4)
    assert counts.var() == pytest.approx(25, rel=0.03)
    struck = pixels.impulse_noise(grounds, 0.1, rngs(20))
    for value in (0, 1):
        assert (struck == value).mean() == pytest.approx(0.05, abs=0.003)
    black = np.zeros_like(grounds)
    assert not pixels.speckle_noise(black, 0.2, rngs(20)).any()
    assert not pixels.shot_noise(black, 50, rngs(20)).any()


def test_contrast_and_stripe():
    image = grey([[0.2, 0.6]])
    np.testing.assert_allclose(pixels.contrast(image, 0.5, rngs())[0, 0, :, 0], [0.3, 0.5])
    striped = pixels.stripe(grey([[0.1, 0.2, 0.3, 0.4]]), 1, rngs())
    np.testing.assert_allclose(striped[0, 0, :, 0], [0.9, 0.2, 0.3, 0.6])


def test_bytes_are_truncated_but_not_by_a_rounding():
    values = np.array([100 / 255, 100.6 / 255, 1.2, -0.1], dtype=np.float32)
    assert pixels.to_bytes(values).tolist() == [100, 100, 255, 0]
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(pixels.to_bytes(every.astype(np.float32) / 255), every)


def test_jpeg_and_pixelate_are_pillows(photographs):
    stored = pixels.to_bytes(photographs)
    file = io.BytesIO()
    Image.fromarray(stored[2]).save(file, "JPEG", quality=50)
    made = pixels.jpeg_compression(photographs, 50, rngs(4))
    np.testing.assert_allclose(made[2] * 255, np.asarray(Image.open(file)), atol=1e-3)
    # At one half, a cell is the mean of 2 x 2 pixels, rounded once an axis.
    made = pixels.pixelate(photographs, 0.5, rngs(4)) * 255
    means = stored.reshape(4, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(made, means.repeat(2, axis=1).repeat(2, axis=2), atol=1.01)


def test_glass_blur_moves_pixels_by_one_place():
    # Each pixel's value is its place; without a blur they only move.
    places = np.arange(196, dtype=np.float32).reshape(1, 14, 14, 1) / 255
    swapped = pixels.to_bytes(blurs.mnist_glass_blur(places, (0, 1, 2), rngs()))
    assert sorted(swapped.ravel()) == list(range(196))
    assert (swapped[0, :, :, 0] != np.arange(196).reshape(14, 14)).mean() > 0.3
    copied = pixels.to_bytes(blurs.cifar_glass_blur(places, (0, 1, 1), rngs()))[0, :, :, 0]
    assert len(np.unique(copied)) < 196
    rows, columns = np.divmod(copied.astype(int), 14)
    assert set((np.indices((14, 14))[0] - rows).ravel()) == {0, 1}  # up by at most one
    assert set((np.indices((14, 14))[1] - columns).ravel()) == {0, 1}
    np.testing.assert_array_equal(copied[:2], np.arange(28).reshape(2, 14))  # the border stays


def test_glass_blur_of_grey_digits_blurs_along_columns_alone():
    row = np.zeros((1, 28, 28, 1), dtype=np.float32)
    row[0, 14] = 1
    blurred = blurs._gaussian(row, 0.7, 0.0)
    np.testing.assert_array_equal(blurred, blurred[:, :, :1].repeat(28, axis=2))
    assert blurred[0, 14, 0, 0] < 0.6
    np.testing.assert_array_equal(blurs._gaussian(row.swapaxes(1, 2), 0.7, 0.0), row.swapaxes(1, 2))


def test_defocus_blur_of_a_point():
    point = np.zeros((1, 9, 9, 1), dtype=np.float32)
    point[0, 4, 4] = 1
    # A disk of radius 1 is a cross of five; its edge of sigma 0.2 is sharp.
    spot = blurs.defocus_blur(point, (1, 0.2), rngs())[0, :, :, 0]
    np.testing.assert_allclose(spot[3:6, 3:6], [[0, 0.2, 0], [0.2] * 3, [0, 0.2, 0]], atol=1e-5)
    # A disk of radius 0.3 is the point itself, blurred by exp(−1 / (2 · 0.4²)) = 0.04394.
    spot = blurs.defocus_blur(point, (0.3, 0.4), rngs())[0, :, :, 0]
    tap = 0.043937 / (1 + 2 * 0.043937)
    assert spot[4, 3] == pytest.approx(tap * (1 - 2 * tap), rel=1e-4)


def test_motion_blur_of_a_point():
    point = np.zeros((3, 9, 9, 1), dtype=np.float32)
    point[:, 4, 4] = 1
    smeared = blurs.smear(point, 1, 1, np.array([0.0, 90.0, 45.0]))[..., 0]
    weights = np.exp([0, -0.5, -2])
    weights /= weights.sum()
    # A pixel takes from those to its right and below, so that the point goes left and up.
    np.testing.assert_allclose(smeared[0, 4, 2:5], weights[::-1], atol=0.002)
    np.testing.assert_allclose(smeared[1, 2:5, 4], weights[::-1], atol=0.002)
    np.testing.assert_allclose(smeared[2, 3, 3], weights[1:].sum(), atol=0.002)  # 1.4 pixels: 1
    np.testing.assert_allclose(smeared.sum(axis=(1, 2)), 1, atol=0.006)
    ground = np.full((1, 9, 9, 1), 0.6, dtype=np.float32)
    np.testing.assert_allclose(blurs.motion_blur(ground, (10, 3), rngs()), 0.6, atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 1.05, 1.25, 2.25])
def test_enlargements_are_scipys(photographs, factor):
    inner = int(np.ceil(32 / factor))
    top = (32 - inner) // 2
    crop = photographs[0, top : top + inner, top : top + inner, 0]
    whole = ndimage.zoom(crop, factor, order=1)
    trim = (len(whole) - 32) // 2
    matrix = blurs.enlargement(32, factor)
    np.testing.assert_allclose(
        matrix @ photographs[0, :, :, 0] @ matrix.T,
        whole[trim : trim + 32, trim : trim + 32],
        atol=1e-5,
    )


def test_zoom_blur_is_the_mean_of_enlargements(photographs):
    factors = [blurs.enlargement(32, factor) for factor in (1.0, 1.1)]
    first, second = (m @ photographs[1, :, :, 2] @ m.T for m in factors)
    made = blurs.zoom_blur(photographs, (1.15, 0.1), rngs(4))[1, :, :, 2]
    np.testing.assert_allclose(made, (2 * first + second) / 3, atol=1e-5)


@pytest.mark.parametrize(
    ("border", "scipys"),
    [("zero", "grid-constant"), ("mirror", "mirror"), ("reflect", "reflect")],
)
def test_sampling_is_scipys(photographs, border, scipys):
    rows, columns = np.random.default_rng(1).uniform(-9, 40, (2, 4, 32, 32))
    made = shapes.sample(photographs, rows, columns, border)
    for number in range(4):
        for channel in range(3):
            expected = ndimage.map_coordinates(
                photographs[number, :, :, channel], [rows[number], columns[number]], order=1,
                mode=scipys,
            )  # fmt: skip
            np.testing.assert_allclose(made[number, :, :, channel], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["rotate", "shear", "scale"])
def test_affine_maps_are_scipys(digits, name):
    made = getattr(shapes, name)(digits, 0.7 if name == "scale" else 0.4, rngs(6))
    cosine, sine = np.cos(0.4), np.sin(0.4)
    for number in range(6):
        candidates = []
        for side in (-1, 1):
            # Over (row, column), and about the centre.
            matrix = {
                "rotate": np.array([[cosine, side * sine], [-side * sine, cosine]]),
                "shear": np.array([[cosine, 0], [-side * sine, 1]]),
                "scale": np.eye(2) / 0.7,
            }[name]
            centre = np.full(2, 13.5)
            candidates.append(
                ndimage.affine_transform(
                    digits[number, :, :, 0], matrix, centre - matrix @ centre, order=1,
                    mode="grid-constant",
                )
            )  # fmt: skip
        distances = [np.abs(made[number, :, :, 0] - one).max() for one in candidates]
        assert min(distances) < 1e-5
    sides = shapes._sides(rngs(50))
    assert set(sides) == {-1.0, 1.0}


def test_translate_moves_by_three_pixels_both_ways():
    point = np.zeros((40, 28, 28, 1), dtype=np.float32)
    point[:, 10, 20] = 1
    moved = shapes.translate(point, 3, rngs(40))
    assert set(zip(*np.nonzero(moved)[1:3], strict=True)) == {(7, 17), (7, 23), (13, 17), (13, 23)}
    assert moved.sum() == 40


def test_elastic_transform_in_limiting_cases(photographs):
    still = shapes.elastic_transform(photographs, (0, 0, 0), rngs(4))
    np.testing.assert_allclose(still, photographs, atol=1e-6)
    ground = np.full((1, 32, 32, 3), 0.4, dtype=np.float32)
    np.testing.assert_allclose(
        shapes.elastic_transform(ground, (3.2, 1.0, 1.6), rngs()), 0.4, atol=1e-6
    )
    # A field smoothed over the whole image moves hardly anything.
    slight = shapes.elastic_transform(photographs, (1, 100, 0), rngs(4))
    assert 0 < np.abs(slight - photographs).max() < 0.05


def test_lines():
    near = 1 + np.log(1 - 1 / 2.3)
    line = shapes._line((2, 5), (10, 5))
    np.testing.assert_allclose(line[3:8, 4], [0, near, 1, near, 0], atol=1e-6)
    assert (line[5, 2:10] == 1).all()
    assert not line[5, :2].any()
    assert not line[5, 10:].any()
    dots = shapes._dots(5, 5)[5]
    assert np.flatnonzero(dots).tolist() == [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26]
    zigzag = shapes._zigzag(14, 0)
    # Level: turns two below and two above, every four columns, from column 2 to column 25.
    assert [zigzag[:, column].argmax() for column in (4, 8, 12, 16, 20)] == [16, 12, 16, 12, 16]
    assert not zigzag[:, :2].any()
    assert not zigzag[:, 25:].any()
    black = np.zeros((30, 28, 28, 1), dtype=np.float32)
    assert len(np.unique(shapes.dotted_line(black, None, rngs(30)), axis=0)) > 25
    assert len(np.unique(shapes.zigzag(black, None, rngs(30)), axis=0)) > 20


def test_edges_of_a_square_and_of_nothing():
    images = np.zeros((2, 28, 28, 1), dtype=np.float32)
    images[0, 7:21, 7:21] = 0.5
    images[0, 8:20, 8:20] = 1  # so the border is steepest, in one pixel
    drawn = edges.canny_edges(images, (0.1, 0.2), rngs(2))[..., 0]
    assert not drawn[1].any()
    assert set(np.unique(drawn)) == {0, 1}
    for across in (drawn[0, 14], drawn[0, :, 14]):
        assert np.flatnonzero(across).tolist() == [7, 20]


def test_edges_along_a_diagonal_are_thin():
    across = np.add.outer(np.arange(28), np.arange(28)) - 27
    half_planes = np.clip(0.5 + 0.5 * np.stack([across, across[:, ::-1]]), 0, 1)
    drawn = edges.canny_edges(half_planes[..., np.newaxis], (0.1, 0.2), rngs(2))[..., 0]
    for edge, distance in zip(drawn, (across, across[:, ::-1]), strict=True):
        inner = (slice(5, 23), slice(5, 23))
        assert edge[inner][distance[inner] == 0].all()
        assert not edge[inner][np.abs(distance[inner]) > 1].any()


def test_edges_by_opencvs_rule():
    step = np.zeros((2, 9, 9), dtype=np.uint8)
    step[0, :, 5:] = 200  # 4 · 200 by Sobel in the columns beside the step; the first of two wins
    step[1, :, 5:] = 30  # 4 · 30 is between the thresholds, and touches nothing above
    drawn = edges.canny_of_bytes(step, 50, 150)
    assert np.flatnonzero(drawn[0, 4]).tolist() == [4]
    assert drawn[0, :, 4].all()
    assert not drawn[1].any()
    # A weak part stays where it touches a strong one.
    step[1, 4:, 5:] = 60
    assert edges.canny_of_bytes(step, 50, 150)[1, [0, 1, 2, 5, 6, 7, 8], 4].all()


def test_plasma():
    # 2 x 2 by hand: a centre, then a top and a side between it and the corner, twice each.
    steps = np.array([[[0.3, 0.2], [-0.4, 1.0]]], dtype=np.float32)
    heights = weather._plasma(steps.copy(), 2.0)
    centre, top, side = 1.0, 0.2 + 2 * 1.0 / 4, -0.4 + 2 * 1.0 / 4
    expected = np.array([[0, top], [side, centre]])
    np.testing.assert_allclose(heights[0], expected / centre, atol=1e-6)
    # At the next scale a step counts a quarter, beside the mean of 0, 1/2, 1/2 and 1.
    steps = np.zeros((1, 4, 4), dtype=np.float32)
    steps[0, 2, 2] = steps[0, 1, 1] = 1
    heights = weather._plasma(steps, 2.0)[0]
    assert (heights[2, 2], heights[0, 2], heights[1, 1]) == (1, 0.5, 0.75)
    maps = weather.plasma(rngs(3), 32, 2.0, (32, 32))
    assert maps.min(axis=(1, 2)).tolist() == [0, 0, 0]
    assert maps.max(axis=(1, 2)).tolist() == [1, 1, 1]
    np.testing.assert_array_equal(weather.plasma(rngs(3), 32, 2.0, (28, 20)), maps[:, :28, :20])
    # A greater decay leaves less of the small scales.
    rough, smooth = (
        np.abs(np.diff(weather.plasma(rngs(3), 32, d, (32, 32)))).mean() for d in (1.4, 3)
    )
    assert smooth < 0.7 * rough


def test_fog_keeps_the_brightest_and_black(photographs):
    foggy = weather.fog(photographs, (1.5, 1.75, 32), rngs(4))
    assert (foggy.max(axis=(1, 2, 3)) <= photographs.max(axis=(1, 2, 3)) + 1e-6).all()
    assert foggy.std() < photographs.std()
    assert not weather.fog(np.zeros_like(photographs), (1.5, 1.75, 32), rngs(4)).any()


def test_frost_and_snow_brighten(photographs):
    np.testing.assert_array_equal(weather.frost(photographs, (1, 0), rngs(4)), photographs)
    frosty = weather.frost(photographs, (1, 0.4), rngs(4))
    assert (frosty > photographs).all()
    assert 0.1 < (frosty - photographs).mean() < 0.3
    # Without flakes half of the image is whitened: 0.5 · 1.5 + 0.5 is above 1.
    ground = np.full((1, 32, 32, 3), 0.5, dtype=np.float32)
    bare = weather.snow(ground, (0, 0, 1, 0.5, 2, 1, 0.8), rngs())
    np.testing.assert_allclose(bare, 0.8 * 0.5 + 0.2 * 1.25, atol=1e-5)
    snowy = weather.snow(ground, (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8), rngs())
    np.testing.assert_allclose(snowy - bare, np.rot90(snowy - bare, 2, axes=(1, 2)), atol=1e-5)
    assert (snowy >= bare - 1e-5).all()
    assert (snowy - bare).mean() > 0.02


def test_mud_and_water(photographs):
    mud = ("mud", (1.0, 0.0, 1, 0.5, 0.6))  # everywhere
    covered = weather.spatter(photographs, mud, rngs(4)) * 255
    assert np.abs(covered - [63, 42, 20]).max() < 1e-3
    dry = ("mud", (0.0, 0.0, 1, 0.5, 0.6))
    np.testing.assert_array_equal(weather.spatter(photographs, dry, rngs(4)), photographs)
    none = ("water", (0.0, 0.0, 1, 0.5, 0.6))
    np.testing.assert_array_equal(weather.spatter(photographs, none, rngs(4)), photographs)
    added = (
        weather.spatter(photographs, ("water", (0.65, 0.1, 0.8, 0.7, 0.5)), rngs(4)) - photographs
    )
    assert added.max() == pytest.approx(0.5 * 238 / 255, abs=1e-5)  # the brightest drop's green
    np.testing.assert_allclose(added[..., 0] * 238, added[..., 1] * 175, atol=1e-3)
    assert 0.01 < (added > 0).mean() < 0.3


def test_distances_and_equalizing():
    edge = np.zeros((2, 32, 32), dtype=bool)
    edge[0, 3, 3] = True
    distances = weather._distances(edge)
    assert (distances[1] == 20).all()
    steps = [
        distances[0, 3 + down, 3 + right]
        for down, right in ((0, 0), (0, 2), (2, 2), (2, 1), (4, 3))
    ]
    np.testing.assert_allclose(steps, [0, 2, 2.8, 2.1969, 2.8 + 2.1969], atol=1e-4)
    assert distances[0, 31, 31] == 20
    # Running means of whole numbers are whole but for a rounding, which would cost a level.
    assert weather._truncated(np.array([0.9999999999999997, 1.9, 20.0])).tolist() == [1, 1, 20]
    # Of four pixels, one is above the two least and one above all: 255/2 and 255.
    image = np.array([[[7, 7], [9, 200]]], dtype=np.uint8)
    assert weather._equalized(image).tolist() == [[[0, 0], [128, 255]]]
    assert weather._equalized(np.full((1, 2, 2), 9, dtype=np.uint8)).tolist() == [[[9, 9], [9, 9]]]
