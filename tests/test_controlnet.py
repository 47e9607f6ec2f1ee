"""A ControlNet behind the adapter: at first it adds nothing, then it reaches the up half alone; cut, and loaded."""

import pytest
import torch

from distill_lib.diffusion.guidance import guided_pair, without_condition
from distill_lib.networks.adapter import append_extra
from distill_lib.networks.controlnet import Controlled, build_control, cut_control, load_control, shared_places
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.networks.pruning import Cut, prune, stages
from distill_lib.sdxs.controlnet import observed
from distill_lib.teachers.small_diffusion import build_text_unet
from distill_lib.worlds.captions import drawn_attributes, say


@pytest.fixture
def model(small_pipeline):
    return open_pipeline(small_pipeline[0], bf16=False)


def loud(unet):
    """A ControlNet that adds something everywhere."""
    torch.manual_seed(5)
    control = build_control(unet, 4)
    for part in (
        *control.controlnet_down_blocks,
        control.controlnet_mid_block,
        control.controlnet_cond_embedding.conv_out,
    ):
        torch.nn.init.normal_(part.weight, std=0.2)
    return control


def given(model, channels=1, seed=0):
    made = torch.Generator().manual_seed(seed)
    z_t, t = torch.randn(3, 4, 16, 16, generator=made), torch.tensor([100, 500, 1000])
    return z_t, t, model.states(say(drawn_attributes(3, 0))), torch.rand(3, channels, 64, 64, generator=made)


def test_a_new_one_adds_nothing_and_a_trained_one_does(model):
    z_t, t, words, seen = given(model)
    label = append_extra(words, seen)
    with torch.no_grad():
        plain = model.network(z_t, t, words)
        assert torch.equal(Controlled(model.network, build_control(model.network.module, 4))(z_t, t, label), plain)
        assert not torch.allclose(
            Controlled(model.network, loud(model.network.module))(z_t, t, label), plain, atol=1e-3
        )


def test_it_is_diffusers_own_sum_of_residuals(model):
    z_t, t, words, seen = given(model)
    control, unet = loud(model.network.module), model.network.module
    with torch.no_grad():
        ours = Controlled(model.network, control)(z_t, t, append_extra(words, seen))
        down, middle = control(z_t, t - 1, words, seen.repeat(1, 3, 1, 1), return_dict=False)
        more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        reference = unet(z_t, t - 1, words, **more).sample
    assert torch.allclose(ours, reference, atol=1e-5)


def test_maps_of_one_and_of_three_channels_are_told_apart(model):
    z_t, t, words, seen = given(model)
    net = Controlled(model.network, loud(model.network.module))
    with torch.no_grad():
        grey = net(z_t, t, append_extra(words, seen))
        assert torch.allclose(grey, net(z_t, t, append_extra(words, seen.repeat(1, 3, 1, 1))), atol=1e-5)
        assert not torch.allclose(grey, net(z_t, t, append_extra(words, given(model, 3, 1)[3])), atol=1e-3)


def test_both_halves_of_a_guided_pair_see_the_map(model):
    z_t, t, words, seen = given(model)
    net, label = Controlled(model.network, loud(model.network.module)), append_extra(words, seen)
    with torch.no_grad():
        v_cond, v_uncond = guided_pair(net, z_t, t, label, net.null)
        assert torch.allclose(v_cond, net(z_t, t, label), atol=1e-5)
        assert torch.allclose(v_uncond, net(z_t, t, without_condition(label, net.null)), atol=1e-5)


def test_down_stages_do_not_see_the_map_and_up_stages_do(model):
    z_t, t, words, seen = given(model)
    net, unet = Controlled(model.network, loud(model.network.module)), model.network.module
    with torch.no_grad():
        result = [observed(net, list(stages(unet)), z_t, t, append_extra(words, m))[1] for m in (seen, 1 - seen)]
    same = [torch.equal(a, b) for a, b in zip(*result, strict=True)]
    down = len(unet.down_blocks)
    assert same[:down] == [True] * down and not any(same[down:])


@pytest.mark.parametrize("learns", ["control", "unet"])
def test_a_gradient_reaches_what_learns_and_a_replaced_call_is_taken(model, learns):
    z_t, t, words, seen = given(model)
    net = Controlled(model.network, loud(model.network.module).requires_grad_(False), learns)
    net.module.requires_grad_(True)
    calls, real = [], net.forward
    net.forward = lambda *a, **k: calls.append(1) or real(*a, **k)  # as a loop does that wraps it
    net(z_t, t, append_extra(words, seen)).square().mean().backward()
    assert calls and net.module is (net.control if learns == "control" else model.network.module)
    frozen = model.network.module if learns == "control" else net.control
    assert all(p.grad is None for p in frozen.parameters())
    assert sum(p.grad.abs().sum().item() for p in net.module.parameters() if p.grad is not None) > 0
    other = net.like(net.module, bf16=True)
    assert isinstance(other, Controlled) and other.bf16 and other.module is net.module and other.shape == (4, 16, 16)
    assert not net.like(net.module, bf16=True).exact().bf16


def uncut(layers):
    torch.manual_seed(2)
    sizes = {"channels": (16, 32, 32), "attention": (False, True, True), "layers": layers}
    return build_text_unet(side=16, width=16, **sizes)


@pytest.mark.parametrize("cut", [Cut(middle="removed", innermost=True), Cut(middle="removed", layers=1), Cut()])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_cut_one_starts_with_the_residuals_of_the_whole_one_where_both_have_them(model, cut, layers):
    unet = uncut(layers)
    whole, small_unet = loud(unet), prune(unet, cut)
    small = cut_control(whole, small_unet)
    z_t, t, _, seen = given(model)
    words = torch.randn(3, 7, 16)
    with torch.no_grad():
        cut_residuals, middle = small(z_t, t, words, seen.repeat(1, 3, 1, 1), return_dict=False)
        reference, _ = whole(z_t, t, words, seen.repeat(1, 3, 1, 1), return_dict=False)
        more = {"down_block_additional_residuals": cut_residuals, "mid_block_additional_residual": middle}
        assert small_unet(z_t, t, words, **more).sample.isfinite().all()
    shared = shared_places(small, whole)
    assert len(cut_residuals) == len(shared) and [r.shape for r in cut_residuals] == [
        reference[k].shape for k in shared
    ]
    upto = len(cut_residuals) if cut.layers is None or layers == 1 else 2  # a removed unit changes what comes after it
    assert all(torch.allclose(cut_residuals[i], reference[shared[i]], atol=1e-5) for i in range(upto))
    assert middle.any() == (not cut.innermost)


def test_a_new_cut_one_is_the_small_unets_own_copy_and_adds_nothing(model):
    unet = uncut(1)
    small_unet = prune(unet, Cut(middle="removed", innermost=True), inherit=False)
    small = cut_control(loud(unet), small_unet, inherit=False)
    assert torch.equal(small.down_blocks[0].resnets[0].conv1.weight, small_unet.down_blocks[0].resnets[0].conv1.weight)
    z_t, t, _, seen = given(model)
    with torch.no_grad():
        down, middle = small(z_t, t, torch.randn(3, 7, 16), seen.repeat(1, 3, 1, 1), return_dict=False)
    assert not middle.any() and not any(r.any() for r in down)


def test_one_that_belongs_to_another_network_is_refused():
    with pytest.raises(ValueError, match=r"would start from .*; this cut does not fit"):
        cut_control(loud(uncut(1)), build_text_unet(side=16, width=16, channels=(32, 32), attention=(False, True)))


def test_it_comes_back_from_its_folder_and_a_broken_one_is_refused(model, tmp_path):
    control = loud(model.network.module)
    control.save_pretrained(tmp_path / "good", safe_serialization=True)
    for name, weight in load_control(tmp_path / "good").state_dict().items():
        assert torch.equal(weight, control.state_dict()[name])
    with pytest.raises(ValueError, match=r"there is no folder missing; make it with"):
        load_control(tmp_path / "missing")
    (path,) = (tmp_path / "good").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="no usable ControlNet in"):
        load_control(tmp_path / "good")
