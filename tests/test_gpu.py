"""Every sampler, loss and method on a GPU that need not be there.

Fake tensors carry shapes, types and devices, no numbers, and raise where a CPU and a cuda tensor meet in one operation.
Backward does not work under them, so the loop of a method is replaced by one that only takes the loss.
"""

import pytest
import torch
from closed_forms import tiny_unet
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError

from distill_lib.diffusion import noise, pixels
from distill_lib.diffusion.errors import truncated_snr, v_loss
from distill_lib.diffusion.guidance import combine, guidance_embedding, guided_pair
from distill_lib.diffusion.noise import Draws
from distill_lib.diffusion.samplers import ddim_step, encode, sample, trajectory
from distill_lib.diffusion.schedules import OURS, add_noise, eps_from_v, log_snr, v_from, x_from_v
from distill_lib.engine.loop import TrainSettings
from distill_lib.experiments.ablations import FoldedPair
from distill_lib.guided import encoder, halving, stage_one
from distill_lib.guided.encoder import encoding_loss, encoding_target
from distill_lib.guided.halving import halving_loss, halving_target
from distill_lib.guided.stage_one import relative_error, stage_one_loss
from distill_lib.measure.draw import classes, sample_pictures
from distill_lib.measure.readers.extractor import Extractor, extractor_loss
from distill_lib.measure.readers.geometry import Geometry, geometry_loss
from distill_lib.networks.adapter import Network, denoise_pair, denoise_student
from distill_lib.networks.unet import student_of
from distill_lib.teachers import denoising, heads
from distill_lib.teachers.heads import HEADS, WEIGHTINGS, denoise_by_head, head_loss
from distill_lib.worlds.pictures import Pictures

B = 4
pytestmark = pytest.mark.filterwarnings("ignore:.*CUDA is not available.*:UserWarning")


def networks():
    """(teacher, student, its own teacher), real, on the CPU; `.module.to("cuda")` inside the mode makes them fake."""
    unet = tiny_unet().requires_grad_(False)
    return Network(unet), Network(student_of(unet)), Network(student_of(unet))


@pytest.fixture
def cuda(monkeypatch):
    """A world in which tensors are fake. What was made before it counts as lying on the CPU: constants and networks."""
    monkeypatch.setattr(pixels, "finite", lambda result, name: result)  # a fake tensor has no numbers to look at
    nets = networks()
    image = torch.zeros(8, 3, 8, 8, dtype=torch.uint8)
    pictures = Pictures(image, torch.arange(8) % 3, ("a", "b", "c"))
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield nets, pictures


def inputs():
    z_t, t = torch.randn(B, 12, 4, 4, device="cuda"), torch.randint(1, 1025, (B,), device="cuda")
    return z_t, t, torch.zeros(B, dtype=torch.long, device="cuda"), torch.ones(B, device="cuda")


def on_cuda(*tensors, shape=None):
    return all(a.device.type == "cuda" and (shape is None or a.shape == shape) for a in tensors)


def test_the_check_raises_where_devices_mix(cuda):
    net = cuda[0][0]
    z_t, t, label, _ = inputs()
    with pytest.raises(FakeTensorDeviceMismatchError):
        net(z_t, t, label)  # a network that was left on the CPU
    net.module.to("cuda")
    for wrong in ((z_t, t.cpu(), label), (z_t, t, label.cpu())):
        with pytest.raises(FakeTensorDeviceMismatchError):
            net(*wrong)


def test_noise_is_drawn_where_its_index_lies(cuda):
    index = torch.arange(B, device="cuda")
    assert on_cuda(noise.normal(0, "eps", 0, index, (3, 2)), shape=(B, 3, 2))
    assert on_cuda(noise.uniform(0, "t", 0, index, 3), shape=(B, 3))
    draws = Draws(0, 0, index)
    assert on_cuda(draws.normal("a", (2,)), draws.uniform("b"), draws.integer("c", 9))


def test_the_schedule_follows_its_times(cuda):
    z_t, t, _, _ = inputs()
    for convert in (add_noise, v_from, x_from_v, eps_from_v):
        assert on_cuda(convert(z_t, z_t, t), shape=z_t.shape)
    assert on_cuda(*OURS(t, z_t), log_snr(t), truncated_snr(t))


def test_guidance_stays_on_its_device(cuda):
    net = cuda[0][0]
    net.module.to("cuda")
    z_t, t, label, w = inputs()
    pair = guided_pair(net, z_t, t, label, net.null)
    assert on_cuda(*pair, combine(*pair, w), shape=z_t.shape)
    assert on_cuda(guidance_embedding(w, 64), shape=(B, 64))


def test_networks_and_samplers_run(cuda):
    teacher, student, _ = cuda[0]
    z_t, t, label, w = inputs()
    teacher.module.to("cuda"), student.module.to("cuda")
    pair, conditional, item = (
        denoise_pair(teacher, label, 2.0),
        denoise_pair(teacher, label, 0.0),
        denoise_student(student, label, w),
    )
    assert on_cuda(pair(z_t, t), conditional(z_t, t), item(z_t, t), shape=z_t.shape)
    for denoise in (item, lambda z, t: z * t[:, None, None, None]):  # the second shows the sampler's own tensors
        assert on_cuda(ddim_step(denoise, z_t, t, t - 1), ddim_step(denoise, z_t, t - 1, t), shape=z_t.shape)
        assert on_cuda(sample(denoise, z_t, 2), *trajectory(denoise, z_t, [0, 1024]), shape=z_t.shape)


def test_pictures_are_sampled_with_networks_that_training_left_on_the_gpu(cuda):
    for net in cuda[0][:2]:
        net.module.to("cuda")
        image = sample_pictures(net, 2, 2.0, classes(3, net.null))
        assert image.shape == (3, 3, 8, 8) and image.dtype == torch.uint8


def test_losses_run(cuda):
    teacher, student, _ = cuda[0]
    teacher.module.to("cuda"), student.module.to("cuda")
    z_t, t, label, w = inputs()
    denoise = denoise_student(student, label, w)
    target = halving_target(denoise, z_t, t, t // 2, torch.zeros_like(t))
    assert on_cuda(target, shape=z_t.shape)
    assert on_cuda(halving_loss(denoise, target, z_t, t), shape=(B,))
    assert on_cuda(v_loss(teacher, z_t, z_t, t, label), shape=(B,))
    assert on_cuda(stage_one_loss(z_t, z_t, z_t, torch.ones_like(w)), shape=(B,))
    assert on_cuda(relative_error(z_t, z_t, z_t), shape=())


def test_encoders_heads_and_a_folded_pair_run(cuda):
    teacher, student, _ = cuda[0]
    teacher.module.to("cuda"), student.module.to("cuda")
    z_t, t, label, w = inputs()
    denoise = denoise_student(student, label, w)
    assert on_cuda(encode(denoise, z_t, 2), shape=z_t.shape)
    v_target = encoding_target(denoise, z_t, [t // 2, t])
    assert on_cuda(v_target, shape=z_t.shape)
    assert on_cuda(encoding_loss(denoise, v_target, z_t, t // 2), shape=(B,))
    for head in HEADS:
        answer = torch.cat([z_t, z_t], 1) if head == "(x, eps)" else z_t
        for weighting in WEIGHTINGS:
            loss = head_loss(lambda *_, answer=answer: answer, head, weighting, z_t, z_t, t, label)
            assert on_cuda(loss, shape=(B,))
        assert on_cuda(denoise_by_head(lambda *_, answer=answer: answer, head, label)(z_t, t), shape=z_t.shape)
    assert on_cuda(FoldedPair(teacher)(z_t, t, label, w), shape=z_t.shape)


def test_the_extractor_and_its_loss_run(cuda):
    with torch.device("cuda"):
        net = Extractor(4, 3, width=8)
        image, label, values = torch.zeros(B, 3, 64, 64), torch.zeros(B, dtype=torch.long), torch.zeros(B, 3)
    _, logits, read = net(image)
    assert on_cuda(extractor_loss(logits, read, label, values, values), shape=(B,))
    with torch.device("cuda"):
        mask, depth = Geometry(8)(torch.zeros(B, 3, 32, 32))
    assert on_cuda(geometry_loss(mask, depth, torch.zeros_like(mask), depth), shape=(B,))


class OneStep:
    """Stands for `loop.Loop` on a machine with a GPU: it moves what `Loop` moves, and takes one loss."""

    device, share, precision = torch.device("cuda"), B, "fp32"

    def __init__(self, net, settings, run):
        net.module.to(self.device)

    def __iter__(self):
        yield 0, Draws(0, 0, torch.arange(B, device=self.device))

    def place(self, net):
        net.module.to(self.device)

    def update(self, loss):
        return loss


@pytest.mark.parametrize("name", ["teacher", "stage one", "halving", "encoder", "heads"])
def test_methods_run_whatever_device_the_teacher_was_loaded_on(name, cuda, monkeypatch):
    (guide, student, student_of_more_steps), pictures = cuda
    for module in (denoising, stage_one, halving, encoder, heads):
        monkeypatch.setattr(module, "Loop", OneStep)
    settings = TrainSettings(steps=1, batch_size=B, lr=1e-3)
    if name == "teacher":
        training = denoising.train_teacher(guide, pictures, settings, None)
    elif name == "stage one":
        training = stage_one.distill_guidance(student, guide, pictures, settings, None)
    elif name == "encoder":
        training = encoder.halve_encoder(student, guide, (8, 4), pictures, settings, None)
    elif name == "heads":
        training = heads.train_head(guide, "eps", "SNR", pictures, settings, None)
    else:
        training = halving.halve_steps(student, student_of_more_steps, pictures, halving.Halving(4, settings), None)
    (loss,) = training
    assert on_cuda(loss, shape=(B,))
