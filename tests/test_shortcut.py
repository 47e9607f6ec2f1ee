"""One network for all numbers of steps: what it starts as, what its targets are, what it costs, and that it learns."""

import copy
from dataclasses import replace

import pytest
import torch
from closed_forms import Gaussian, fake_network, tiny_unet
from torch import nn

from distill_lib import profiles
from distill_lib.diffusion.guidance import combine, guidance_embedding, guided_pair
from distill_lib.diffusion.mixture import Mixture, MixtureData
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.samplers import ddim_step, sample
from distill_lib.diffusion.schedules import OURS, step_counts, step_grid, v_from_x
from distill_lib.engine import replay, store
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.specs import spec_of
from distill_lib.experiments import successors
from distill_lib.guided import shortcut
from distill_lib.guided.halving import Halving, halve_steps
from distill_lib.guided.shortcut import (
    Shortcuts,
    consistent_target,
    distill_shortcut,
    distill_shortcut_once,
    draw_steps,
    finest_target,
    is_consistent,
    shortcut_loss,
)
from distill_lib.networks.adapter import Keyed, Network, denoise_pair, denoise_student
from distill_lib.networks.shortcut import denoise_shortcut, shortcut_of
from distill_lib.networks.unet import student_of
from distill_lib.worlds.pictures import Pictures

SETTINGS = TrainSettings(steps=3, batch_size=8, lr=1e-3, warmup=1, ema=0.98, bf16=False, checkpoint_seconds=0)
W = torch.tensor([0.0, 0.3, 1.0, 4.0])


def run_named(name):
    return store.Run("test", {"name": name}, normal)


def trained_student(bf16=False):
    """A student that has learned something of w."""
    unet = student_of(tiny_unet()).requires_grad_(False)
    unet.time_embedding.cond_proj.weight.normal_(std=0.1)
    return Network(unet, bf16=bf16)


def with_lengths(net):
    """A network of all lengths that has learned something of them."""
    result = shortcut_of(net)
    with torch.no_grad():
        result.module.time_embedding.cond_proj.weight[:, 64:].normal_(std=0.1)
    return result


@pytest.fixture
def inputs():
    return torch.randn(4, 12, 4, 4), torch.tensor([1, 300, 700, 1024]), torch.tensor([0, 1, 2, 3])


@pytest.fixture
def pictures():
    return Pictures(torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8), torch.arange(16) % 3, ("a", "b", "c"))


# --- the network


@pytest.mark.parametrize("bf16", [False, True])
def test_untrained_it_answers_as_what_it_is_made_of_whatever_the_length(bf16, inputs):
    start = trained_student(bf16)
    net = shortcut_of(start)
    assert net.module.config.time_cond_proj_dim == 128 and net.takes_w
    with torch.no_grad():
        for n in (1, 2, 16, 256, torch.tensor([1, 4, 64, 512])):
            assert torch.equal(net.at(n)(*inputs, W), start(*inputs, W))


def test_of_a_teacher_without_w_it_ignores_both_at_first(inputs):
    teacher = Network(tiny_unet(), bf16=False)
    with torch.no_grad():
        assert torch.equal(shortcut_of(teacher).at(4)(*inputs, W), teacher(*inputs))


def test_the_length_is_read_as_w_is_and_each_sample_has_its_own(inputs):
    net, n = with_lengths(trained_student()), torch.tensor([1, 2, 16, 256])
    assert torch.equal(net.at(n).features(W)[:, :64], guidance_embedding(W, 64))
    assert torch.equal(net.at(n).features(W)[:, 64:], guidance_embedding(torch.tensor([0.0, 1.0, 4.0, 8.0]), 64))
    with torch.no_grad():
        mixed = denoise_shortcut(net, inputs[2], W)(*inputs[:2], n)
        for i, count in enumerate(n.tolist()):
            single, other = (net.at(k)(*inputs, W)[i] for k in (count, 2 * count))
            assert torch.equal(mixed[i], single) and (single - other).abs().max() > 1e-4


def test_the_weights_of_the_length_get_a_gradient(inputs):
    net = shortcut_of(trained_student())
    net.at(4)(*inputs, W).square().mean().backward()
    assert net.module.time_embedding.cond_proj.weight.grad[:, 64:].abs().max() > 0


def test_without_a_length_or_w_it_refuses(inputs):
    net = shortcut_of(trained_student())
    with pytest.raises(ValueError, match=r"needs the length of its steps: take net\.at\(n\)"):
        net(*inputs, W)
    with pytest.raises(ValueError, match="it needs w"):
        net.at(4)(*inputs)


def test_a_copy_behind_the_adapter_keeps_the_length_and_a_key_tells_it(inputs):
    net = with_lengths(trained_student())
    with torch.no_grad():
        expected = net.at(4)(*inputs, W)
        assert torch.equal(net.at(4).exact()(*inputs, W), expected)
        assert torch.equal(net.at(4).like(copy.deepcopy(net.module))(*inputs, W), expected)
    keys = [str(spec_of(net.at(n))) for n in (4, 4, 8)]
    assert keys[0] == keys[1] != keys[2]


# --- targets and loss


def times_of(n, i, finest=256):
    """t > m > s of the i-th of n steps, for one sample each."""
    grid, length = torch.tensor(step_grid(finest)[::-1]), finest // n
    return tuple(grid[k] for k in (i * length, i * length - length // 2, (i - 1) * length))


N = torch.tensor([1, 2, 2, 4, 8, 128])
TIMES = times_of(N, torch.tensor([1, 1, 2, 3, 8, 77]))
GAUSSIAN = Gaussian(0.3, 0.5)


def of_length(z_t, t, n):
    """A smooth answer that depends on the length."""
    return fake_network(z_t, t) + 0.1 * n.log2().reshape(-1, 1)


def on_the_flow(z_t, t, n):
    """The answer whose step of length 1/n ends on the exact flow of a Gaussian, z - alpha m ~ sqrt(V)."""
    s = t - OURS.T // n
    (alpha_t, sigma_t), (alpha_s, sigma_s) = OURS(t, z_t), OURS(s, z_t)
    spread_t, spread_s = ((a**2 * 0.25 + b**2).sqrt() for a, b in ((alpha_t, sigma_t), (alpha_s, sigma_s)))
    z_s = alpha_s * 0.3 + spread_s / spread_t * (z_t - alpha_t * 0.3)
    ratio = sigma_s / sigma_t
    return v_from_x(z_t, (z_s - ratio * z_t) / (alpha_s - ratio * alpha_t), t)


def test_one_step_with_the_target_lands_where_two_of_half_the_length_land():
    z_t, (t, m, s) = torch.randn(6, 5, dtype=torch.float64), TIMES
    x_target = consistent_target(of_length, z_t, TIMES, N)

    def half(z, time):
        return of_length(z, time, 2 * N)

    two_halves = ddim_step(half, ddim_step(half, z_t, t, m), m.clamp(min=1), s)
    whole = ddim_step(lambda z, time: v_from_x(z, x_target, time), z_t, t, s)
    assert torch.allclose(whole, two_halves, rtol=0, atol=1e-12)


def test_the_exact_flow_has_nothing_to_learn_and_a_network_that_ignores_the_length_has():
    z_t, (t, _, _) = torch.randn(6, 5, dtype=torch.float64), TIMES
    exact = shortcut_loss(on_the_flow, consistent_target(on_the_flow, z_t, TIMES, N), z_t, t, N)

    def ignorant(z, time, n):
        return GAUSSIAN(z, time)

    other = shortcut_loss(ignorant, consistent_target(ignorant, z_t, TIMES, N), z_t, t, N)
    assert exact.max() < 1e-24 and (other > 1e-8).all()


def test_the_finest_target_is_the_prediction_of_the_teacher():
    z_t, t = torch.randn(6, 5, dtype=torch.float64), TIMES[0]
    assert torch.allclose(finest_target(GAUSSIAN, z_t, t), GAUSSIAN.x_hat(z_t, t), rtol=0, atol=1e-14)


def test_the_loss_is_the_weighted_error_of_x_of_each_sample():
    z_t, (t, _, _) = torch.randn(6, 5, dtype=torch.float64), TIMES
    x_hat = torch.randn_like(z_t)
    loss = shortcut_loss(lambda z, time, n: v_from_x(z, x_hat, time), x_hat + 2, z_t, t, N)
    snr = (OURS.alpha[t] ** 2 / (1 - OURS.alpha[t] ** 2)).clamp(1, 100)
    assert torch.allclose(loss, 4 * snr, rtol=1e-6)


# --- what is drawn


@pytest.mark.parametrize("share", [0.25, 0.75, 0.5])
def test_as_many_samples_as_asked_for_have_the_own_target_however_the_batch_is_shared_out(share):
    whole = is_consistent(torch.arange(32), share)
    assert whole.sum() == 32 * share
    parts = [is_consistent(torch.arange(8) + 8 * k, share) for k in range(4)]
    assert torch.equal(torch.cat(parts), whole) and all(part.sum() == 8 * share for part in parts)


def test_every_length_and_every_step_of_it_is_drawn_alike_and_lies_on_the_grid():
    count = 40_000
    consistent = torch.arange(count) % 4 == 3
    n, (t, m, s) = draw_steps(consistent, torch.rand(count), torch.rand(count), torch.tensor(step_grid(256)[::-1]))
    assert (n[~consistent] == 256).all() and torch.equal(t - s, 1024 // n)
    assert torch.equal((t - m)[consistent], 512 // n[consistent]) and t.max() == 1024 and s.min() == 0
    shares = {k: (n[consistent] == k).double().mean().item() for k in step_counts(256)}
    # eight lengths of 10,000 draws: standard error .0033
    assert all(share == pytest.approx(1 / 8, abs=0.014) for share in shares.values())
    assert (t[n == 4].unique() == torch.tensor([256, 512, 768, 1024])).all()
    halves = (t[n == 2] == 512).double().mean().item()  # some 1,250 draws: standard error .014
    assert halves == pytest.approx(0.5, abs=0.06)


def test_a_grid_that_cannot_be_halved_and_a_share_of_all_are_refused():
    for n in (1, 3, 24):
        with pytest.raises(ValueError, match=f"n_steps={n} should be a power of two"):
            Shortcuts(n, SETTINGS)
    with pytest.raises(ValueError, match=r"share=1\.0 should lie between 0 and 1"):
        Shortcuts(4, SETTINGS, share=1.0)


def test_a_batch_without_one_of_the_targets_and_a_grid_too_fine_are_refused(runs, pictures):
    teacher = trained_student()
    for plan, message in (
        (Shortcuts(4, replace(SETTINGS, batch_size=2)), r"a batch of 2 a process has no sample for one of"),
        (Shortcuts(2048, SETTINGS), "steps=2048: allowed are"),
    ):
        with pytest.raises(ValueError, match=message):
            next(distill_shortcut(shortcut_of(teacher), teacher, pictures, plan, run_named(message)))


# --- the training


class _Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2 + 2 * 32, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 2))

    def forward(self, z_t, t, n):
        time, length = guidance_embedding(t / OURS.T / 200, 32), guidance_embedding(n.log2() / 1000, 32)
        return self.body(torch.cat([z_t, time, length], 1))


class ToyShortcut:
    """A small network of all lengths for points in the plane, called as `ShortcutNetwork` is."""

    takes_w, null, schedule = True, 1, OURS

    def __init__(self, module=None):
        self.module = self.forward = module or _Perceptron()
        self.n = None

    def at(self, n):
        view = copy.copy(self)
        view.n = n
        return view

    def like(self, module):
        return ToyShortcut(module)

    def __call__(self, z_t, t, label, w):
        return self.forward(z_t, t, torch.as_tensor(self.n).expand(len(z_t)))


def test_on_a_gaussian_one_network_makes_the_steps_of_all_counts(runs):
    """With n steps it has to land where N = 4 steps of the teacher do, in closed form, from the same noise."""
    centre = torch.tensor([[0.4, -0.2]])
    teacher, data = Mixture(centre, 0.5), MixtureData(centre, 0.5)
    net, run = ToyShortcut(), run_named("gauss")
    training = replace(SETTINGS, steps=400, batch_size=128, lr=5e-3, warmup=20, checkpoint_seconds=60)
    finish(net, distill_shortcut(net, teacher, data, Shortcuts(4, training, share=0.5), run), run, "shortcut")
    z_T, label, w = torch.randn(1000, 2), torch.zeros(1000, dtype=torch.long), torch.zeros(1000)
    many = sample(denoise_student(teacher, label, w), z_T, 4)
    factor = torch.tensor([Gaussian(0.0, 0.5).shrink(t, s) for t, s in ((1024, 768), (768, 512), (512, 256), (256, 0))])
    assert torch.allclose(many, centre + factor.prod() * z_T, atol=1e-5)
    for n in (1, 2):
        ours, few = (sample(denoise_student(of_n, label, w), z_T, n) for of_n in (net.at(n), teacher))
        assert (ours - many).square().mean() < 0.05 * (few - many).square().mean()


def weights_of(net):
    return {name: value.clone() for name, value in net.module.state_dict().items()}


def test_it_changes_every_weight_of_the_network_and_none_of_the_teacher(runs, pictures):
    teacher = trained_student()
    net = shortcut_of(teacher)
    before, of_teacher = weights_of(net), weights_of(teacher)
    history = list(distill_shortcut(net, teacher, pictures, Shortcuts(4, SETTINGS), run_named("all")))
    assert [p.step for p in history] == [1, 2, 3] and all(p.loss > 0 for p in history)
    assert not [name for name, value in net.module.state_dict().items() if torch.equal(value, before[name])]
    assert all(torch.equal(value, of_teacher[name]) for name, value in teacher.module.state_dict().items())


def test_it_resumes_bit_for_bit(runs, pictures):
    teacher = trained_student()

    def training(run):
        return distill_shortcut(shortcut_of(teacher), teacher, pictures, Shortcuts(4, SETTINGS), run)

    straight, broken = run_named("straight"), run_named("broken")
    list(training(straight))
    first = training(broken)
    next(first)
    first.close()  # a kill after the first update, whose state is written
    assert broken.state()["step"] == 1
    list(training(broken))
    a, b = straight.weights(), broken.weights()
    assert all(torch.equal(a[key], b[key]) for key in a)


def recorded(function, calls):
    """The function, and what it is given."""

    def call(*given):
        calls.append(given)
        return function(*given)

    return call


def test_its_teacher_is_the_average_of_its_weights_at_every_update(runs, pictures, monkeypatch):
    calls = []
    monkeypatch.setattr(shortcut, "denoise_shortcut", recorded(denoise_shortcut, calls))
    teacher, run = trained_student(), run_named("average")
    net = shortcut_of(teacher)
    list(distill_shortcut(net, teacher, pictures, Shortcuts(4, SETTINGS), run))
    assert len(calls) == 6  # of each update the teacher and the network that learns
    average, learner = calls[4][0], calls[5][0]
    assert learner is net and len({id(given[0]) for given in calls[::2]}) == 1
    kept = run.weights()
    assert all(torch.equal(value, kept[name]) for name, value in average.module.state_dict().items())
    assert not any(torch.equal(value, kept[name]) for name, value in net.module.state_dict().items())
    assert not any(p.requires_grad for p in average.module.parameters())


def test_the_finest_step_is_learned_of_the_guided_pair_with_each_samples_own_w(runs, pictures, monkeypatch):
    calls, targets = [], []
    monkeypatch.setattr(shortcut, "denoise_pair", recorded(denoise_pair, calls))
    monkeypatch.setattr(shortcut, "finest_target", recorded(finest_target, targets))
    pair = Network(tiny_unet().requires_grad_(False), bf16=False)
    next(distill_shortcut(shortcut_of(pair), pair, pictures, Shortcuts(4, SETTINGS), run_named("pair")))
    ((_, label, w),), ((known, z_t, t, _),) = calls, targets
    assert len(w.unique()) == len(z_t) == 6 and (w >= 0).all() and (w <= 4).all()
    assert torch.equal(known(z_t, t), combine(*guided_pair(pair, z_t, t, label, pair.null), w))


def test_a_finished_one_is_found_again_and_another_mixture_is_another(runs, pictures):
    first = Keyed(trained_student(), "parent")
    plan = Shortcuts(4, replace(SETTINGS, steps=1))
    a, b = (distill_shortcut_once(first, pictures, plan) for _ in range(2))
    other = distill_shortcut_once(first, pictures, replace(plan, share=0.75))
    assert a.key == b.key != other.key and a.key.startswith("shortcut-4-")
    assert all(torch.equal(p, q) for p, q in zip(a.net.module.parameters(), b.net.module.parameters(), strict=True))


# --- what it costs


def counted(net, calls):
    """Count the samples that a network is evaluated for."""
    net.module.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    return net


@pytest.mark.parametrize(("steps", "reuse"), [(5, 1), (9, 2), (12, 3)])
def test_a_halving_costs_what_its_networks_are_evaluated_for(steps, reuse, runs, pictures, monkeypatch):
    monkeypatch.setattr(replay, "BANK", 2)
    of_student, of_teacher = [], []
    student, teacher = counted(Network(student_of(tiny_unet())), of_student), counted(trained_student(), of_teacher)
    halving = Halving(4, replace(SETTINGS, steps=steps), reuse=reuse)
    list(halve_steps(student, teacher, pictures, halving, run_named("cost")))
    assert successors.halving_evaluations(halving) == 3 * sum(of_student) + sum(of_teacher)


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_one_network_costs_what_it_and_its_teachers_are_evaluated_for(share, runs, pictures, monkeypatch):
    of_student, of_teacher, of_average = [], [], []
    average_of = shortcut._average_of
    monkeypatch.setattr(shortcut, "_average_of", lambda *given: counted(average_of(*given), of_average))
    teacher = trained_student()
    net = shortcut_of(teacher)
    training = distill_shortcut(
        net, counted(teacher, of_teacher), pictures, Shortcuts(4, SETTINGS, share=share), run_named("cost")
    )
    next(training)  # the average is a copy of the network, made before it is counted
    counted(net, of_student)
    next(training)
    evaluations = 3 * sum(of_student) + (sum(of_average) + sum(of_teacher)) / 2
    assert evaluations == 8 * successors.shortcut_evaluations(share)


@pytest.mark.parametrize("name", [name for name in profiles.names() if name != "paper"])
def test_as_many_updates_as_the_chain_of_halvings_pays_for(name):
    settings = profiles.load(name)
    chain = successors.chain_of(settings, 0)
    cost = sum(map(successors.halving_evaluations, chain))
    for share in successors.MIXTURES.values():
        plan = successors.shortcuts_of(settings, share, 0)
        each = plan.settings.batch_size * successors.shortcut_evaluations(share)
        assert cost - each < plan.settings.steps * each <= cost
        assert plan.settings == replace(
            chain[0].settings, steps=plan.settings.steps, seed=plan.settings.seed, snapshots=0
        )
        assert plan.n_steps == settings.halving_start and plan.settings.seed not in {h.settings.seed for h in chain}


def test_a_chain_that_pays_for_no_update_is_refused():
    with pytest.raises(ValueError, match="pays for no update of batch_size=4096"):
        successors.equal_updates([Halving(1, SETTINGS)], 4096, 0.25)
