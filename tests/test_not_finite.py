"""What is not finite stops where it appears: in a training, in a metric, in a row, in a file of weights."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from closed_forms import tiny_unet
from torch import nn

from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.pixels import finite, to_bytes
from distill_lib.engine import store
from distill_lib.engine.files import all_finite, save_tensors
from distill_lib.engine.loop import Loop, TrainSettings
from distill_lib.measure.metrics import edge_width, fid, laplacian_variance, paired, period_two_share, quality
from distill_lib.networks.unet import load_unet
from distill_lib.report.record import Recorder

STEPS = 8
NAN, INF = math.nan, math.inf


def network():
    torch.manual_seed(0)
    module = nn.Linear(3, 3)
    return SimpleNamespace(module=module, forward=module)


def settings(**changes):
    return TrainSettings(**{"steps": STEPS, "batch_size": 4, "lr": 1e-2, "warmup": 1, "ema": 0.5} | changes)


def run_named(name="run"):
    return store.Run("test", {"name": name}, normal)


def train(net, run, spoiled=None, spoil=lambda loss: loss * NAN, **changes):
    """Learn to negate noise; the loss of the step `spoiled` is spoiled."""
    loop = Loop(net, settings(**changes), run)
    for step, draws in loop:
        x = draws.normal("x", (3,))
        loss = (net.forward(x) + x).square().mean(1)
        yield loop.update(spoil(loss) if step == spoiled else loss)


def one_of_four_samples(loss):
    return loss * torch.tensor([1.0, 1.0, NAN, 1.0])


def finite_with_a_broken_gradient(loss):
    return loss + (loss.detach() * 0 + (loss - loss.detach()).abs()).sqrt()  # the root's slope at 0


# ------------------------------------------------------------------------------------------------ a training


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda loss: loss * NAN, "the loss is nan"),
        (lambda loss: loss + INF, "the loss is inf"),
        (one_of_four_samples, "the loss is nan"),
        (finite_with_a_broken_gradient, "the norm of the gradient is nan"),
    ],
)
def test_a_training_stops_before_the_step_that_is_not_finite(spoil, message, runs):
    run, net, whole = run_named(), network(), network()
    with pytest.raises(ValueError, match=message) as error:
        list(train(net, run, 5, spoil))
    for _ in zip(range(5), train(whole, run_named("whole")), strict=False):
        pass
    sentence = str(error.value)
    assert f"{run.key} stops at step 6 of 8" in sentence and "a learning rate of 0.00375" in sentence  # 0.01 (1 - 5/8)
    assert "take a smaller lr" in sentence and str(run.folder) in sentence and "\n" not in sentence
    assert torch.equal(net.module.weight, whole.module.weight)
    state = run.state()
    assert state["step"] == 5 and torch.equal(state["weight.weight"], whole.module.weight)
    assert not run.done


def test_run_again_it_stops_at_the_same_step_and_cured_it_goes_on_to_the_same_weights(runs):
    run, straight = run_named(), run_named("straight")
    sentences = []
    for _ in range(2):
        with pytest.raises(ValueError, match="stops at step 6") as error:
            list(train(network(), run, 5))
        sentences.append(str(error.value))
    assert sentences[0] == sentences[1] and run.state()["step"] == 5
    assert [progress.step for progress in train(network(), run)] == [6, 7, 8]
    list(train(network(), straight))
    assert torch.equal(run.weights()["weight"], straight.weights()["weight"])


def test_a_first_step_that_is_not_finite_leaves_no_state(runs):
    run = run_named()
    for _ in range(2):
        with pytest.raises(ValueError, match="stops at step 1 of 8"):
            list(train(network(), run, 0))
    assert run.state() is None and not run.done


def test_a_learning_rate_that_explodes_is_named(runs):
    def diverge():
        loop = Loop(net, settings(lr=1e30, steps=40), run_named())
        for _, draws in loop:
            loop.update(net.forward(draws.normal("x", (3,))).square().mean(1))

    net = network()
    with pytest.raises(
        ValueError, match=r"stops at step \d+ of 40: the .* is (inf|nan), at a learning rate of .*e\+29"
    ):
        diverge()
    assert net.module.weight.isfinite().all()


def test_weights_that_are_not_finite_are_no_start(runs):
    net = network()
    with torch.no_grad():
        net.module.bias[1] = INF
    with pytest.raises(ValueError, match=r"test-\w+ at step 0 holds weights that are not finite, in 1 of 2 .* bias;"):
        list(train(net, run_named()))


# ------------------------------------------------------------------------------------------------ weights in files


def test_finished_weights_that_are_not_finite_are_refused(runs):
    run = run_named()
    run.finish({"a": torch.ones(3), "b": torch.tensor([0.0, NAN])})
    with pytest.raises(ValueError, match=r"weights.safetensors holds weights .* 1 of 2 tensors, first in b;"):
        run.weights()


def test_a_folder_with_weights_that_are_not_finite_is_refused(tmp_path):
    unet = tiny_unet()
    with torch.no_grad():
        unet.conv_in.weight[0] = NAN
    unet.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"not finite.*conv_in\.weight") as error:
        load_unet(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_large_weights_whose_sum_overflows_are_finite():
    tensors = {"half": torch.full((9,), 6e4).half(), "single": torch.full((9,), 3e38), "count": torch.ones(2).long()}
    assert all_finite(tensors, "it") is tensors


# ------------------------------------------------------------------------------------------------ metrics


@pytest.fixture(scope="module")
def reader():
    from distill_lib.measure.metrics import Reader
    from distill_lib.measure.readers.extractor import Extractor

    torch.manual_seed(0)
    return Reader(Extractor(4, 6, width=8).eval().requires_grad_(False))


def pictures(bad=None):
    result = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    if bad is not None:
        result[2:4, 0, 5, 5] = bad
    return result


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_pictures_that_are_not_finite_do_not_turn_black_in_silence(bad):
    with pytest.raises(ValueError, match=r"2 of 8 pictures hold numbers that are not finite.*look for"):
        to_bytes(pictures(bad))
    assert to_bytes(pictures()).dtype == torch.uint8


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize(
    "metric",
    [
        lambda _, x: paired(x, to_bytes(pictures())),
        lambda _, x: paired(to_bytes(pictures()), x),
        lambda _, x: laplacian_variance(x),
        lambda _, x: period_two_share(x),
        lambda _, x: edge_width(x),
        lambda reader, x: fid(reader, x, to_bytes(pictures())),
        lambda reader, x: quality(reader, to_bytes(pictures()), x),
    ],
)
def test_no_metric_reads_pictures_that_are_not_finite(metric, bad, reader):
    with pytest.raises(ValueError, match="2 of 8 pictures hold numbers that are not finite"):
        metric(reader, pictures(bad))


def test_features_that_are_not_finite_are_refused(reader):
    from distill_lib.measure.metrics import Reader
    from distill_lib.measure.readers.extractor import Extractor

    broken = Extractor(4, 6, width=8).eval().requires_grad_(False)
    broken.factors.bias[:] = NAN  # read by no metric
    broken.classes[1].bias[:] = NAN
    with pytest.raises(ValueError, match="8 of 8 features of pictures"):
        Reader(broken).read(to_bytes(pictures()))


def test_bytes_and_large_numbers_pass():
    assert finite(torch.full((2, 5), 255, dtype=torch.uint8), "pictures").shape == (2, 5)
    assert finite(torch.full((2, 5), 3e38), "features").shape == (2, 5)


# ------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_row_that_is_not_finite_is_refused_and_nothing_is_written(bad, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    recorder, row = Recorder("smoke", "textured", []), {"method": "ours-D", "steps": 4, "metric": "fid", "seed": 1}
    recorder.rows("g-tab1", [row | {"value": 1.0}])
    before = (tmp_path / "smoke" / "g-tab1.json").read_bytes()
    with pytest.raises(ValueError, match=rf"g-tab1: value of fid is {bad} at method=ours-D, steps=4, seed=1;") as error:
        recorder.rows("g-tab1", [row | {"value": 1.0}, row | {"value": bad}])
    assert "\n" not in str(error.value)
    assert (tmp_path / "smoke" / "g-tab1.json").read_bytes() == before


def test_committed_rows_are_finite():
    from distill_lib.paths import ROOT

    def refuse(word):
        raise AssertionError(word)

    for path in [*ROOT.glob("figures/*/*.json"), *ROOT.glob("pretrained/*/made.json")]:
        json.loads(path.read_text(), parse_constant=refuse)


def test_a_state_may_hold_what_weights_may_not(tmp_path):
    save_tensors(tmp_path / "x.safetensors", {"loss": torch.tensor(NAN)})  # of a training before its first step
