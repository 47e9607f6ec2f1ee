"""Metrics: closed forms, planted patterns, and a Frechet distance that is near 0 only where it should be."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from distill_lib.diffusion.pixels import to_bytes
from distill_lib.measure import metrics
from distill_lib.measure.metrics import (
    Reader,
    edge_width,
    fid,
    interval,
    laplacian_variance,
    median_seconds,
    paired,
    period_two_share,
    quality,
)
from distill_lib.measure.readers.extractor import Extractor
from distill_lib.worlds.pictures import WORLDS, render_pictures


class Linear(nn.Module):
    """Features that are 64 orthonormal projections of the pixels: Gaussian pixels have Gaussian features."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(3 * 8 * 8, 64, generator=generator))[0])

    def forward(self, image):
        features = image.flatten(1) @ self.weight
        return features, features[:, :12], features[:, :2]


@pytest.fixture(scope="module")
def linear():
    return Reader(Linear())


def gaussian_pictures(n, seed, std=0.25, mean=0.0):
    """Pixels N(mean, std^2) in [-1, 1], independent, as uint8."""
    z = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return to_bytes(mean + std * z)


# ------------------------------------------------------------------------------------------------ Frechet distance


def test_identical_sets_have_distance_0(linear):
    image = gaussian_pictures(300, 0)
    assert abs(fid(linear, image, image)) < 1e-6  # float64: a difference of two traces of size 4


def test_the_distance_of_two_samples_of_one_law_is_its_known_bias(linear):
    n = 2000
    result = fid(linear, gaussian_pictures(n, 0), gaussian_pictures(n, 1))
    # truth 0. Sample means differ by 2 d std^2 / n. For covariances near std^2 I the trace term is the square of their
    # difference over 4 std^2, on average 2 d (d + 1) std^4 / n over 4 std^2
    d, variance = 64, 0.25**2
    expected = 2 * d * variance / n + d * (d + 1) * variance / (2 * n)
    assert result == pytest.approx(expected, rel=0.1)  # the next order is d / n = 3 %, the spread of d^2 squares 3 %


def test_the_distance_of_shifted_gaussians_is_the_squared_shift(linear):
    n, shift = 2000, 0.2
    result = fid(linear, gaussian_pictures(n, 0), gaussian_pictures(n, 1, mean=shift))
    direction = torch.full((1, 3, 8, 8), shift)
    with torch.no_grad():
        expected = linear.net(direction)[0].square().sum().item()
    floor = fid(linear, gaussian_pictures(n, 0), gaussian_pictures(n, 1))
    # the cross term of shift and sampling noise: 2 |shift| std sqrt(2 / n), four of them
    assert result - floor == pytest.approx(expected, abs=8 * math.sqrt(expected) * 0.25 * math.sqrt(2 / n))


def test_the_distance_of_scaled_gaussians_is_that_of_their_deviations(linear):
    n = 2000
    result = fid(linear, gaussian_pictures(n, 0, std=0.1), gaussian_pictures(n, 1, std=0.3))
    # d (s1 - s2)^2; the bias is 1 % of it, rounding and clipping at 3.3 sd less
    assert result == pytest.approx(64 * 0.2**2, rel=0.05)


@pytest.fixture(scope="module")
def worlds():
    """Two sets of real pictures of one world, and a set of another."""
    first, second, other = torch.arange(300), torch.arange(300, 600), torch.arange(300)
    image = [render_pictures(WORLDS["plain"], 0, first)[0], render_pictures(WORLDS["plain"], 0, second)[0]]
    return *image, render_pictures(WORLDS["textured"], 0, other)[0]


class Rough(nn.Module):
    """Sixteen features that see texture: how strongly random filters of 5 x 5 pixels answer."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(16, 3, 5, 5, generator=generator) / 75**0.5)

    def forward(self, image):
        features = torch.nn.functional.conv2d(image, self.weight, stride=2).abs().mean((2, 3))
        return features, features[:, :4], features[:, :2]


@pytest.fixture(scope="module")
def rough():
    return Reader(Rough())


@pytest.fixture(scope="module")
def untrained():
    torch.manual_seed(0)
    return Reader(Extractor(4, 3, width=8).eval().requires_grad_(False))


def test_real_against_real_is_near_0_and_another_world_or_damage_is_far(worlds, rough):
    real, more, other = worlds
    floor = fid(rough, more, real)
    assert 0 < floor
    washed = to_bytes((more.float() / 127.5 - 1) * 0.7)
    blurred = avg_pool2d(more.float(), 3, 1, 1).to(torch.uint8)
    for far in (other, washed, blurred, more[:1].repeat(300, 1, 1, 1)):  # the last: one picture, again and again
        assert fid(rough, far, real) > 3 * floor


def test_the_order_of_pictures_does_not_matter(worlds, rough):
    real, more, _ = worlds
    assert fid(rough, more.flip(0), real) == pytest.approx(fid(rough, more, real), rel=1e-6)


def test_quality_has_the_names_of_the_contracts_and_the_same_distance(worlds, untrained):
    real, more, _ = worlds
    result = quality(untrained, more, real)
    assert set(result) == {"fid", "kid", "is", "precision", "recall"}
    assert result["fid"] == pytest.approx(fid(untrained, more, real), rel=1e-6)
    assert 0 <= result["precision"] <= 1 and 0 <= result["recall"] <= 1
    assert 1 <= result["is"] <= 4 + 1e-6  # between one class and all of its classes


def test_kid_is_near_0_for_one_law_and_not_for_two(linear):
    n = 600
    same = quality(linear, gaussian_pictures(n, 0), gaussian_pictures(n, 1))["kid"]
    far = quality(linear, gaussian_pictures(n, 0), gaussian_pictures(n, 1, mean=0.2))["kid"]
    assert abs(same) < 0.1 * far  # unbiased: of either sign


# ------------------------------------------------------------------------------------------------ the reader


def test_two_readers_of_one_process_are_not_mixed_up():
    a, b = gaussian_pictures(200, 0), gaussian_pictures(200, 1, mean=0.2)
    first, second = fid(Reader(Linear(0)), a, b), fid(Reader(Linear(1)), a, b)
    assert first != second
    assert fid(Reader(Linear(0)), a, b) == first


def test_reading_in_pieces_gives_each_picture_its_features(untrained, worlds):
    result = untrained.read(worlds[0])
    assert result["64"].shape == (300, 64) and result["logits"].shape == (300, 4)
    single = untrained.read(worlds[0][290:295])["64"]
    assert torch.allclose(single, result["64"][290:295], rtol=0, atol=1e-5)  # another batch size sums in another order


def test_the_same_pictures_are_read_once_and_changed_ones_again():
    class Counting(Rough):
        def forward(self, image):
            calls.append(len(image))
            return super().forward(image)

    calls, reader = [], Reader(Counting())
    single, second = gaussian_pictures(40, 5), gaussian_pictures(30, 6)
    first = fid(reader, single, second)
    quality(reader, single.clone(), second)
    assert calls == [40, 30]
    single[:] = single.flip(2)
    assert fid(reader, single, second) != first and calls == [40, 30, 40]


def test_a_network_of_torch_fidelity_is_read_by_its_own_layers():
    class Inception(FeatureExtractorBase):
        """As torch-fidelity's, but that it looks at five numbers."""

        @staticmethod
        def get_provided_features_list():
            return ("2048", "logits_unbiased")

        def forward(self, image):
            return image.flatten(1)[:, :5].double(), torch.zeros(len(image), 3)

    reader = Reader(Inception("inception-v3-compat", ["2048", "logits_unbiased"]))
    assert (reader.features, reader.logits) == ("2048", "logits_unbiased")
    first, second = gaussian_pictures(60, 5), gaussian_pictures(60, 6, mean=0.3)
    assert fid(reader, first, second) > fid(reader, first, first.clone()) == pytest.approx(0, abs=1e-3)
    assert quality(reader, first, second)["is"] == pytest.approx(1)


# ------------------------------------------------------------------------------------------------ pictures


def test_bytes_are_what_is_saved():
    x = torch.tensor([-2.0, -1.0, -1 + 1.2 / 255, 0.999999, 1.0, 7.0]).reshape(1, 1, 1, 6)
    assert to_bytes(x).flatten().tolist() == [0, 0, 1, 255, 255, 255]
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(every.float() / 127.5 - 1), every)


def test_paired_is_the_mean_square_difference_of_each_pair():
    a = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    b = a.clone()
    b[1] += 51  # 0.4 in [-1, 1]
    assert paired(a, b).tolist() == pytest.approx([0, 0.16])
    assert paired(b, a).tolist() == paired(a, b).tolist()  # no wrap-around of unsigned numbers
    b[1, :, :2] = 0
    assert paired(a, b)[1].item() == pytest.approx(0.08)


def test_laplacian_variance_of_white_noise_is_20_thirds_of_its_variance():
    std = 0.2
    z = torch.randn(200, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    result = laplacian_variance(to_bytes(std * z))
    # grey: std^2 / 3; the kernel's squares add up to 16 + 4. Rounding to bytes adds (2 / 255)^2 / 12, a permille;
    # 180,000 correlated values leave about a percent
    assert result == pytest.approx(20 * std**2 / 3, rel=0.02)


def test_laplacian_variance_ignores_brightness_and_slopes_and_falls_with_blur():
    ramp = torch.arange(0, 64, 2, dtype=torch.uint8).expand(2, 3, 32, 32)
    assert laplacian_variance(ramp) == pytest.approx(0, abs=1e-9)
    z = to_bytes(0.2 * torch.randn(20, 3, 32, 32))
    assert laplacian_variance(z // 2 + 60) == pytest.approx(laplacian_variance(z) / 4, rel=0.02)
    assert laplacian_variance(avg_pool2d(z.float(), 3, 1).to(torch.uint8)) < laplacian_variance(z) / 10


def pattern(kind, amplitude=100):
    i = torch.arange(32)
    grid = {
        "columns": (i % 2)[None].expand(32, 32),
        "rows": (i % 2)[:, None].expand(32, 32),
        "checkerboard": (i[:, None] + i) % 2,
        "period 4": (i % 4 // 2)[None].expand(32, 32),
    }[kind]
    return (60 + amplitude * grid).to(torch.uint8).expand(4, 3, 32, 32)


@pytest.mark.parametrize("kind, share", [("columns", 1), ("rows", 1), ("checkerboard", 1), ("period 4", 0)])
def test_period_two_share_finds_a_planted_pixel_grid(kind, share):
    assert period_two_share(pattern(kind)) == pytest.approx(share, abs=1e-6)


def test_period_two_share_of_white_noise_is_its_share_of_frequencies_and_a_faint_grid_shows():
    z = 30 * torch.randn(300, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 128
    # 63 of the 1023 frequencies other than the mean lie on the two lines (64 if their crossing is counted twice)
    share = period_two_share(z.clamp(0, 255).to(torch.uint8))
    assert share == pytest.approx(63 / 1023, rel=0.04)  # 300 x 63 powers of relative spread 1: 0.7 %, four of them
    faint = z + 10 * (torch.arange(32) % 2)
    assert period_two_share(faint.clamp(0, 255).to(torch.uint8)) > 1.5 * share


def gauss(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def step(blur):
    """A dark left half beside a bright right half; the edge between, of blur std in pixels, is Gaussian."""
    line = torch.tensor([gauss((i - 15.5) / blur) for i in range(32)])
    return (30 + 190 * line).round().to(torch.uint8).expand(2, 3, 32, 32)


@pytest.mark.parametrize("blur", [0.01, 0.5, 0.8, 1.2])
def test_edge_width_is_contrast_over_the_steepest_step(blur):
    # eight pixels around the edge, of which the middle pair makes the steepest step
    expected = (gauss(3.5 / blur) - gauss(-3.5 / blur)) / (gauss(0.5 / blur) - gauss(-0.5 / blur))
    assert edge_width(step(blur)) == pytest.approx(expected, rel=0.02)  # bytes: 1 of the 60 levels of the smallest step


def test_a_perfect_step_has_width_1_and_blur_only_widens():
    widths = [edge_width(step(blur)) for blur in (0.01, 0.3, 0.5, 0.8, 1.2)]
    assert widths[0] == pytest.approx(1, abs=1e-6)
    assert widths == sorted(widths) and widths[-1] > 2.5


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
def test_a_linear_ramp_has_its_width(width):
    line = torch.cat(
        [torch.full((12,), 10), 10 + 240 // width * torch.arange(1, width + 1), torch.full((20 - width,), 250)]
    )
    assert edge_width(line.to(torch.uint8).expand(2, 3, 32, 32)) == pytest.approx(width, rel=1e-5)


def test_edge_width_is_the_same_for_rows_and_columns():
    assert edge_width(step(0.8).mT) == pytest.approx(edge_width(step(0.8)), rel=1e-6)


def test_a_blurred_world_has_wider_edges(worlds):
    blurred = avg_pool2d(worlds[0].float(), 3, 1).to(torch.uint8)
    assert edge_width(blurred) > edge_width(worlds[0]) + 0.5


# ------------------------------------------------------------------------------------------------ numbers


def test_an_interval_is_students():
    low, high = interval([1.0, 2.0, 3.0])
    half = 4.302653 * 1 / math.sqrt(3)  # the 97.5 % point with 2 degrees of freedom, from a table
    assert (low, high) == pytest.approx((2 - half, 2 + half), rel=1e-6)
    assert all(math.isnan(x) for x in interval([1.0]))


def test_the_median_time_leaves_out_the_first_call(monkeypatch):
    clock = iter([0, 100, 101, 101, 103, 103, 106])  # 100 s to warm up, then 1, 2 and 3 s
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(clock))
    calls = []
    assert median_seconds(lambda: calls.append(1), repeats=3) == 2
    assert len(calls) == 4
