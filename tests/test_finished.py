"""Memory of trainings that are over: a student is all that is left of one, and a gradient keeps little on its way."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import saved_tensors_hooks

from distill_lib.diffusion.schedules import step_counts
from distill_lib.engine.loop import Loop, TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.experiments.finished import finished
from distill_lib.experiments.one_step import Trials, recomputed
from distill_lib.guided.halving import Halving, halve_once
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.networks.adapter import Keyed, Trained
from distill_lib.networks.autoencoders import TinyDecode, build_tiny
from distill_lib.networks.pipeline import Latents, open_pipeline
from distill_lib.networks.resting import at_hand, put_away
from distill_lib.run.notebooks import read
from distill_lib.sdxs.matchers import ConvMatcher
from distill_lib.sdxs.one_step import accumulation_error, gradient, square_loss
from distill_lib.sdxs.scoring import Scoring
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import teacher_pairs
from distill_lib.worlds.captions import drawn_attributes, say

SETTINGS = TrainSettings(steps=2, batch_size=2, lr=1e-3, warmup=1, bf16=False)


def held():
    """Bytes of all tensors that live, rings that nobody can reach included; fake ones of other tests have none."""
    living = [value for value in gc.get_objects() if issubclass(type(value), torch.Tensor)]
    storages = [value.untyped_storage() for value in living if not isinstance(value, FakeTensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.fixture
def no_collector():
    """Python collects no rings unless it is told to: here as in a kernel with a million objects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def trials(small_pipeline, runs, monkeypatch):
    """Trials on a small pipeline, whose students start from its own U-Net and are held to squares."""
    model = open_pipeline(small_pipeline[0], bf16=False)
    matcher = ConvMatcher(8).requires_grad_(False)
    monkeypatch.setattr(pretrained, "matcher", lambda name: matcher)
    monkeypatch.setattr(Trials, "first", model.network)
    monkeypatch.setattr(Trials, "cost", lambda self, loss: square_loss)
    pairs = teacher_pairs(model, say(drawn_attributes(4, 0)), 2, 0.0, 5, "teacher")
    sizes = SimpleNamespace(matching=SETTINGS, scores=Scoring(SETTINGS, before=SETTINGS), tuning=SETTINGS)
    return Trials(pairs, SimpleNamespace(w=1.0), sizes, 0)


def weights(net):
    return sum(weight.nbytes for weight in net.module.parameters())


@pytest.mark.parametrize("kind", ["by_loss", "by_scores", "by_critic"])
def test_a_finished_student_holds_its_weights_and_nothing_that_trained_it(trials, no_collector, kind):
    warm = trials.by_loss("square")
    given = {"by_loss": ("square", 1)}.get(kind, (warm,))  # another batch, or the run of before would be read
    before = held()
    trained = getattr(trials, kind)(*given)
    assert trained.run.done and trained.key != warm.key
    assert held() - before == pytest.approx(weights(warm.net), rel=0.02)


def test_a_student_that_is_read_again_holds_no_more(trials, no_collector):
    warm = trials.by_loss("square")
    trials.by_scores(warm)
    gc.collect()
    before = held()
    trained = trials.by_scores(warm)
    assert held() - before == pytest.approx(weights(trained.net), rel=0.02)


def test_a_finished_student_answers_as_its_team_did(trials, monkeypatch):
    warm = trials.by_loss("square")
    z_T, _, label = trials.pairs.batch(torch.arange(2))
    t = torch.full((2,), 1024)
    trained = trials.by_scores(warm)
    assert trained.net.forward is trained.net.module
    monkeypatch.setattr("distill_lib.experiments.one_step.finished", lambda trained: trained)
    in_team = trials.by_scores(warm)
    assert in_team.net.forward is not in_team.net.module
    with torch.no_grad():
        assert torch.equal(trained.net(z_T, t, label), in_team.net(z_T, t, label))


def cell_of(notebook, name):
    """The code of a notebook's cell, by its id."""
    (source,) = (cell.source for cell in read(notebook).cells if cell.id == name)
    return compile(source, name, "exec")


def test_notebook_07_lets_go_of_what_trained_a_student_and_of_students_that_nobody_measures(
    small_pipeline, runs, no_collector, monkeypatch
):
    """Its two cells of trainings, on a small pipeline: of 8, 4, 2, 1 steps only those of 4 and 1 are measured."""
    model = open_pipeline(small_pipeline[0], bf16=False)
    pair, prompts = model.network, say(drawn_attributes(4, 0))
    sizes = SimpleNamespace(stage_one=SETTINGS, halving=SETTINGS, start=16, students=[1, 4])
    data = Latents(torch.randn(4, *pair.shape), prompts, model)
    job = SimpleNamespace(pictures=data, w_max=2.0, first=None)
    trained, loops, away = [], [], []
    names = {"sizes": sizes, "job": job, "pair": pair, "live": pair.student(), "seed": 0, "Latents": Latents}
    names |= {"lab": SimpleNamespace(settings=SimpleNamespace(reuse=1)), "Run": Run, "finish": finish}
    names |= {"distill_guidance": distill_guidance, "Halving": Halving, "step_counts": step_counts}
    names |= {"finished": finished, "Trained": Trained, "Keyed": Keyed}

    def halve(*given):
        student = halve_once(*given)
        trained.append(weakref.ref(student.net))
        return student

    begin = Loop.__init__
    monkeypatch.setattr(
        Loop, "__init__", lambda loop, *given, **named: loops.append(weakref.ref(loop)) or begin(loop, *given, **named)
    )
    names |= {"halve_once": halve, "put_away": lambda net: away.append(weakref.ref(net))}
    exec(cell_of("07_text_to_image_in_few_steps", "a7610de9"), names)
    exec(cell_of("07_text_to_image_in_few_steps", "e84c1f60"), names)
    assert len(loops) == 5 and not any(loop() for loop in loops)
    assert [bool(net()) for net in trained] == [False, True, True, True]  # 8; 4; 2, from which 1 came; 1
    assert sorted(names["networks"]) == [1, 4] and sorted(names["curves_of"]) == [1, 2, 4, 8]
    assert [net() for net in away[-3:]] == [names["networks"][4], names["before"].net, names["networks"][1]]


def test_a_network_that_was_put_away_is_at_hand_within_a_block(trials, monkeypatch):
    moves, net = [], trials.first
    monkeypatch.setattr(type(net.module), "to", lambda module, device: moves.append(torch.device(device)) or module)
    monkeypatch.setattr("distill_lib.networks.resting.default_device", lambda: torch.device("meta"))
    put_away(net)
    with pytest.raises(ZeroDivisionError), at_hand(net):
        assert moves == [torch.device("cpu"), torch.device("meta")]
        raise ZeroDivisionError
    assert moves[2:] == [torch.device("cpu")]


def saved(call):
    """What a call returns, and bytes of all that its forward pass keeps for the backward pass."""
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        return call(), sum(kept.values())


def test_a_recomputed_gradient_is_the_same_and_keeps_a_third(trials):
    student = trials._copy(trials.first)
    tiny = build_tiny(3, width=16).requires_grad_(False)
    decode, index = TinyDecode(tiny, bf16=False), torch.arange(4)

    def cost(x_hat, x):
        return square_loss(decode(x_hat), decode(x))

    plain, bytes_plain = saved(lambda: gradient(student, trials.pairs, index, cost))
    with recomputed(student.module, tiny):
        lean, bytes_lean = saved(lambda: gradient(student, trials.pairs, index, cost))
    assert torch.equal(plain, lean) and plain.norm() > 0
    inner = bytes_plain - weights(student)
    assert bytes_lean - weights(student) < inner / 3
    _, bytes_after = saved(lambda: gradient(student, trials.pairs, index, cost))
    assert bytes_after == bytes_plain  # trainings after it are as fast as before


def test_networks_are_as_before_though_a_block_fails(trials):
    student = trials._copy(trials.first)
    with pytest.raises(ZeroDivisionError), recomputed(student.module):
        assert student.module.is_gradient_checkpointing
        raise ZeroDivisionError
    assert not student.module.is_gradient_checkpointing


def test_the_accumulated_gradients_of_trials_are_recomputed(trials, monkeypatch):
    states = []

    def note(student, pairs, cost, slices, size):
        states.append([net.is_gradient_checkpointing for net in (student.module, tiny)])
        return accumulation_error(student, pairs, cost, 2, 2)

    tiny = build_tiny(3, width=16)
    monkeypatch.setattr(Trials, "decode", TinyDecode(tiny))
    monkeypatch.setattr("distill_lib.experiments.one_step.accumulation_error", note)
    (row,) = trials.accumulated("square")
    assert states == [[True, True]] and row["value"] < 1e-5 and not tiny.is_gradient_checkpointing
