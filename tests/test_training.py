"""The training loop: a run that is killed and resumed, or split, is the same run to the last bit."""

import math
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from torch import nn

from distill_lib.diffusion.noise import Draws, normal
from distill_lib.engine import sharing, store
from distill_lib.engine.loop import Loop, TrainSettings, finish, follow

STEPS = 12


def network(seed=0):
    """A small module with the two names that `Loop` asks for."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 3))
    return SimpleNamespace(module=module, forward=module)


def settings(**changes):
    return TrainSettings(**{"steps": STEPS, "batch_size": 8, "lr": 1e-2, "warmup": 3, "ema": 0.9} | changes)


def run_named(name="run"):
    return store.Run("test", {"name": name}, normal)


def train(net, train_settings, run):
    """A method as small as they get: learn to negate noise, with every kind of draw."""
    loop = Loop(net, train_settings, run)
    for _, draws in loop:
        x = draws.normal("x", (3,))
        scale = 1 + draws.uniform("scale")[:, None] + draws.integer("shift", 3)[:, None]
        yield loop.update((net.forward(x) + scale * x).square().mean(1))


def run_until(step, train_settings, run, net=None):
    """Train and stop after `step`, as a kill does: nothing is said to the loop."""
    for progress in train(net or network(), train_settings, run):
        if progress.step == step:
            return


def straight(**changes):
    run = run_named(f"straight {changes}")
    list(train(network(), settings(**changes), run))
    return run.weights()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------------ kill and resume


@pytest.mark.parametrize("killed_after", [1, 5, STEPS - 1])
def test_a_killed_and_resumed_run_ends_with_the_same_weights_bit_for_bit(killed_after, runs):
    run = run_named()
    run_until(killed_after, settings(checkpoint_seconds=0), run)
    assert not run.done and run.state()["step"] == killed_after
    steps = [progress.step for progress in train(network(seed=99), settings(), run)]  # fresh weights are overwritten
    assert steps == list(range(killed_after + 1, STEPS + 1))
    assert run.done
    assert same(run.weights(), straight())


def test_a_run_killed_long_after_its_checkpoint_repeats_the_lost_steps(runs):
    run = run_named()
    run_until(4, settings(checkpoint_seconds=0), run)
    run_until(9, settings(checkpoint_seconds=1e9), run)
    assert [progress.step for progress in train(network(), settings(), run)][:1] == [5]
    assert same(run.weights(), straight())
    # steps 5 to 9 were logged twice, and count once
    assert [record["step"] for record in run.progress()] == list(range(1, STEPS + 1))


def test_snapshots_are_the_averaged_weights_at_even_parts_of_the_run(runs):
    run, net, averages = run_named(), network(), {}
    loop = Loop(net, settings(snapshots=2), run)
    for _, draws in loop:
        loop.update((net.forward(draws.normal("x", (3,)))).square().mean(1))
        averages[loop.step] = {name: value.clone() for name, value in loop.weights().items()}
    result = run.snapshots()
    assert list(result) == [STEPS // 3, 2 * STEPS // 3]
    assert all(same(weights, averages[step]) for step, weights in result.items())


def test_no_snapshots_are_kept_unless_asked_for(runs):
    run = run_named()
    list(train(network(), settings(), run))
    assert run.snapshots() == {}


def test_a_loop_over_a_finished_run_has_no_steps(runs):
    run = run_named()
    list(train(network(), settings(), run))
    done, net = run.weights(), network(seed=99)
    assert list(train(net, settings(), run)) == []
    assert same(run.weights(), done) and same(dict(net.module.named_parameters()), done)


def test_a_torn_last_line_of_progress_is_left_out(runs):
    run = run_named()
    run_until(4, settings(checkpoint_seconds=0), run)
    path = run.folder / "progress.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    list(train(network(), settings(), run))
    assert [record["step"] for record in run.progress()] == [1, 2, 3, *range(5, STEPS + 1)]


def test_a_parameter_without_gradient_stays_through_a_kill(runs):
    def with_idle():
        net = network()
        net.module.register_parameter("idle", torch.nn.Parameter(torch.ones(2)))
        return net

    run = run_named()
    run_until(3, settings(checkpoint_seconds=0), run, with_idle())
    list(train(with_idle(), settings(), run))
    assert torch.equal(run.weights()["idle"], torch.ones(2))


def test_what_cannot_be_trained_is_refused(runs, monkeypatch):
    monkeypatch.setattr(
        "distill_lib.engine.loop.Accelerator", lambda cpu: SimpleNamespace(device="cpu", num_processes=3)
    )
    with pytest.raises(ValueError, match=r"batch_size=8 .*3 processes"):
        Loop(network(), settings(), run_named())
    monkeypatch.undo()
    normalised = torch.nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="buffers"):
        Loop(SimpleNamespace(module=normalised, forward=normalised), settings(), run_named())


def test_a_run_killed_twice_goes_on(runs):
    run = run_named()
    for killed_after in (3, 7):
        run_until(killed_after, settings(checkpoint_seconds=0), run)
    list(train(network(), settings(), run))
    assert same(run.weights(), straight())


def test_a_run_killed_before_its_first_checkpoint_starts_again(runs):
    run = run_named()
    run_until(4, settings(checkpoint_seconds=1e9), run)
    assert run.state() is None
    assert [progress.step for progress in train(network(), settings(), run)][:1] == [1]
    assert same(run.weights(), straight())


def test_a_resumed_run_goes_on_with_its_smoothed_loss_and_its_clock(runs):
    run = run_named()
    run_until(6, settings(checkpoint_seconds=0), run)
    before = run.progress()[-1]
    resumed = next(train(network(), settings(), run))
    whole = list(train(network(), settings(), run_named("other")))
    assert resumed.loss == pytest.approx(whole[6].loss, rel=1e-12)  # kept in float64
    assert resumed.seconds > before["seconds"] * (1 - 1e-6)  # kept in float32


def test_every_step_draws_its_own_numbers_also_after_a_kill(runs):
    def numbers(stop, **changes):
        net, seen = network(), []
        loop = Loop(net, settings(seed=4, **changes), run_named())
        for step, draws in loop:
            seen.append((step, draws.step, draws.seed, draws.index.tolist()))
            if loop.update(net.forward(draws.normal("x", (3,))).square().mean(1)).step == stop:
                break
        return seen

    expected = [(step, step, 4, list(range(8))) for step in range(STEPS)]
    assert numbers(5, checkpoint_seconds=0) == expected[:5]
    assert numbers(None) == expected[5:]


def test_another_seed_is_another_run(runs):
    assert not same(straight(), straight(seed=1))
    assert settings(seed=3).with_seed(5) == settings(seed=5)


def test_the_state_is_dropped_when_the_run_is_done(runs):
    run = run_named()
    list(train(network(), settings(checkpoint_seconds=0), run))
    assert run.done and run.state() is None


# ------------------------------------------------------------------------------------------------ a finished run


def never(*_):
    raise AssertionError("a finished run was trained again")
    yield


def test_a_finished_run_is_not_trained_again(runs):
    run = run_named()
    finish(network(), train(network(), settings(), run), run, "once")
    before = run.weights()
    net = network(seed=5)
    curve = finish(net, never(), run_named(), "twice")
    assert [step for step, _ in curve] == list(range(1, STEPS + 1))
    assert same(dict(net.module.state_dict()), before)


def test_a_finished_network_holds_the_averaged_weights_and_is_frozen(runs):
    run, net = run_named(), network()
    finish(net, train(net, settings(), run), run, "title")
    assert same(dict(net.module.state_dict()), run.weights())
    assert not net.module.training and not any(p.requires_grad for p in net.module.parameters())


def test_truncated_weights_end_in_a_sentence(runs):
    run = run_named()
    list(train(network(), settings(), run))
    path = run.folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=rf"{path} cannot be used.*delete the folder .* and run again") as error:
        finish(network(), never(), run, "title")
    assert "\n" not in str(error.value)


def test_a_truncated_checkpoint_ends_in_a_sentence_before_anything_is_overwritten(runs):
    run = run_named()
    run_until(4, settings(checkpoint_seconds=0), run)
    path = run.folder / "state" / "state.safetensors"
    (path.parent / "previous.safetensors").unlink()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=rf"{path} cannot be used.*run again"):
        next(train(network(), settings(), run))
    assert path.stat().st_size == 200


def test_from_the_state_before_a_spoiled_one_it_ends_with_the_same_weights_bit_for_bit(runs, capsys):
    run = run_named()
    run_until(6, settings(checkpoint_seconds=0), run)
    path = run.folder / "state" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    steps = [progress.step for progress in train(network(), settings(), run)]
    assert steps == list(range(6, STEPS + 1))  # the sixth is done again
    assert same(run.weights(), straight())
    assert "goes on from previous.safetensors" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ counted draws


@pytest.mark.parametrize(
    "draw", [lambda d: d.normal("eps", (2, 3)), lambda d: d.uniform("w"), lambda d: d.integer("t", 1024)]
)
def test_two_half_batches_draw_what_the_whole_batch_draws(draw):
    whole = Draws(0, 7, torch.arange(8))
    halves = [Draws(0, 7, torch.arange(4)), Draws(0, 7, torch.arange(4, 8))]
    assert torch.equal(torch.cat([draw(half) for half in halves]), draw(whole))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_processes_share_the_indices_of_a_step(processes, runs, monkeypatch):
    indices = []
    for i in range(processes):
        accelerator = SimpleNamespace(num_processes=processes, process_index=i, is_main_process=False)
        accelerator.device, accelerator.distributed_type = torch.device("cpu"), DistributedType.MULTI_CPU
        monkeypatch.setattr("distill_lib.engine.loop.Accelerator", lambda cpu, first=accelerator: first)
        step, draws = next(iter(Loop(network(), settings(), run_named())))
        assert step == 0 and draws.step == 0
        indices += draws.index.tolist()
    assert indices == list(range(8))


def test_gradients_are_averaged_in_groups_and_those_that_are_none_are_left(monkeypatch):
    monkeypatch.setattr(sharing, "_GROUP", 5)
    parameters, sizes = [nn.Parameter(torch.zeros(n)) for n in (3, 4, 2, 1, 6)], []
    for k, parameter in enumerate(parameters):
        parameter.grad = None if k == 3 else torch.full_like(parameter, k)

    def reduce(numbers, kind):
        assert kind == "mean"
        sizes.append(len(numbers))
        return (numbers + torch.full_like(numbers, 10)) / 2  # the other process has 10 everywhere

    sharing.average_gradients(SimpleNamespace(num_processes=2, reduce=reduce), parameters)
    assert sizes == [7, 8] and parameters[3].grad is None
    for k in (0, 1, 2, 4):
        assert torch.equal(parameters[k].grad, torch.full_like(parameters[k], (k + 10) / 2))


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_a_launch_that_cuts_weights_in_parts_is_refused(kind, runs, monkeypatch):
    accelerator = SimpleNamespace(num_processes=2, distributed_type=DistributedType[kind])
    monkeypatch.setattr("distill_lib.engine.loop.Accelerator", lambda cpu: accelerator)
    with pytest.raises(ValueError, match=f"{kind} cuts weights in parts, which is not supported; launch with"):
        Loop(network(), settings(), run_named())


def test_the_gradient_of_two_half_batches_averages_to_that_of_the_whole():
    net = network()

    def gradient(index):
        x = Draws(0, 0, index).normal("x", (3,))
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(net.forward(x).square().mean(), list(net.module.parameters()))]
        )

    whole = gradient(torch.arange(8))
    halves = (gradient(torch.arange(4)) + gradient(torch.arange(4, 8))) / 2
    assert torch.allclose(halves, whole, rtol=1e-5, atol=1e-7)  # the order of a float32 sum


def test_integers_cover_their_range_evenly_and_never_reach_its_end():
    n, high = 40_000, 7
    drawn = Draws(0, 0, torch.arange(n)).integer("t", high)
    assert drawn.dtype == torch.int64 and drawn.min() == 0 and drawn.max() == high - 1
    count = drawn.bincount().double()
    chi2 = ((count - n / high).square() / (n / high)).sum()
    assert chi2 < 22.5  # 6 degrees of freedom, exceeded with probability 0.001


def test_streams_and_steps_of_a_run_draw_apart():
    index = torch.arange(100)
    a = Draws(0, 0, index)
    others = [a.uniform("b"), Draws(0, 1, index).uniform("a"), Draws(1, 0, index).uniform("a")]
    assert all((a.uniform("a") - other).abs().min() > 0 for other in others)


# ------------------------------------------------------------------------------------------------ the update


def follow_by_hand(train_settings):
    """(averages, parameters, rates) after each step, as lists; the first entries are those before it."""
    net = network()
    loop = Loop(net, train_settings, run_named(str(train_settings)))
    flat = lambda tensors: torch.cat([t.detach().flatten() for t in tensors]).clone()  # noqa: E731
    averages, parameters, rates = [flat(loop.average)], [flat(loop.parameters)], []
    for _, draws in loop:
        x = draws.normal("x", (3,))
        loop.update((net.forward(x) + x).square().mean(1))
        averages.append(flat(loop.average))
        parameters.append(flat(loop.parameters))
        rates.append(loop.optimizer.param_groups[0]["lr"])
    return averages, parameters, rates


@pytest.mark.parametrize("ema", [0.3, 0.999])
def test_the_average_of_weights_follows_its_formula(ema, runs):
    averages, parameters, _ = follow_by_hand(settings(ema=ema))
    assert torch.equal(averages[0], parameters[0])
    for k in range(1, STEPS + 1):
        decay = min(ema, k / (10 + k))
        expected = decay * averages[k - 1] + (1 - decay) * parameters[k]
        assert torch.allclose(averages[k], expected, rtol=0, atol=1e-6)  # float32 weights of size 1
        assert (averages[k] - averages[k - 1]).abs().max() > 0


def test_without_an_average_the_weights_are_the_last_ones(runs):
    averages, parameters, _ = follow_by_hand(settings(ema=0.0))
    assert torch.equal(averages[-1], parameters[-1])


def test_the_learning_rate_warms_up_then_falls_linearly(runs):
    _, _, rates = follow_by_hand(settings(lr=0.01, warmup=4))
    expected = [0.01 * min(1, (k + 1) / 4) * (1 - k / STEPS) for k in range(STEPS)]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert rates[-1] == pytest.approx(0.01 / STEPS)  # the last step still learns


def test_no_warm_up_is_a_setting(runs):
    # as in the code of Salimans and Ho: linear annealing within a stage, no warm-up
    _, _, rates = follow_by_hand(settings(lr=0.01, warmup=0))
    assert rates[0] == 0.01


def test_a_huge_loss_moves_the_weights_no_further_than_a_small_one(runs):
    def first_step(scale):
        net = network()
        loop = Loop(net, settings(), run_named(str(scale)))
        before = torch.cat([p.detach().flatten() for p in loop.parameters])
        _, draws = next(iter(loop))
        loop.update(scale * net.forward(draws.normal("x", (3,))).square().mean(1))
        norm = math.sqrt(sum(loop.optimizer.state[p]["exp_avg"].square().sum().item() for p in loop.parameters)) / 0.1
        return norm, (torch.cat([p.detach().flatten() for p in loop.parameters]) - before).abs().max().item()

    norm, moved = first_step(1e6)
    assert norm == pytest.approx(1, rel=1e-4)  # the gradient was clipped to norm 1: beta1 = 0.9 keeps a tenth of it
    assert moved == pytest.approx(first_step(1e3)[1], rel=1e-3)


def test_training_lowers_the_loss(runs):
    history = list(train(network(), settings(steps=300), run_named()))
    assert history[-1].loss < history[0].loss / 3
    assert [p.step for p in history] == list(range(1, 301))
    assert all(p.images_per_second > 0 for p in history)


# ------------------------------------------------------------------------------------------------ settings, progress


@pytest.mark.parametrize("bad", [{"stepz": 3}, {"steps": "many"}, {"lr": None}])
def test_settings_that_do_not_exist_or_have_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        settings(**bad)


def test_a_headless_run_says_how_far_it_is_in_whole_lines(runs, capsys):
    history = follow(train(network(), settings(), run_named()), "toy", every_seconds=0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(history) == STEPS
    assert lines[0].startswith("toy: step 1/12") and lines[-1].startswith("toy: step 12/12")
    for word in ("loss", "images/s", "s left"):
        assert word in lines[0]


def test_a_quiet_run_says_its_last_step(runs, capsys):
    follow(train(network(), settings(), run_named()), "toy", every_seconds=1e9)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 2 and "step 12/12" in lines[-1]
