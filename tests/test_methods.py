"""Methods: on data with a closed form they learn what they claim to; on pictures they run, and leave the teacher alone.

Trainings are cut to what shows the effect: a few hundred steps of a small perceptron.
"""

import copy

import pytest
import torch
from closed_forms import tiny_unet

from distill_lib.diffusion.guidance import combine, guided_pair
from distill_lib.diffusion.mixture import Mixture, MixtureData, ToyNetwork, ring
from distill_lib.diffusion.noise import Draws, normal
from distill_lib.diffusion.samplers import ddim_step, sample
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise
from distill_lib.engine import replay, store
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.guided.halving import Halving, halve_down, halve_once, halve_steps, halve_stochastic
from distill_lib.guided.stage_one import distill_guidance, guidance_size, relative_error
from distill_lib.networks.adapter import Keyed, Network, denoise_student
from distill_lib.networks.unet import student_of
from distill_lib.teachers.denoising import train_teacher
from distill_lib.worlds.pictures import Pictures

CENTRES, STD = ring(5), 0.5  # classes that overlap: guidance matters at every noise level
TEACHER, DATA = Mixture(CENTRES, STD), MixtureData(CENTRES, STD)


def settings(**changes):
    return TrainSettings(**{"steps": 300, "batch_size": 256, "lr": 5e-3, "warmup": 20, "ema": 0.98} | changes)


def run_named(name):
    return store.Run("test", {"name": name}, normal)


def toy(n_classes=5, seed=0):
    torch.manual_seed(seed)
    return ToyNetwork(n_classes, width=96)


def noised(data, n=2000):
    """z_t, t and classes of n samples at all noise levels."""
    x, label = data.batch(torch.arange(n))
    t = torch.randint(1, 1025, (n,))
    return add_noise(x, torch.randn(n, 2), t), t, label


def guidance_error(student, w):
    """Relative error of stage one at one strength: 1 for a student that ignores guidance."""
    z_t, t, label = noised(DATA)
    w = torch.full((len(t),), w)
    with torch.no_grad():
        v_cond, v_uncond = guided_pair(TEACHER, z_t, t, label, TEACHER.null)
        return relative_error(student(z_t, t, label, w), v_cond, combine(v_cond, v_uncond, w)).item()


def weights_of(net):
    return {name: value.clone() for name, value in net.module.state_dict().items()}


def changed(net, before):
    return [name for name, value in net.module.state_dict().items() if not torch.equal(value, before[name])]


def test_the_toy_teacher_is_the_minimum_that_training_heads_for(runs):
    net, run = toy(), run_named("teacher")
    finish(net, train_teacher(net, DATA, settings(), run), run, "teacher")
    z_t, t, label = noised(DATA)
    with torch.no_grad():
        # with a class: the answers vary by about 0.5; without, the posterior mixes the classes
        assert (net(z_t, t, label) - TEACHER(z_t, t, label)).square().mean() < 0.05
        null = torch.full_like(label, net.null)
        error = (net(z_t, t, null) - TEACHER(z_t, t, null)).square().mean()
        wrong = (net(z_t, t, null) - TEACHER(z_t, t, label)).square().mean()
    assert error < 0.12 and error < wrong / 2  # it has learned "no condition" apart from the classes


def test_dropping_every_class_leaves_the_classes_untrained(runs):
    net = toy()
    before = weights_of(net)
    list(train_teacher(net, DATA, settings(steps=5), run_named("all dropped"), drop=1.0))
    moved = (net.module.label.weight - before["label.weight"]).abs().amax(1)
    # weight decay moves an unused row by lr * 1e-4 of itself a step; a gradient by about lr
    assert moved[:5].max() < 1e-4 < 1e-3 < moved[5]


def test_stage_one_learns_guidance_over_the_range_of_strengths(runs):
    net, run = toy(), run_named("stage one")
    finish(net, distill_guidance(net, TEACHER, DATA, settings(steps=800), run), run, "stage one")
    # 1 would be a student that ignores guidance
    for w, most in ((1.0, 0.15), (2.0, 0.15), (4.0, 0.3)):
        assert guidance_error(net, w) < most
    z_t, t, label = noised(DATA)
    with torch.no_grad():
        v_cond, v_uncond = guided_pair(TEACHER, z_t, t, label, TEACHER.null)
        v_1 = combine(v_cond, v_uncond, torch.ones(len(t)))
        values = {w: relative_error(net(z_t, t, label, torch.full((len(t),), w)), v_cond, v_1) for w in (0.0, 1.0, 4.0)}
    # told another strength it answers for that: (w - 1)^2, were it perfect
    assert values[1.0] < 0.15 and values[0.0] > 0.5 and values[4.0] > 1


def test_where_guidance_adds_nothing_the_loss_stays_an_error(runs):
    """Classes that do not overlap: near the data guidance is 0, and a loss relative to it would be all that counts."""
    teacher, data = Mixture(ring(5), 0.1), MixtureData(ring(5), 0.1)
    assert guidance_size(teacher, data, Draws(0, -1, torch.arange(1600)), levels=16).min() < 1e-9
    net, run = toy(), run_named("apart")
    history = list(distill_guidance(net, teacher, data, settings(steps=200), run))
    assert history[0].loss < 100 and history[-1].loss < 0.5 * history[0].loss


def test_the_size_of_guidance_is_its_mean_square_at_each_level():
    sizes = guidance_size(TEACHER, DATA, Draws(0, -1, torch.arange(8000)), levels=4)
    x, label = DATA.batch(torch.arange(4000))
    for level in range(4):
        t = 1 + 256 * level + torch.randint(0, 256, (4000,))
        z_t = add_noise(x, torch.randn(4000, 2), t)
        error = TEACHER(z_t, t, label) - TEACHER(z_t, t, torch.full_like(label, 5))
        # two independent means of 2000 and 4000; a square of relative spread below 2
        assert sizes[level].item() == pytest.approx(error.square().mean().item(), rel=0.25)


def test_a_batch_that_the_strengths_do_not_share_is_refused(runs):
    training = distill_guidance(toy(), TEACHER, DATA, settings(batch_size=10), run_named("odd"), strengths=4)
    with pytest.raises(ValueError, match=r"batch of 10 .*strengths=4"):
        next(training)


def test_strengths_of_one_picture_share_its_noise_and_its_teacher_pair(runs):
    calls = []

    class Recorder(Mixture):
        def __call__(self, z_t, t, label, w=None):
            calls.append((z_t, label))
            return super().__call__(z_t, t, label)

    student, seen = toy(), []
    student.module.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0], inputs[3])))
    train_settings = settings(steps=2, batch_size=8)
    next(distill_guidance(student, Recorder(CENTRES, STD), DATA, train_settings, run_named("shared")))
    (z_pair, label_pair), (z, w) = calls[-1], seen[0]  # before, the size of guidance was measured
    assert len(z) == 8 and len(z_pair) == 8  # 4 pictures, each twice: with its class and without
    assert torch.equal(z, z_pair[:4].repeat_interleave(2, 0))
    assert label_pair[4:].tolist() == [5] * 4
    assert len(w.unique()) == 8 and (w >= 0).all() and (w <= 4).all()


def test_halving_a_gaussian_teacher_reaches_its_two_steps_in_one(runs):
    centre = torch.tensor([[0.4, -0.2]])
    teacher, data = Mixture(centre, 0.5), MixtureData(centre, 0.5)
    net, run = toy(n_classes=1), run_named("gauss")
    finish(net, halve_steps(net, teacher, data, Halving(1, settings(lr=3e-3)), run), run, "halving")
    z_T, label, w = torch.randn(1000, 2), torch.zeros(1000, dtype=torch.long), torch.zeros(1000)
    ours = sample(denoise_student(net, label, w), z_T, 1)
    two, one_step_z = (sample(denoise_student(teacher, label, w), z_T, n) for n in (2, 1))
    # the closed form: one DDIM step gives the mean, two give 0.2 z_T (std 0.2 of the true 0.5)
    assert torch.allclose(two, centre + 0.2 * z_T, atol=1e-5)
    assert torch.allclose(one_step_z, centre.expand_as(one_step_z), atol=1e-5)
    assert (ours - two).square().mean() < 0.02 * (one_step_z - two).square().mean()


def test_halving_keeps_guidance_that_the_teacher_has_folded_in(runs):
    """The teacher answers for every w; the one-step student must land where its two steps do, for each w."""

    class GuidanceInside:
        null, takes_w, schedule = TEACHER.null, True, TEACHER.schedule

        def __call__(self, z_t, t, label, w):
            return combine(*guided_pair(TEACHER, z_t, t, label, TEACHER.null), w)

    net, run = toy(), run_named("folded")
    finish(net, halve_steps(net, GuidanceInside(), DATA, Halving(1, settings(steps=800)), run), run, "halving")
    z_T, label = torch.randn(1000, 2), torch.arange(1000) % 5
    result = {}
    for w in (0.0, 2.0, 4.0):
        strength = torch.full((1000,), w)
        result[w] = sample(denoise_student(net, label, strength), z_T, 1)
        two, one_step_z = (sample(denoise_student(GuidanceInside(), label, strength), z_T, n) for n in (2, 1))
        # a copy of the teacher would make `one`. Of its error 0.11 is left at w = 0, where it is smallest, else 0.01
        assert (result[w] - two).square().mean() < 0.25 * (one_step_z - two).square().mean()
    assert (result[4.0] - result[0.0]).square().mean() > 0.05


@pytest.fixture
def pictures():
    image = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    return Pictures(image, torch.arange(16) % 3, ("a", "b", "c"))


def picture_method(name, student, teacher, pictures, run):
    train_settings = settings(steps=3, batch_size=4, warmup=1, lr=1e-3, bf16=False, checkpoint_seconds=0)
    if name == "teacher":
        return train_teacher(student, pictures, train_settings, run)
    if name == "stage one":
        return distill_guidance(student, teacher, pictures, train_settings, run)
    return halve_steps(student, teacher, pictures, Halving(4, train_settings), run)


@pytest.mark.parametrize("name", ["teacher", "stage one", "halving"])
def test_a_method_changes_every_weight_of_the_student_and_none_of_the_teacher(name, runs, pictures):
    unet = tiny_unet()
    teacher = Network(student_of(unet) if name == "halving" else unet, bf16=False)
    teacher.module.requires_grad_(False)
    student = Network(tiny_unet(1) if name == "teacher" else student_of(teacher.module), bf16=False)
    before, of_teacher = weights_of(student), weights_of(teacher)
    history = list(picture_method(name, student, teacher, pictures, run_named(name)))
    assert [p.step for p in history] == [1, 2, 3] and all(p.loss > 0 for p in history)
    assert changed(student, before) == list(before)
    assert changed(teacher, of_teacher) == []
    assert all(p.grad is None for p in teacher.module.parameters())


@pytest.mark.parametrize("name", ["teacher", "stage one", "halving"])
def test_a_method_on_pictures_resumes_bit_for_bit(name, runs, pictures):
    unet = tiny_unet()
    teacher = Network(student_of(unet) if name == "halving" else unet, bf16=False)
    teacher.module.requires_grad_(False)
    start = tiny_unet(1) if name == "teacher" else student_of(teacher.module)

    def fresh():
        return Network(copy.deepcopy(start), bf16=False)

    straight, broken = run_named(f"{name} straight"), run_named(f"{name} broken")
    list(picture_method(name, fresh(), teacher, pictures, straight))
    training = picture_method(name, fresh(), teacher, pictures, broken)
    next(training)
    training.close()  # a kill after the first step, whose checkpoint is written
    assert broken.state()["step"] == 1
    list(picture_method(name, fresh(), teacher, pictures, broken))
    a, b = straight.weights(), broken.weights()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_stochastic_student_learns_two_steps_of_the_fine_grid_in_one(runs):
    """N = 2 on one Gaussian: 1 -> 0 as two steps of the teacher would go, 1/2 -> 0 as one would."""
    centre = torch.tensor([[0.4, -0.2]])
    teacher, data = Mixture(centre, 0.5), MixtureData(centre, 0.5)
    net, run = toy(n_classes=1), run_named("stochastic")
    training = halve_stochastic(net, teacher, data, Halving(2, settings(lr=3e-3, steps=500)), run)
    finish(net, training, run, "stochastic")
    z, label, w = torch.randn(1000, 2), torch.zeros(1000, dtype=torch.long), torch.zeros(1000)
    ours, exact = (denoise_student(network, label, w) for network in (net, teacher))
    ends, middle = torch.full((1000,), 1024), torch.full((1000,), 512)
    nothing = torch.zeros_like(middle)
    two, one_step_z = sample(exact, z, 2), ddim_step(exact, z, ends, nothing)
    assert (ddim_step(ours, z, ends, nothing) - two).square().mean() < 0.03 * (one_step_z - two).square().mean()
    z_t = add_noise(data.x[:1000], z, middle)
    one_step_z, nowhere = ddim_step(exact, z_t, middle, nothing), centre.expand(1000, 2)
    assert (ddim_step(ours, z_t, middle, nothing) - one_step_z).square().mean() < 0.03 * (
        nowhere - one_step_z
    ).square().mean()


@pytest.mark.parametrize("n_steps, train", [(3, halve_steps), (1024, halve_steps), (3, halve_stochastic)])
def test_steps_that_fall_between_grid_points_are_refused(runs, n_steps, train):
    training = train(toy(), toy(), DATA, Halving(n_steps, settings()), run_named("off"))
    with pytest.raises(ValueError, match="divisors of T=1024"):
        next(training)


def test_a_range_of_one_strength_trains_for_that_strength_alone(runs):
    seen = []
    student = toy()
    student.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[3]))
    next(halve_steps(student, toy(seed=1), DATA, Halving(4, settings(steps=1), (1.5, 1.5)), run_named("single")))
    assert (seen[0] == 1.5).all()


def test_halving_trains_only_on_the_times_that_the_student_will_visit(runs, pictures):
    student = Network(student_of(tiny_unet()), bf16=False)
    teacher = Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    calls = {"student": set(), "teacher": set()}

    def watch(net, network_name):
        net.module.register_forward_pre_hook(lambda _, inputs: calls[network_name].update((inputs[1] + 1).tolist()))

    watch(student, "student")
    watch(teacher, "teacher")
    train_settings = settings(steps=6, batch_size=8, warmup=1, bf16=False)
    list(halve_steps(student, teacher, pictures, Halving(4, train_settings), run_named("times")))
    assert calls["student"] == {256, 512, 768, 1024}
    assert calls["teacher"] == {128, 256, 384, 512, 640, 768, 896, 1024}  # t and the middle of the step below it


def test_the_stochastic_student_asks_its_teacher_on_the_same_grid(runs, pictures):
    student = Network(student_of(tiny_unet()), bf16=False)
    teacher = Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    calls = set()
    teacher.module.register_forward_pre_hook(lambda _, inputs: calls.update((inputs[1] + 1).tolist()))
    train_settings = settings(steps=6, batch_size=8, warmup=1, bf16=False)
    list(halve_stochastic(student, teacher, pictures, Halving(4, train_settings), run_named("S times")))
    assert calls - {1} == {256, 512, 768, 1024}  # 1: its answer is not used


def test_a_reused_batch_asks_the_teacher_once_and_serves_as_many_updates_as_it_says(runs, pictures, monkeypatch):
    monkeypatch.setattr(replay, "BANK", 3)
    student = Network(student_of(tiny_unet()), bf16=False)
    teacher = Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    seen, calls = [], []
    student.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    teacher.module.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0]))
    train_settings = settings(steps=8, batch_size=4, warmup=1, bf16=False)
    list(halve_steps(student, teacher, pictures, Halving(4, train_settings, reuse=2), run_named("reuse")))
    assert len(seen) == 8 and len(calls) == 2 * (3 + 2)  # batches 0 1 2, again 0 1 2, then 6 7
    for first, again in ((0, 3), (1, 4), (2, 5)):
        assert torch.equal(seen[first], seen[again])
    assert len({x.sum().item() for x in seen}) == 5


def test_a_run_killed_while_it_reuses_batches_resumes_bit_for_bit(runs, pictures, monkeypatch):
    monkeypatch.setattr(replay, "BANK", 2)
    teacher = Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    train_settings = settings(steps=4, batch_size=4, warmup=1, bf16=False, checkpoint_seconds=0)

    def training(run):
        student = Network(student_of(tiny_unet()), bf16=False)
        return halve_steps(student, teacher, pictures, Halving(4, train_settings, reuse=2), run)

    straight, broken = run_named("straight"), run_named("broken")
    list(training(straight))
    until = training(broken)
    assert [next(until).step for _ in range(3)] == [1, 2, 3]  # killed before batch 1 comes again
    until.close()
    list(training(broken))
    a, b = straight.weights(), broken.weights()
    assert all(torch.equal(a[key], b[key]) for key in a)


def plan(train_settings, *counts):
    """Halvings of a chain, each with the seed of its steps."""
    return [Halving(n, train_settings.with_seed(n)) for n in counts]


def test_a_chain_halves_to_one_step_and_hands_each_student_on_as_the_next_teacher(runs, pictures):
    first = Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    train_settings = settings(steps=2, batch_size=8, warmup=1, bf16=False)
    chain = halve_down(Keyed(first, "parent"), pictures, plan(train_settings, 4, 2, 1))
    assert list(chain) == [4, 2, 1]
    single = Network(student_of(first.module), bf16=False)
    run = run_named("alone")
    finish(single, halve_steps(single, first, pictures, Halving(4, train_settings.with_seed(4)), run), run, "alone")
    for ours, expected in zip(chain[4].net.module.parameters(), single.module.parameters(), strict=True):
        assert torch.equal(ours, expected)
    other = halve_down(chain[4], pictures, plan(train_settings, 2, 1))
    assert {n: student.key for n, student in other.items()} == {n: chain[n].key for n in (2, 1)}
    other = halve_down(Keyed(first, "another"), pictures, plan(train_settings, 4, 2, 1))
    assert other[1].key != chain[1].key  # through two parents
    grid = first.like(first.module, schedule=Schedule(0.9 * OURS.alpha + 0.1))  # the same weights, another teacher
    assert halve_down(Keyed(grid, "parent"), pictures, plan(train_settings, 4))[4].key != chain[4].key


def test_a_stochastic_student_starts_from_the_deterministic_one(runs, pictures):
    first = Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    train_settings = settings(steps=2, batch_size=8, warmup=1, bf16=False)
    chain = halve_down(Keyed(first, "parent"), pictures, plan(train_settings, 4, 2, 1))
    result = halve_once(chain[4], pictures, plan(train_settings, 4)[0], "stochastic", halve_stochastic)
    assert result.key.startswith("stochastic-4-")
    single, run = Network(student_of(chain[4].net.module), bf16=False), run_named("alone S")
    training = halve_stochastic(single, chain[4].net, pictures, Halving(4, train_settings.with_seed(4)), run)
    finish(single, training, run, "alone")
    for ours, expected in zip(result.net.module.parameters(), single.module.parameters(), strict=True):
        assert torch.equal(ours, expected)


def test_a_guided_pair_is_halved_for_one_strength_and_refused_for_a_range(runs, pictures):
    """The first target of a single-w chain is two guided steps of the pair; the student starts from its weights."""
    pair = Network(tiny_unet().requires_grad_(False), bf16=False)
    student = Network(student_of(pair.module), bf16=False)
    calls = []
    pair.module.register_forward_pre_hook(lambda _, __, kwargs: calls.append(kwargs["class_labels"]), with_kwargs=True)
    train_settings = settings(steps=1, batch_size=8, warmup=1, bf16=False)
    next(halve_steps(student, pair, pictures, Halving(4, train_settings, (1.5, 1.5)), run_named("pair")))
    assert len(calls) == 2 and all((label[8:] == pair.null).all() and len(label) == 16 for label in calls)
    with pytest.raises(ValueError, match=r"for a single w, not for w_range=\(0.0, 4.0\)"):
        next(halve_steps(student, pair, pictures, Halving(4, train_settings), run_named("range")))
