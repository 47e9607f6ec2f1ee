"""Networks: patches, the student's first step, the folder they come from, and the adapter that calls them."""

import json
import shutil

import pytest
import torch
from closed_forms import tiny_unet

from distill_lib.diffusion.pixels import from_patches, to_patches
from distill_lib.networks.adapter import Network, denoise_student
from distill_lib.networks.unet import build_unet, load_unet, student_of

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def inputs():
    """z_t, t and classes, the null class and both ends of the grid among them."""
    z_t = torch.randn(4, 12, 4, 4)
    return z_t, torch.tensor([1, 300, 700, 1024]), torch.tensor([0, 1, 2, 3])


@pytest.fixture
def folder(tmp_path):
    tiny_unet().save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


def test_patches_are_a_permutation_of_the_pixels():
    image = torch.arange(2 * 3 * 6 * 6.0).reshape(2, 3, 6, 6)
    x = to_patches(image)
    assert x.shape == (2, 12, 3, 3)
    assert torch.equal(x[0].flatten().sort().values, image[0].flatten())  # nothing lost, doubled or mixed with others
    assert torch.equal(from_patches(x), image)
    assert torch.equal(to_patches(from_patches(x)), x)


def test_a_patch_holds_the_four_pixels_of_its_place():
    image = torch.arange(3 * 4 * 4.0).reshape(1, 3, 4, 4)
    x = to_patches(image)[0]
    for channel in range(3):
        result = x[4 * channel : 4 * channel + 4, 1, 0]
        assert result.tolist() == image[0, channel, 2:4, 0:2].flatten().tolist()


def test_the_network_keeps_the_shape_and_knows_one_class_more_than_the_data():
    unet = tiny_unet()
    net = Network(unet, bf16=False)
    assert net.null == 3 and unet.config.num_class_embeds == 4
    assert not net.takes_w


def test_the_adapter_calls_the_plain_network_with_timestep_t_minus_1(inputs):
    unet = tiny_unet()
    z_t, t, label = inputs
    with torch.no_grad():
        plain = unet(z_t, t - 1, torch.zeros(4, 1, 8), class_labels=label).sample
        result = Network(unet, bf16=False)(z_t, t, label)
    # the adapter stores images channel by channel last, which sums in another order
    assert torch.allclose(result, plain, rtol=0, atol=1e-5)
    assert result.dtype == torch.float32


def test_bf16_is_the_same_network_in_coarser_numbers(inputs):
    unet = tiny_unet()
    with torch.no_grad():
        fine, coarse = Network(unet, bf16=False)(*inputs), Network(unet, bf16=True)(*inputs)
    assert coarse.dtype == torch.float32
    assert not torch.equal(coarse, fine)
    # bf16 keeps 8 bits: 2^-8 a layer, some ten layers deep, errors of either sign
    assert (coarse - fine).square().mean().sqrt() < 10 * 2**-8 * fine.square().mean().sqrt()


def test_class_time_and_picture_all_reach_the_answer(inputs):
    net = Network(tiny_unet(), bf16=False)
    z_t, t, label = inputs
    with torch.no_grad():
        base = net(z_t, t, label)
        for other in (net(z_t + 0.1, t, label), net(z_t, t - 1, label), net(z_t, t, (label + 1) % 4)):
            assert ((other - base).abs().flatten(1).amax(1) > 1e-5).all()


def test_two_builds_from_one_seed_are_the_same_network():
    a, b = tiny_unet(1).state_dict(), tiny_unet(1).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_deeper_network_is_built_by_layers():
    shallow, deep = (
        sum(p.numel() for p in build_unet(resolution=8, n_classes=3, channels=(16, 32), layers=k).parameters())
        for k in (1, 2)
    )
    assert deep > 1.3 * shallow


@pytest.mark.parametrize("origin", ["built", "loaded"])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_student_equals_its_teacher_before_the_first_step_for_any_w(origin, bf16, inputs, folder):
    teacher = tiny_unet() if origin == "built" else load_unet(folder)
    student = student_of(teacher)
    assert student.config.time_cond_proj_dim == 64
    with torch.no_grad():
        expected = Network(teacher, bf16=bf16)(*inputs)
        for w in (0.0, 0.3, 4.0, 14.0):
            assert torch.equal(Network(student, bf16=bf16)(*inputs, torch.full((4,), w)), expected)


def test_a_student_shares_no_memory_with_its_teacher(folder):
    teacher = load_unet(folder)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    with torch.no_grad():
        for p in student_of(teacher).parameters():
            p.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_a_gradient_reaches_the_layer_of_w(inputs, folder):
    student = student_of(load_unet(folder))
    net = Network(student, bf16=False)
    net(*inputs, torch.full((4,), 2.0)).square().mean().backward()
    assert student.time_embedding.cond_proj.weight.grad.abs().max() > 0
    # the state of a training holds the moments of every weight: each must have a gradient
    assert all(p.grad is not None for p in student.parameters())


def test_after_training_the_layer_of_w_its_answers_differ_with_w(inputs, folder):
    student = student_of(load_unet(folder))
    with torch.no_grad():
        student.time_embedding.cond_proj.weight.normal_(std=0.1)
        net = Network(student, bf16=False)
        z_t, t, label = inputs
        low, high = (denoise_student(net, label, torch.full((4,), w))(z_t, t) for w in (1.0, 3.0))
    assert ((low - high).abs().flatten(1).amax(1) > 1e-3).all()


def test_each_sample_of_a_batch_gets_its_own_w(inputs, folder):
    student = student_of(load_unet(folder))
    with torch.no_grad():
        student.time_embedding.cond_proj.weight.normal_(std=0.1)
        net = Network(student, bf16=False)
        w = torch.tensor([0.0, 1.0, 2.0, 4.0])
        mixed = net(*inputs, w)
        for i, strength in enumerate(w):
            single = net(*inputs, torch.full((4,), strength))[i]
            assert torch.equal(mixed[i], single)


def test_a_copy_of_a_student_keeps_what_it_learned_about_w(inputs, folder):
    student = student_of(load_unet(folder))
    with torch.no_grad():
        student.time_embedding.cond_proj.weight.normal_(std=0.1)
        again = student_of(student)
        w = torch.tensor([0.0, 1.0, 2.0, 4.0])
        assert torch.equal(Network(again, bf16=False)(*inputs, w), Network(student, bf16=False)(*inputs, w))


def test_a_network_that_takes_no_w_refuses_one(inputs):
    # else a student without the layer of w would train, sample and be measured as if it had it
    net = Network(tiny_unet(), bf16=False)
    with pytest.raises(ValueError, match="w"):
        net(*inputs, torch.full((4,), 2.0))


def test_a_saved_network_comes_back(inputs, folder):
    with torch.no_grad():
        expected = Network(tiny_unet(), bf16=False)(*inputs)
        assert torch.equal(Network(load_unet(folder), bf16=False)(*inputs), expected)


def test_a_network_saved_in_half_precision_works_in_float32(folder):
    tiny_unet().half().save_pretrained(folder)
    loaded = load_unet(folder).state_dict()
    assert {value.dtype for value in loaded.values()} == {torch.float32}
    for name, value in tiny_unet().state_dict().items():
        assert torch.equal(loaded[name], value.half().float())


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def spoil(folder, case):
    if case == "missing folder":
        shutil.rmtree(folder)
    elif case == "missing weights":
        (folder / WEIGHTS).unlink()
    elif case == "truncated weights":
        data = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(data[: len(data) // 2])
    elif case == "truncated config":
        (folder / "config.json").write_text('{"_class_name": ')
    elif case == "other width":
        edit_config(folder, block_out_channels=[16, 48])
    elif case == "other depth":
        edit_config(folder, layers_per_block=2)
    elif case == "a layer without weights":  # a student's config beside a teacher's weights
        edit_config(folder, time_cond_proj_dim=64)
    elif case == "weights without a layer":
        student_of(load_unet(folder)).save_pretrained(folder)
        edit_config(folder, time_cond_proj_dim=None)


@pytest.mark.parametrize(
    "case",
    [
        "missing folder", "missing weights", "truncated weights", "truncated config", "other width", "other depth",
        "a layer without weights", "weights without a layer",
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_used_ends_in_a_sentence_that_names_it(case, folder):
    spoil(folder, case)
    with pytest.raises(ValueError, match=rf"no usable network in {folder}.*retrain"):
        load_unet(folder)
