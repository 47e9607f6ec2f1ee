"""Losses: the contract they share, their gradients, and the halving target in closed form."""

import pytest
import torch
from closed_forms import Gaussian

from distill_lib.diffusion.errors import mean_square, truncated_snr, v_loss
from distill_lib.diffusion.samplers import ddim_step, sample
from distill_lib.diffusion.schedules import OURS, add_noise, log_snr, v_from, x_from_v
from distill_lib.guided import halving
from distill_lib.guided.halving import halving_loss, halving_target
from distill_lib.guided.stage_one import relative_error, stage_one_loss

B, D = 6, (2, 3)
HALF = torch.tensor(0.5)
T = torch.tensor([16, 100, 400, 700, 1000, 1024])


def normal(dtype=torch.float64):
    return torch.randn(B, *D, dtype=dtype)


def call(name, dtype):
    """Each public loss on random tensors of a type; the prediction requires a gradient."""
    a, b, c = normal(dtype), normal(dtype), normal(dtype).requires_grad_()
    calls = {
        "v_loss": lambda: v_loss(lambda z, t, label: c * z, a, b, T, torch.zeros(B, dtype=torch.long)),
        "stage_one_loss": lambda: stage_one_loss(c, b, a, HALF),
        "halving_loss": lambda: halving_loss(lambda z, t: c * z, a, b, T),
        "mean_square": lambda: mean_square(c),
    }
    return calls[name]()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["v_loss", "stage_one_loss", "halving_loss", "mean_square"])
def test_a_loss_is_one_value_a_sample_of_the_same_type(name, dtype):
    loss = call(name, dtype)
    assert loss.shape == (B,)
    assert loss.dtype == dtype
    assert loss.requires_grad and (loss >= 0).all()


def test_losses_leave_the_global_generator_alone():
    a, b = normal(), normal()
    before = torch.get_rng_state()
    stage_one_loss(a, b, -b, HALF)
    relative_error(a, b, -b)
    v_loss(lambda z, t, label: z, a, b, T, None)
    halving_loss(lambda z, t: z, halving_target(lambda z, t: z, a, T, T - 8, T - 16), b, T)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["v_loss", "stage_one_loss", "halving_loss"])
def test_a_sample_does_not_feel_its_neighbours(name):
    c = normal().requires_grad_()
    a, b = normal(), normal()
    loss = {
        "v_loss": lambda: v_loss(lambda z, t, label: c * z, a, b, T, None),
        "stage_one_loss": lambda: stage_one_loss(c, b, a, HALF),
        "halving_loss": lambda: halving_loss(lambda z, t: c * z, a, b, T),
    }[name]()
    gradient = torch.autograd.grad(loss[2], c)[0]
    assert gradient[2].abs().min() > 0
    assert gradient[[0, 1, 3, 4, 5]].abs().max() == 0


# ------------------------------------------------------------------------------------------------ denoising


def test_v_loss_has_the_gradient_of_its_formula():
    x, eps, label = normal(), normal(), torch.arange(B)
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    calls = []

    def net(z_t, t, label):
        calls.append((t, label))
        return theta * z_t

    loss = v_loss(net, x, eps, T, label)
    (gradient,) = torch.autograd.grad(loss.sum(), theta)
    alpha, sigma = OURS(T, x)
    z_t, v = alpha * x + sigma * eps, alpha * eps - sigma * x
    assert torch.allclose(loss, (v - theta * z_t).square().mean((1, 2)), rtol=1e-13)
    # d/d theta of mean (v - theta z)^2 = -2 mean (v - theta z) z
    assert gradient.item() == pytest.approx((-2 * (v - theta * z_t) * z_t).mean((1, 2)).sum().item(), rel=1e-12)
    assert len(calls) == 1 and calls[0][0] is T and calls[0][1] is label


def test_v_loss_is_zero_for_the_truth_and_the_x_error_weighted_by_snr_plus_1():
    x, eps, wrong = normal(), normal(), normal()
    assert v_loss(lambda z, t, label: v_from(x, eps, t), x, eps, T, None).max() < 1e-28
    loss = v_loss(lambda z, t, label: wrong, x, eps, T, None)
    z_t = add_noise(x, eps, T)
    x_error = mean_square(x_from_v(z_t, wrong, T) - x)
    # formula (2) of the module; at alpha = 0 it is 1
    assert torch.allclose(loss, (log_snr(T).exp() + 1) * x_error, rtol=1e-9)


def test_the_exact_denoiser_is_where_v_loss_is_least():
    # E[v | z] minimises it: moving away by d adds d^2; the loss is the posterior variance of v at best
    n = 200_000
    x, eps = 0.3 + 0.5 * torch.randn(n, 1, dtype=torch.float64), torch.randn(n, 1, dtype=torch.float64)
    t = torch.full((n,), 400)
    exact = Gaussian(0.3, 0.5)
    losses = [v_loss(lambda z, t, label, d=d: exact(z, t) + d, x, eps, t, None).mean() for d in (-0.1, 0.0, 0.1)]
    alpha, sigma = (c.item() for c in OURS(t[:1], x[:1]))
    least = 0.25 / (alpha**2 * 0.25 + sigma**2)  # Var(v | z) = std^2 / V, as alpha^2 + sigma^2 = 1
    # 5 sd of the mean of n squares of a normal: 5 sqrt(2 / n)
    assert losses[1].item() == pytest.approx(least, rel=5 * (2 / n) ** 0.5)
    assert losses[0] > losses[1] + 0.008 and losses[2] > losses[1] + 0.008  # 0.01 less 4 sd of the cross term


def test_truncated_snr_is_the_larger_of_snr_and_1_up_to_its_bound():
    t = torch.tensor([1024, 900, 512, 400, 256, 100, 1, 0])
    weight = truncated_snr(t)
    snr = (OURS.alpha[t] ** 2 / (1 - OURS.alpha[t] ** 2)).float()
    assert weight.dtype == torch.float32
    assert torch.allclose(weight, snr.clamp(1, 100), rtol=1e-6)
    assert weight[:2].tolist() == [1, 1] and weight[-2:].tolist() == [100, 100]
    assert truncated_snr(t, clamp=10.0).max() == 10


# ------------------------------------------------------------------------------------------------ stage one


def test_stage_one_loss_is_zero_at_the_target_and_nowhere_else():
    cond, target = normal(), normal()
    assert torch.equal(stage_one_loss(target, cond, target, HALF), torch.zeros(B, dtype=torch.float64))
    assert (stage_one_loss(target + 0.1, cond, target, HALF) > 0).all()


def test_stage_one_loss_has_the_gradient_of_its_formula():
    student, cond, target = normal().requires_grad_(), normal(), normal()
    unit = 0.1 + torch.rand(B, dtype=torch.float64)
    loss = stage_one_loss(student, cond, target, unit)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    weight = 1 / (unit[:, None, None] + (target - cond).square().mean((1, 2), keepdim=True))
    assert torch.allclose(loss, (weight * (student - target).square()).mean((1, 2)), rtol=1e-13)
    assert torch.allclose(gradient, 2 / 6 * weight * (student - target), rtol=1e-12)


def test_stage_one_loss_is_in_units_without_guidance_and_relative_with_much():
    student, cond = normal(), normal()
    error = (student - cond).square().mean((1, 2))
    # w = 0: the target is the conditional answer
    assert torch.allclose(stage_one_loss(student, cond, cond, torch.tensor(0.5)), error / 0.5, rtol=1e-13)
    far = cond + 100
    relative = (student - far).square().mean((1, 2)) / (far - cond).square().mean((1, 2))
    assert torch.allclose(stage_one_loss(student, cond, far, torch.tensor(0.5)), relative, rtol=1e-3)


def test_relative_error_is_1_for_the_conditional_answer_and_0_for_the_guided_one():
    v_cond, v_w = normal(), normal()
    assert relative_error(v_cond, v_cond, v_w).item() == 1
    assert relative_error(v_w, v_cond, v_w).item() == 0
    assert relative_error((v_cond + v_w) / 2, v_cond, v_w).item() == pytest.approx(0.25)
    assert relative_error(v_w, v_cond, v_w).ndim == 0


def test_relative_error_is_the_same_in_x_and_in_v_at_one_noise_level():
    z_t, student, v_cond, v_w = (normal() for _ in range(4))
    t = torch.full((B,), 300)
    in_x = relative_error(*(x_from_v(z_t, v, t) for v in (student, v_cond, v_w)))
    assert in_x.item() == pytest.approx(relative_error(student, v_cond, v_w).item(), rel=1e-12)


# ------------------------------------------------------------------------------------------------ halving

# wide data away from 0: targets leave [-1, 1], and every coefficient matters
TEACHER = Gaussian(0.8, 0.7)
STEPS = [(1024, 0), (1024, 512), (768, 512), (512, 0), (256, 128), (64, 0), (64, 32), (4, 2)]


def miss(target, t, s, teacher=TEACHER):
    """How far one student step t -> s with x prediction `target(...)` lands from two steps of the teacher."""
    m = (t + s) // 2
    z_t = add_noise(0.8 + 0.7 * torch.randn(200, 3, dtype=torch.float64), torch.randn(200, 3).double(), ts(t))
    x_hat = target(teacher, z_t, ts(t), ts(m), ts(s))
    z_m = ddim_step(teacher, z_t, ts(t), ts(m))
    z_s = ddim_step(teacher, z_m, ts(m), ts(s))
    alpha_t, sigma_t = OURS(ts(t), z_t)
    alpha_s, sigma_s = OURS(ts(s), z_t)
    landed = alpha_s * x_hat + sigma_s * (z_t - alpha_t * x_hat) / sigma_t
    return (landed - z_s).abs().max().item()


def ts(t):
    return torch.full((200,), t)


@pytest.mark.parametrize("t, s", STEPS)
def test_one_step_with_the_target_lands_where_two_steps_of_the_teacher_land(t, s):
    # float64; the division by alpha_s - ratio alpha_t loses 3 digits at t = 4
    assert miss(halving_target, t, s) < 1e-12


@pytest.mark.parametrize("t, s", STEPS)
def test_the_target_on_a_gaussian_is_the_closed_form(t, s):
    m = (t + s) // 2
    z_t = 2 * torch.randn(200, 3, dtype=torch.float64)
    result = halving_target(TEACHER, z_t, ts(t), ts(m), ts(s))
    alpha_t, alpha_s = OURS.alpha[t], OURS.alpha[s]
    z_s = alpha_s * 0.8 + TEACHER.shrink(t, m) * TEACHER.shrink(m, s) * (z_t - alpha_t * 0.8)
    ratio = ((1 - alpha_s**2) / (1 - alpha_t**2)).sqrt()
    # 1 - alpha^2 has lost up to 5 of its 16 digits at t = 4, on both sides in the same way
    assert torch.allclose(result, (z_s - ratio * z_t) / (alpha_s - ratio * alpha_t), rtol=0, atol=1e-9)


@pytest.mark.parametrize("t", [1024, 512, 2])
def test_a_step_to_the_clean_end_learns_the_last_prediction_of_the_teacher(t):
    z_t = torch.randn(200, 3, dtype=torch.float64)
    z_m = ddim_step(TEACHER, z_t, ts(t), ts(t // 2))
    result = halving_target(TEACHER, z_t, ts(t), ts(t // 2), ts(0))
    assert torch.allclose(result, TEACHER.x_hat(z_m, ts(t // 2)), rtol=0, atol=1e-12)


def test_the_target_asks_the_teacher_twice_at_t_and_at_m():
    calls = []

    def teacher(z_t, t):
        calls.append(t[0].item())
        return TEACHER(z_t, t)

    halving_target(teacher, torch.randn(200, 3), ts(512), ts(384), ts(256))
    assert calls == [512, 384]


def test_where_the_middle_is_the_end_the_target_is_one_step_of_the_teacher():
    z_t = torch.randn(200, 3, dtype=torch.float64)
    m, s = torch.where(torch.arange(200) < 80, 0, 256), torch.where(torch.arange(200) < 80, 0, 128)
    result = halving_target(TEACHER, z_t, ts(384), m, s)
    assert torch.allclose(result[:80], TEACHER.x_hat(z_t, ts(384))[:80], rtol=0, atol=1e-12)
    assert torch.equal(result[80:], halving_target(TEACHER, z_t, ts(384), ts(256), ts(128))[80:])


def test_no_teacher_is_asked_for_clean_data():
    def teacher(z_t, t):
        assert (t > 0).all()
        return z_t

    halving_target(teacher, torch.randn(200, 3), ts(256), ts(0), ts(0))


def test_targets_outside_the_range_of_pictures_stay_there():
    z_t = 3 * torch.randn(200, 3, dtype=torch.float64)
    assert halving_target(TEACHER, z_t, ts(512), ts(384), ts(256)).abs().max() > 1.5
    assert halving_target(TEACHER, z_t, ts(512), ts(256), ts(0)).abs().max() > 1.5


def clipping_step(denoise, z_t, t, s, schedule=OURS):
    """A planted fault: a DDIM step that clips its x prediction."""
    v_hat = denoise(z_t, t)
    x_hat = x_from_v(z_t, v_hat, t, schedule).clamp(-1, 1)
    alpha_t, sigma_t = schedule(t, z_t)
    alpha_s, sigma_s = schedule(s, z_t)
    return alpha_s * x_hat + sigma_s * (z_t - alpha_t * x_hat) / sigma_t


def present_alpha_step(denoise, z_t, t, s, schedule=OURS):
    """A planted fault: alpha of the present time in front of the x prediction."""
    v_hat = denoise(z_t, t)
    x_hat = x_from_v(z_t, v_hat, t, schedule)
    alpha_t, sigma_t = schedule(t, z_t)
    return alpha_t * x_hat + schedule(s, z_t)[1] * (z_t - alpha_t * x_hat) / sigma_t


@pytest.mark.parametrize("t, s", [(1024, 0), (1024, 512), (512, 256)])
@pytest.mark.parametrize("fault", ["swapped", "clipped target", "clipped step", "present alpha", "one step"])
def test_planted_faults_are_noticed(fault, t, s, monkeypatch):
    target = halving_target
    if fault == "swapped":

        def target(teacher, z_t, t, m, s):
            return halving_target(teacher, z_t, t, s, m)

    elif fault == "clipped target":

        def target(*inputs):
            return halving_target(*inputs).clamp(-1, 1)

    elif fault == "one step":

        def target(teacher, z_t, t, m, s):
            return teacher.x_hat(z_t, t)

    else:
        monkeypatch.setattr(halving, "ddim_step", clipping_step if "clipped" in fault else present_alpha_step)
    # the sound target misses by less than 1e-12 (above)
    assert miss(target, t, s) > 1e-3


@pytest.mark.parametrize("n", [1, 2, 8])
def test_a_student_that_answers_with_the_target_samples_as_its_teacher_with_twice_the_steps(n):
    length = 1024 // n

    def student(z_t, t):
        alpha, sigma = OURS(t, z_t)
        x_hat = halving_target(TEACHER, z_t, t, t - length // 2, t - length)
        return (alpha * z_t - x_hat) / sigma

    z_T = torch.randn(50, 3, dtype=torch.float64)
    assert torch.allclose(sample(student, z_T, n), sample(TEACHER, z_T, 2 * n), rtol=0, atol=1e-12)


def test_halving_loss_is_zero_for_the_student_that_meets_the_target():
    x_target, z_t = normal(), normal()

    def student(z_t, t):
        alpha, sigma = OURS(t, z_t)
        return (alpha * z_t - x_target) / sigma

    assert halving_loss(student, x_target, z_t, T).max() < 1e-24


def test_halving_loss_has_the_gradient_of_its_formula():
    x_target, z_t, v = normal(), normal(), normal().requires_grad_()
    loss = halving_loss(lambda z, t: v, x_target, z_t, T)
    (gradient,) = torch.autograd.grad(loss.sum(), v)
    alpha, sigma = OURS(T, z_t)
    weight = (alpha**2 / sigma**2).clamp(1, 100)
    error = alpha * z_t - sigma * v - x_target
    # weights are held in float32: 6e-8
    assert torch.allclose(loss, (weight * error.square()).mean((1, 2)), rtol=1e-6)
    assert torch.allclose(gradient, 2 / 6 * weight * error * -sigma, rtol=1e-6)


def test_no_gradient_flows_into_the_target():
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    target = halving_target(lambda z, t: weight * z, normal(), T, T - 8, T - 16)
    assert not target.requires_grad
