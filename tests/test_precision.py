"""bfloat16 or float32: measured once, overridden by PRECISION, and kept by a training that goes on."""

import json

import pytest
import torch
from closed_forms import tiny_unet
from torch import nn

from distill_lib.diffusion.noise import normal
from distill_lib.engine import precision, store
from distill_lib.engine.loop import Loop, TrainSettings
from distill_lib.engine.origin import origin
from distill_lib.engine.trainable import Bare
from distill_lib.measure import draw
from distill_lib.measure.draw import samples_of
from distill_lib.networks.adapter import Network
from distill_lib.networks.autoencoders import TinyDecode

STEPS = 6
TIMED = precision.timed


@pytest.fixture(autouse=True)
def machine(runs, monkeypatch):
    """A fresh process on a CPU whose PRECISION is not set; the list counts measurements of (bf16, fp32) seconds."""
    monkeypatch.delenv("PRECISION", raising=False)
    measured = []
    monkeypatch.setattr(precision, "timed", lambda: measured.append(1) or {"bf16": 0.010, "fp32": 0.020})
    precision.choose.cache_clear()
    yield measured
    precision.choose.cache_clear()


def takes(monkeypatch, bf16, fp32):
    monkeypatch.setattr(precision, "timed", lambda: {"bf16": bf16, "fp32": fp32})
    precision.choose.cache_clear()
    (store.RUNS / "machine.json").unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------ the choice


@pytest.mark.parametrize(
    ("bf16", "fp32", "chosen"),
    [(0.010, 0.020, "bf16"), (0.753, 0.493, "fp32"), (0.010, 0.010, "fp32"), (0.94, 1.0, "bf16")],
)
def test_the_faster_one_is_chosen_and_of_equals_the_finer(bf16, fp32, chosen, monkeypatch, capsys):
    takes(monkeypatch, bf16, fp32)
    assert precision.current() == chosen
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{chosen} it is" in line and f"{1e3 * bf16:.0f}" in line


def test_a_machine_is_measured_once_and_remembered_by_what_it_is(machine, capsys):
    for _ in range(3):
        assert precision.current() == "bf16"
    precision.choose.cache_clear()  # another process
    assert precision.current() == "bf16" and len(machine) == 1
    ((name, result),) = json.loads((store.RUNS / "machine.json").read_text()).items()
    assert result == {"precision": "bf16", "bf16_ms": 10.0, "fp32_ms": 20.0}
    assert precision._processor() in name and f"torch {torch.__version__}" in name
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_another_processor_is_measured_too_and_both_are_remembered(machine, monkeypatch):
    precision.current()
    monkeypatch.setattr(precision, "_processor", lambda: "another")
    precision.choose.cache_clear()
    precision.current()
    assert len(machine) == 2 and len(json.loads((store.RUNS / "machine.json").read_text())) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"x": 1}', "\x00"])
def test_a_broken_memory_is_measured_again(text, machine):
    store.RUNS.mkdir()
    (store.RUNS / "machine.json").write_text(text)
    assert precision.current() == "bf16" and len(machine) == 1


def test_where_nothing_can_be_written_it_is_measured_all_the_same(machine, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(store, "RUNS", tmp_path / "file" / "runs")
    assert precision.current() == precision.current() == "bf16" and len(machine) == 1


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_is_asked_and_not_measured(supported, machine, monkeypatch):
    monkeypatch.setattr(precision, "default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert precision.current() == ("bf16" if supported else "fp32") and not machine


@pytest.mark.parametrize("wanted", store.PRECISIONS)
def test_precision_overrides_the_machine(wanted, machine, monkeypatch):
    monkeypatch.setenv("PRECISION", wanted)
    assert precision.current() == wanted and not machine


def test_an_unknown_precision_ends_in_a_sentence(monkeypatch):
    monkeypatch.setenv("PRECISION", "fp8")
    with pytest.raises(ValueError, match=r"^PRECISION=fp8 is unknown; choose one of bf16, fp32, or leave it unset"):
        precision.current()
    with pytest.raises(ValueError, match="PRECISION=fp8"):
        store.Run("test", {}, normal)


def test_the_measurement_runs_anywhere_and_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    with torch.inference_mode():
        assert set(TIMED(budget=0)) == {"bf16", "fp32"}
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_measured_before_a_network_is_asked(machine):
    net = Network(tiny_unet())
    net.like(net.module).exact()
    TinyDecode(nn.Module())
    run_named()
    assert not machine
    assert net.bf16 and len(machine) == 1


# ------------------------------------------------------------------------------------------------ who computes in it


def outputs(monkeypatch):
    for wanted in store.PRECISIONS:
        monkeypatch.setenv("PRECISION", wanted)
        yield wanted == "bf16"


def test_networks_and_decoders_follow_it_at_every_call_unless_they_are_told(monkeypatch):
    unet = tiny_unet().requires_grad_(False)
    net, decode = Network(unet), TinyDecode(nn.Module())
    decode.tiny.decoder = nn.Conv2d(4, 3, 3, padding=1)
    inputs = torch.randn(2, *net.shape), torch.tensor([1, 900]), torch.tensor([0, 1])
    z = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        expected = {bf16: Network(unet, bf16=bf16)(*inputs) for bf16 in (True, False)}
        pixels = {bf16: TinyDecode(decode.tiny, bf16=bf16)(z) for bf16 in (True, False)}
        assert not torch.equal(expected[True], expected[False]) and not torch.equal(pixels[True], pixels[False])
        for bf16 in outputs(monkeypatch):
            assert net.bf16 == net.like(unet).bf16 == bf16 and not net.exact().bf16
            assert torch.equal(net(*inputs), expected[bf16]) and torch.equal(decode(z), pixels[bf16])
            assert Network(unet, bf16=True).bf16 and Network(unet, bf16=True).like(unet).bf16


def test_cached_samples_and_records_say_what_they_were_computed_in(monkeypatch):
    specs = []
    monkeypatch.setattr(
        draw, "cached", lambda kind, spec, make, module: specs.append(spec) or {"image": torch.zeros(1)}
    )
    net = Network(tiny_unet())
    for bf16 in outputs(monkeypatch):
        samples_of(net, 4, 1.0, 8)
        assert specs[-1]["bf16"] is bf16
        assert origin()["precision"] == ("bf16" if bf16 else "fp32")


# ------------------------------------------------------------------------------------------------ a training


def run_named():
    return store.Run("test", {"settings": TrainSettings(steps=STEPS, batch_size=4, lr=1e-2)}, normal)


def train(run, seen, **changes):
    torch.manual_seed(0)
    net = Bare(nn.Linear(3, 3))
    options = {"steps": STEPS, "batch_size": 4, "lr": 1e-2, "warmup": 1, "checkpoint_seconds": 0} | changes
    loop = Loop(net, TrainSettings(**options), run)
    for _, draws in loop:
        seen.append(precision.current())
        with precision.autocast(loop.device, loop.settings.bf16):
            result = net.forward(draws.normal("x", (3,))).float()
        yield loop.update(result.square().mean(1))


def written(run):
    return json.loads((run.folder / "config.json").read_text())["precision"]


def test_a_run_is_the_same_on_every_machine_and_another_where_precision_is_set(monkeypatch):
    keys = {run_named().key}
    takes(monkeypatch, 2.0, 1.0)
    keys.add(run_named().key)
    assert len(keys) == 1 and run_named().config["precision"] == "auto"
    for wanted in store.PRECISIONS:
        monkeypatch.setenv("PRECISION", wanted)
        keys.add(run_named().key)
    assert len(keys) == 3


@pytest.mark.parametrize(("first", "second"), [((2.0, 1.0), (1.0, 2.0)), ((1.0, 2.0), (2.0, 1.0))])
def test_a_run_that_goes_on_elsewhere_keeps_its_numbers_to_the_last_bit(first, second, monkeypatch, tmp_path):
    takes(monkeypatch, *first)
    run, seen, name = run_named(), [], "bf16" if first < second else "fp32"
    for progress in train(run, seen):
        if progress.step == 3:
            break
    assert written(run) == name
    takes(monkeypatch, *second)  # it is moved to another machine
    assert precision.current() != name
    for _ in train(run, seen):
        assert precision.current() != name  # lifted while somebody else has a say
    assert seen == [name] * STEPS and written(run) == name and precision.current() != name
    monkeypatch.setattr(store, "RUNS", tmp_path / "straight")
    takes(monkeypatch, *first)
    straight = run_named()
    list(train(straight, []))
    assert torch.equal(straight.weights()["weight"], run.weights()["weight"])


@pytest.mark.parametrize("model", [True, False])
def test_settings_that_say_it_are_obeyed_and_nothing_is_measured(model, machine):
    run, seen = run_named(), []
    list(train(run, seen, bf16=model))
    assert set(seen) == {written(run)} == {"bf16" if model else "fp32"} and not machine


def test_what_a_training_holds_is_lifted_when_it_fails(monkeypatch):
    takes(monkeypatch, 2.0, 1.0)
    loop = Loop(Bare(nn.Linear(3, 3)), TrainSettings(steps=2, batch_size=4, lr=1e-2, bf16=True), run_named())

    def fail():
        for _ in loop:
            assert precision.current() == "bf16"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert precision.current() == "fp32"


def test_blocks_may_end_in_any_order(monkeypatch):
    monkeypatch.setenv("PRECISION", "bf16")
    first, second = precision.held("fp32"), precision.held("bf16")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert precision.current() == "bf16"
    second.__exit__(None, None, None)
    assert not precision._held
