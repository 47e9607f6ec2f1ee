"""Counted randomness: nothing but (seed, stream, step, index) matters, and the numbers are what they claim to be."""

import hashlib
import math

import pytest
import torch

from distill_lib.diffusion import noise

N = 200_000
INDEX = torch.arange(N)


def kolmogorov(sample, cdf):
    """sqrt(n) times the largest distance between the empirical and the true distribution function.

    By Kolmogorov's theorem it exceeds 1.95 with probability 2 exp(-2 * 1.95^2) = 0.001; a bias of 1 % of a standard
    deviation gives about 1.8 more at n = 200,000.
    """
    sample = sample.double().sort().values
    n = len(sample)
    step = torch.arange(n + 1, dtype=torch.float64) / n
    value = cdf(sample)
    return math.sqrt(n) * max((step[1:] - value).max().item(), (value - step[:-1]).max().item())


def gauss_cdf(x):
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def near(value, expected, variance, n):
    """Within four standard deviations of the estimator: a mean of n terms of that variance."""
    return abs(value - expected) < 4 * math.sqrt(variance / n)


def correlation(a, b):
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    return ((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt()).item()


def test_words_are_those_of_splitmix64():
    # the published first outputs for the seed 0 (Vigna's splitmix64.c), as signed integers
    expected = [0xE220A8397B1DCDAF - 2**64, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert noise.words(torch.tensor([0]), 3)[0].tolist() == expected


def mix(z):
    """SplitMix64's finaliser in Python's integers, modulo 2^64."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def test_draws_are_those_of_the_formula_in_another_arithmetic():
    # formula (1): key = mix(mix(mix(mix(seed) + stream) + step) + index), and the uniforms of its first word
    stream = int.from_bytes(hashlib.blake2b(b"eps", digest_size=8).digest(), "big")
    for seed, step, index in ((0, 0, 0), (3, 70_000, 2**33), (-5, 1, 7)):
        key = mix((mix((mix((mix(seed % 2**64) + stream) % 2**64) + step) % 2**64) + index) % 2**64)
        word = mix((key + 0x9E3779B97F4A7C15) % 2**64)
        expected = [((word >> shift) % 2**23 + 0.5) / 2**23 for shift in (0, 32)]
        assert noise.uniform(seed, "eps", step, torch.tensor([index]), 2)[0].tolist() == expected
        radius, angle = math.sqrt(-2 * math.log(expected[0])), 2 * math.pi * expected[1]
        normal = noise.normal(seed, "eps", step, torch.tensor([index]), (2,))[0].tolist()
        assert normal == pytest.approx([radius * math.cos(angle), radius * math.sin(angle)], abs=2e-6)  # float32


@pytest.mark.parametrize("draw", [noise.uniform, noise.normal])
def test_a_sample_is_the_same_in_any_batch_and_order(draw):
    size = 7 if draw is noise.uniform else (7,)  # odd: the last word is used by half
    whole = draw(3, "eps", 5, torch.arange(50), size)
    for index in ([49, 0, 7], [13], list(range(49, -1, -1)), [4, 4]):
        assert torch.equal(draw(3, "eps", 5, torch.tensor(index), size), whole[index])


def test_a_longer_uniform_draw_starts_with_the_shorter_one():
    assert torch.equal(noise.uniform(0, "t", 0, INDEX[:9], 4), noise.uniform(0, "t", 0, INDEX[:9], 11)[:, :4])


def test_shape_of_a_normal_draw_only_arranges_it():
    flat = noise.normal(0, "eps", 0, INDEX[:9], (24,))
    assert torch.equal(noise.normal(0, "eps", 0, INDEX[:9], (2, 3, 4)).flatten(1), flat)
    assert flat.dtype == torch.float32


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    noise.normal(0, "eps", 0, INDEX[:9], (4,))
    noise.uniform(0, "t", 0, INDEX[:9], 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_seed_stream_step_and_index_has_a_key_of_its_own():
    index = torch.arange(500)
    keys = [noise.sample_keys(seed, name, step, index) for seed in range(15) for name in "ab" for step in range(30)]
    keys = torch.cat(keys)
    # 450,000 keys of 64 bits: the chance of one honest collision is 5e-9
    assert len(keys.unique()) == len(keys)


def test_seed_step_and_index_are_not_interchangeable():
    a, b, c = (noise.sample_keys(s, "x", t, torch.tensor([i])).item() for s, t, i in [(1, 2, 3), (2, 1, 3), (3, 2, 1)])
    assert len({a, b, c}) == 3
    # an additive key would confuse (step, index + 1) with (step + 1, index)
    assert noise.sample_keys(0, "x", 1, torch.tensor([0])) != noise.sample_keys(0, "x", 0, torch.tensor([1]))


def test_words_of_neighbouring_samples_do_not_overlap():
    # SplitMix64 walks one cycle: keys that lay near each other on it would share words
    result = noise.words(noise.sample_keys(0, "eps", 0, torch.arange(2000)), 200).flatten()
    assert len(result.unique()) == len(result)


@pytest.mark.parametrize(
    "other", [(1, "eps", 0, INDEX), (0, "eps2", 0, INDEX), (0, "eps", 1, INDEX), (0, "eps", 0, INDEX + N)]
)
def test_another_seed_stream_step_or_index_is_independent(other):
    a, b = noise.normal(0, "eps", 0, INDEX, (1,))[:, 0], noise.normal(*other, (1,))[:, 0]
    # a correlation of independent samples has variance 1/n; squares show a shared radius, too
    assert near(correlation(a, b), 0, 1, N)
    assert near(correlation(a.square(), b.square()), 0, 1, N)


def test_neighbouring_samples_and_coordinates_are_independent():
    z = noise.normal(0, "eps", 0, INDEX, (4,))
    assert near(correlation(z[1:, 0], z[:-1, 0]), 0, 1, N)
    for i in range(4):
        for j in range(i):  # pairs that come from one word (radius and angle) among them
            assert near(correlation(z[:, i], z[:, j]), 0, 1, N)
            assert near(correlation(z[:, i].square(), z[:, j].square()), 0, 1, N)


def test_uniform_draws_have_the_moments_and_the_law_of_uniform_draws():
    u = noise.uniform(0, "t", 0, INDEX, 3)
    for column in u.T:  # low half, high half, and the low half of the second word
        assert near(column.double().mean(), 1 / 2, 1 / 12, N)
        assert near((column.double() - 0.5).square().mean(), 1 / 12, 1 / 180, N)
        assert kolmogorov(column, lambda x: x) < 1.95


def test_normal_draws_have_the_moments_and_the_law_of_normal_draws():
    z = noise.normal(0, "eps", 0, INDEX, (2,))
    for column in z.double().T:  # cosine half, sine half
        for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert near((column**power).mean(), moment, variance, N)
        assert kolmogorov(column, gauss_cdf) < 1.95


def test_consecutive_steps_of_one_sample_follow_the_law_as_well():
    steps = torch.cat([noise.normal(0, "eps", step, torch.tensor([0]), (8,)) for step in range(1000)]).flatten()
    assert kolmogorov(steps, gauss_cdf) < 1.95


def test_normal_tails_are_full():
    z = noise.normal(7, "tail", 0, INDEX, (20,)).abs().flatten()
    n = len(z)
    for limit in (3.0, 4.0, 4.5):
        p = math.erfc(limit / math.sqrt(2))
        assert near((z > limit).double().mean(), p, p * (1 - p), n)
    # the smallest radius is that of u = 2^-24
    assert z.max() <= math.sqrt(2 * 24 * math.log(2)) + 1e-5


def test_uniform_draws_are_never_0_or_1():
    # the extreme words: all bits 0, all bits 1, and one half of each
    low, high = noise._halves(torch.tensor([[0, -1, 2**32 - 1, -(2**32)]]))
    both = torch.cat([low, high])
    assert both.dtype == torch.float32
    assert (both > 0).all() and (both < 1).all()
    assert both.min() == 2.0**-24 and both.max() == 1 - 2.0**-24
    assert both.log().isfinite().all()


def test_negative_and_huge_seeds_are_accepted():
    drawn = {noise.uniform(seed, "t", 0, torch.tensor([0]), 1).item() for seed in (-1, 0, 2**40, 2**62)}
    assert len(drawn) == 4
