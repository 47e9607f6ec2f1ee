"""What runs on a GPU first is rehearsed here on the CPU, on tiny networks; where there is a GPU, on it too."""

from dataclasses import replace

import pytest
import torch
from tiny_pipelines import tiny_pipeline

from distill_lib.diffusion.noise import Draws
from distill_lib.diffusion.samplers import sample
from distill_lib.engine import store
from distill_lib.engine.loop import FrugalSettings
from distill_lib.engine.savings import Savings
from distill_lib.measure.plan import Plan, needed
from distill_lib.measure.roles import METHODS
from distill_lib.networks.adapter import denoiser
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.run import gpu_check, preflight, trial
from distill_lib.run.plan import architecture

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("teacher")
    tiny_pipeline("epsilon").save_pretrained(place)
    return str(place)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("savings", [Savings(), gpu_check.LEAN])
def test_an_update_of_each_method(device, savings, folder):
    for method in METHODS:
        plan = Plan(method=method, pixels=16, batch=4, savings=savings)
        done = trial.update(architecture(folder), plan, torch.device(device))
        assert done.loss > 0 and done.seconds > 0 and (done.peak > 0) == (device == "cuda")
        assert done.line().startswith(f"{method}: loss ")


def test_a_trial_stands_beside_what_it_holds_itself_and_not_beside_a_whole_training(folder, monkeypatch):
    monkeypatch.setattr("distill_lib.measure.plan._DRAWN", 4096)  # so that it needs more than an update
    model, beside = architecture(folder), "text encoder, autoencoder"
    for method in ("halving", "stage-one"):
        plan = Plan(method=method, pixels=16, batch=4)
        need, planned = needed(model, plan).bytes, trial.counted(model, plan)
        without = need["peak"] - need[beside]
        # stage one measures the size of guidance before, which a trial does not
        assert planned == pytest.approx(without, rel=1e-3) if method == "halving" else planned < 0.9 * without
    line = trial.Trial("halving", 1.0, 1.0, 2 * 10**9).line(3 * 10**9)
    assert line == "halving: loss 1, 1 s an update, 2.00 GB held at most, planned 3.00"


def test_a_loss_without_gradient_is_no_update(folder, monkeypatch):
    make = METHODS["halving"]

    def spoiled(make_network):
        cast = make(make_network)
        return replace(cast, loss=lambda *given: 0 * cast.loss(*given))

    monkeypatch.setitem(METHODS, "halving", spoiled)
    with pytest.raises(ValueError, match=r"halving: the loss is 0.0 and the norm of its gradient 0.0; both should be"):
        trial.update(architecture(folder), Plan(pixels=16, batch=2), torch.device("cpu"))


@pytest.mark.parametrize("device", DEVICES)
def test_pictures_of_all_kinds_have_the_size_that_is_asked_for(device, folder):
    words = [*trial.pictures(architecture(folder), 16, torch.device(device), steps=(2, 1, 1))]
    assert [line.partition(":")[0] for line in words] == ["teacher", "student of halving", "student of one step"]


@pytest.mark.parametrize("device", DEVICES)
def test_noise_and_samples_are_those_of_the_cpu(device, folder):
    net, ours = open_pipeline(folder).network.exact(), []
    label = torch.randn(3, *net.null.shape)
    for place in ("cpu", device):
        net.module.to(place)
        z = Draws(1, 2, torch.arange(3, device=place)).normal("eps", net.shape)
        with torch.no_grad():
            ours += [z.cpu(), sample(denoiser(net, label.to(place), 0.0), z, 4, net.schedule).cpu()]
    assert torch.allclose(ours[0], ours[2], atol=1e-6) and torch.allclose(ours[1], ours[3], atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_a_training_with_all_savings_ends_with_the_weights_of_a_plain_one(device, folder, runs, monkeypatch):
    if device == "cuda":
        monkeypatch.delenv("ACCELERATE_USE_CPU")
    ends = []
    for savings in (Savings(), Savings(slices=2, checkpointing=True, offload=True)):
        model = open_pipeline(folder, bf16=False)
        of = FrugalSettings(steps=2, batch_size=4, lr=1e-4, bf16=False, savings=savings)
        run, student = store.Run("test", {"savings": savings}, sample), model.network.student()
        list(preflight._training("stage one", student, model.network, of, run, model))
        ends.append(run.weights())
    plain, saving, start = (
        torch.cat([weights[name].cpu().flatten() for name in sorted(weights)])
        for weights in (*ends, model.network.student().module.state_dict())
    )
    assert (saving - plain).abs().mean() < 0.02 * (plain - start).abs().mean()


def test_a_report_names_what_failed_and_goes_on(tmp_path, capsys):
    def failing():
        yield "first"
        raise RuntimeError("no kernel image\nis available")

    report = tmp_path / "gpu" / "report.md"
    assert not gpu_check.run_parts({"bad": failing, "good": lambda: iter(["fine", "\n| a |"])}, report)
    text = report.read_text()
    assert "- FAILED, RuntimeError: no kernel image is available" in text and "- fine\n\n| a |" in text
    assert "- commit: " in text and "FAILED" in capsys.readouterr().err
    assert gpu_check.run_parts({"good": lambda: iter(["fine"])}, report)


def test_another_process_says_its_last_line_or_why_it_failed(tmp_path, monkeypatch):
    (words,) = gpu_check.called("timeit", "-n1", "-r1", folder=tmp_path)
    assert words.startswith("1 loop, best of 1: ")
    with pytest.raises(ValueError, match=r"^no_such_module -x ended with status 1: .*No module named no_such_module"):
        list(gpu_check.called("no_such_module", "-x", folder=tmp_path))
    monkeypatch.setattr(gpu_check, "_LONGEST", 0.01)
    with pytest.raises(ValueError, match=r"timeit -n1 took more than 0.01 s"):
        list(gpu_check.called("timeit", "-n1", folder=tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_check_says_so_and_unknown_parts_are_named(monkeypatch):
    with pytest.raises(ValueError, match="gpu-check needs a GPU that PyTorch sees"):
        gpu_check.main([])
    with pytest.raises(
        ValueError, match="part='speed' is unknown; choose of tests, updates, pictures, tables, 14_spee"
    ):
        gpu_check.main(["updates", "speed"])


def test_the_updates_of_a_check_stand_beside_their_plans(folder, monkeypatch):
    monkeypatch.setattr(gpu_check, "METHODS", {"halving": METHODS["halving"]})
    plain, lean = gpu_check.updates(architecture(folder), 16, torch.device("cpu"))
    assert lean.endswith(", with savings") and not plain.endswith("savings")
    assert trial.Trial("a", 1.0, 1.0, 2 * 10**9).line() == "a: loss 1, 1 s an update, 2.00 GB held at most"
