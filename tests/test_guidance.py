"""Guidance: one convention, its translation to diffusers', and the features of w."""

import math

import pytest
import torch
from closed_forms import tiny_unet
from diffusers import LatentConsistencyModelPipeline, StableDiffusionPipeline

from distill_lib.diffusion.guidance import combine, guidance_embedding, guided_pair
from distill_lib.diffusion.schedules import add_noise, x_from_v
from distill_lib.networks.adapter import Network, denoise_pair


def test_w_0_is_the_conditional_network_exactly():
    v_cond, v_uncond = torch.randn(2, 5, 3, 4)
    assert torch.equal(combine(v_cond, v_uncond, torch.zeros(5)), v_cond)


def test_w_minus_1_is_the_unconditional_network_exactly():
    v_cond, v_uncond = torch.randn(2, 5, 3, 4)
    assert torch.equal(combine(v_cond, v_uncond, -torch.ones(5)), v_uncond)


@pytest.mark.parametrize("g", [1.0, 2.0, 5.0, 7.5])
def test_diffusers_scale_is_1_plus_w(g):
    v_cond, v_uncond = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    diffusers = v_uncond + g * (v_cond - v_uncond)
    assert torch.allclose(combine(v_cond, v_uncond, torch.full((5,), g - 1)), diffusers, rtol=0, atol=1e-14)


def test_scale_7_5_is_w_6_5():
    cond, uncond = torch.tensor([[1.0]]), torch.tensor([[0.25]])
    assert combine(cond, uncond, torch.tensor([6.5])).item() == 0.25 + 7.5 * 0.75


def test_each_sample_has_its_own_strength():
    v_cond, v_uncond = torch.randn(2, 3, 2, 2, 2, dtype=torch.float64)
    w = torch.tensor([0.0, 1.0, 4.0])
    together = combine(v_cond, v_uncond, w)
    for i in range(3):
        assert torch.equal(together[i : i + 1], combine(v_cond[i : i + 1], v_uncond[i : i + 1], w[i : i + 1]))


def test_guidance_is_the_same_in_x_and_in_v():
    z_t, v_cond, v_uncond = torch.randn(3, 4, 6, dtype=torch.float64)
    t, w = torch.tensor([1, 300, 700, 1024]), torch.tensor([0.0, 0.5, 2.0, 4.0])
    in_x = combine(x_from_v(z_t, v_cond, t), x_from_v(z_t, v_uncond, t), w)
    assert torch.allclose(x_from_v(z_t, combine(v_cond, v_uncond, w), t), in_x, rtol=0, atol=1e-13)


def test_a_pair_asks_once_with_the_classes_then_with_the_null_class():
    calls = []

    def net(z_t, t, label):
        calls.append((z_t, t, label))
        return z_t * label[:, None]

    z_t, t, label = torch.randn(3, 2), torch.tensor([5, 6, 7]), torch.tensor([0, 1, 2])
    v_cond, v_uncond = guided_pair(net, z_t, t, label, 9)
    assert len(calls) == 1 and calls[0][2].tolist() == [0, 1, 2, 9, 9, 9] and calls[0][1].tolist() == [5, 6, 7] * 2
    assert torch.equal(v_cond, z_t * label[:, None]) and torch.equal(v_uncond, 9 * z_t)


def test_a_pair_equals_two_calls():
    net = Network(tiny_unet(), bf16=False)
    z_t, t, label = torch.randn(3, 12, 4, 4), torch.tensor([3, 500, 1024]), torch.tensor([0, 1, 2])
    with torch.no_grad():
        v_cond, v_uncond = guided_pair(net, z_t, t, label, net.null)
        apart = net(z_t, t, label), net(z_t, t, torch.full_like(label, net.null))
    assert (apart[0] - apart[1]).abs().max() > 1e-3  # otherwise an exchange would go unseen
    # the same sums in another order for another batch size: float32 rounding of outputs of size 1
    assert torch.allclose(v_cond, apart[0], rtol=0, atol=1e-5)
    assert torch.allclose(v_uncond, apart[1], rtol=0, atol=1e-5)


def test_a_guided_denoiser_is_the_formula_and_at_w_0_asks_one_network():
    net = Network(tiny_unet(), bf16=False)
    x, eps = torch.randn(2, 3, 12, 4, 4)
    t, label = torch.tensor([3, 500, 1024]), torch.tensor([0, 1, 2])
    z_t = add_noise(x, eps, t)
    with torch.no_grad():
        cond, uncond = net(z_t, t, label), net(z_t, t, torch.full_like(label, net.null))
        # 1 + w times the rounding of a pair (above)
        assert torch.allclose(denoise_pair(net, label, 3.0)(z_t, t), 4 * cond - 3 * uncond, rtol=0, atol=5e-5)
        assert torch.equal(denoise_pair(net, label, 0.0)(z_t, t), cond)


@pytest.mark.parametrize("pipeline", [StableDiffusionPipeline, LatentConsistencyModelPipeline])
@pytest.mark.parametrize("dim", [32, 64, 256])
def test_the_features_of_w_are_those_of_diffusers_pipelines_to_the_last_bit(pipeline, dim):
    # an angle of up to 14,000 turns one other rounding into an error of 1e-3: only the same operations will do
    w = torch.cat([torch.linspace(0, 14, 57), 4 * torch.rand(100)])
    assert torch.equal(guidance_embedding(w, dim), pipeline.get_guidance_scale_embedding(None, w, embedding_dim=dim))


def test_the_pipelines_number_is_w_itself():
    # what StableDiffusionPipeline feeds to the embedding is guidance_scale - 1
    assert torch.equal(guidance_embedding(torch.tensor([7.5 - 1]), 64), guidance_embedding(torch.tensor([6.5]), 64))


def test_the_features_are_sines_then_cosines_of_falling_frequencies():
    result = guidance_embedding(torch.tensor([0.002]), 8)[0]
    f = [1, 10000 ** (-1 / 3), 10000 ** (-2 / 3), 1e-4]
    expected = [math.sin(2 * k) for k in f] + [math.cos(2 * k) for k in f]
    assert result.tolist() == pytest.approx(expected, abs=1e-6)
    assert result.dtype == torch.float32


def test_strengths_in_the_trained_range_can_be_told_apart():
    features = guidance_embedding(torch.linspace(0, 4, 401), 64)
    apart = torch.cdist(features, features) + 99 * torch.eye(401)
    assert apart.min() > 0.5  # of at most sqrt(2 * 64): w is not squeezed into nothing
