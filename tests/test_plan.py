"""A plan's bytes are those of a real training, and what cannot fit is refused with its number."""

from functools import partial

import pytest
import torch
from tiny_pipelines import tiny_pipeline
from torch import nn
from torch.nn import functional

from distill_lib.diffusion.schedules import OURS
from distill_lib.engine import store
from distill_lib.engine.loop import Loop, TrainSettings
from distill_lib.engine.savings import Savings, in_bf16
from distill_lib.guided.halving import Halving, halve_steps
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.measure import plan as plans
from distill_lib.measure.memory import Live, as_on_gpu, bytes_of, fake, held_by, saved
from distill_lib.measure.plan import Plan, needed
from distill_lib.measure.roles import METHODS, network
from distill_lib.measure.roles import given as drawn_batch
from distill_lib.networks.adapter import Network
from distill_lib.run import plan as command
from distill_lib.run.plan import ARCHITECTURES, CARDS, architecture, check_fits, main, memory_here
from distill_lib.worlds.captions import LENGTH

PIXELS, BATCH = 8, 4
DRAWING = plans.drawing_bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("teacher")
    tiny_pipeline("v_prediction").save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def model(folder):
    return architecture(str(folder))


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Two pictures are drawn at once, and in a whole plan none: fake tensors take their time."""
    monkeypatch.setattr(plans, "_DRAWN", 2)
    monkeypatch.setattr(plans, "drawing_bytes", lambda model, plan: 0)


class Noise:
    """Latents and states of the tiny pipeline, as data of a method."""

    def __len__(self):
        return 8

    def batch(self, index, device="cpu"):
        return torch.randn(len(index), 4, 4, 4), torch.randn(len(index), LENGTH, 16)


# ------------------------------------------------------------------------------------------------ counting


def test_live_counts_a_storage_once_whatever_views_it_has_and_forgets_it():
    with Live() as live:
        x = torch.zeros(1000)
        views = x.view(10, 100).t(), x[5:]
        assert live.now == live.peak == 4000
        y = x + views[0].reshape(-1)  # a copy of the transposed view, which is gone at once
        assert (live.now, live.peak) == (8000, 12000)
        del x, views
        assert (live.now, live.peak) == (4000, 12000)
    assert bytes_of([y, y[:1]]) == 4000


def test_what_is_saved_of_a_product_is_its_factors_and_no_weight():
    x, weight = torch.randn(10, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    with saved(apart=[weight]) as kept:
        (x @ weight).exp().sum().backward()
    assert bytes_of(kept) == 4 * (10 * 5 + 10 * 7)  # x, and the exponential


def test_as_on_a_gpu_norms_are_float32_under_autocast_and_attention_keeps_no_weights():
    x, norm = torch.randn(2, 64, 16, requires_grad=True), nn.LayerNorm(16)
    with torch.autocast("cpu", torch.bfloat16):
        half = functional.linear(x, torch.eye(16))
        plain = norm(half).dtype
        with as_on_gpu(), saved() as kept:
            assert norm(half).dtype == torch.float32
            q = half.unflatten(2, (2, 8)).transpose(1, 2)
            functional.scaled_dot_product_attention(q, q, q)
    assert plain == torch.bfloat16 and all(tensor.numel() <= x.numel() for tensor in kept)


def test_fake_tensors_count_as_real_ones_do():
    def work():
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 3, 3))
        with Live() as live:
            first = live.add(held_by(net))
            net(torch.randn(2, 3, 16, 16)).square().mean().backward()
        return first, live.now, live.peak

    real = work()
    with fake():
        assert work() == real
    assert real[0] == 4 * (2 * 3 * 8 * 9 + 11)


# ------------------------------------------------------------------------------------------------ against a training


def real_training(method, model, monkeypatch):
    """(bytes that a real update keeps for the way back, bytes of weights, moments) of a real training."""
    make = partial(network, model, False)
    settings = TrainSettings(steps=2, batch_size=BATCH, lr=1e-3)
    teacher = make() if method == "stage-one" else make(time_cond_proj_dim=64)
    teacher.module.requires_grad_(False)
    student, loops = make(time_cond_proj_dim=64), []

    def keep(*arguments):
        loops.append(Loop(*arguments))
        return loops[-1]

    monkeypatch.setattr(f"distill_lib.guided.{'stage_one' if method == 'stage-one' else 'halving'}.Loop", keep)
    run = store.Run("test", {"method": method}, distill_guidance)
    if method == "stage-one":
        training = distill_guidance(student, teacher, Noise(), settings, run)
    else:
        training = halve_steps(student, teacher, Noise(), Halving(4, settings), run)
    with as_on_gpu(), saved(apart=[*held_by(student.module, teacher.module), OURS.alpha]) as kept:
        next(training)
    moments = [value for state in loops[0].optimizer.state.values() for value in state.values()]
    return bytes_of(kept), bytes_of(held_by(student.module)), bytes_of(moments)


@pytest.mark.parametrize("method", ["stage-one", "halving"])
def test_a_plan_has_the_bytes_of_a_real_update(method, model, runs, monkeypatch):
    kept, weights, moments = real_training(method, model, monkeypatch)
    need = needed(model, Plan(method=method, pixels=PIXELS, batch=BATCH, bf16=False)).bytes
    assert need["student"] == need["average"] == need["gradients"] == weights
    assert need["moments"] == moments
    # a plan counts the batch too, whether it is saved or a copy of it is, and losses of single samples
    batch = BATCH * 4 * (4 * 4 * 4 + LENGTH * 16 + 2)
    assert kept - 500 <= need["kept for the way back"] <= kept + batch + 500 and kept > 100_000


def real_update(model, plan):
    with Live() as live:
        cast = METHODS[plan.method](partial(network, model, plan.bf16))
        for net in cast.frozen.values():
            plans.as_frozen(net, plan)
        return plans.one_update(cast, model, plan, live)[0] | {"peak": live.peak}


@pytest.mark.parametrize("method", ["halving", "scores"])
def test_an_update_on_fake_tensors_holds_what_one_on_real_tensors_does(method, model):
    plan = Plan(method=method, pixels=PIXELS, batch=BATCH, savings=Savings(slices=2, offload=True))
    need, real = needed(model, plan).bytes, real_update(model, plan)
    beside = need["text encoder, autoencoder"]
    assert need["peak"] - beside == pytest.approx(real["peak"], rel=1e-3) and beside > 0
    kept = "kept for the way back"
    assert need[kept] == pytest.approx(real[kept], rel=3e-3)
    assert all(need[name] == real[name] for name in real if name not in ("peak", kept))


def test_the_student_of_scores_draws_from_fresh_noise_and_from_that_of_pairs(model):
    cast, sizes = METHODS["scores"](partial(network, model, False)), []
    for net in cast.trained.values():
        net.module.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    cast.loss(*drawn_batch(model, PIXELS, BATCH))
    assert sizes == [2 * BATCH, BATCH, BATCH]  # the online model learns, and is asked for its score


# ------------------------------------------------------------------------------------------------ what saves what


def of(model, **changes):
    savings = Savings(**{k: changes.pop(k) for k in [*changes] if k in Savings.__dataclass_fields__})
    return needed(model, Plan(**{"pixels": 16, "batch": BATCH, "savings": savings} | changes)).bytes


def test_slices_keep_what_one_of_them_needs(model):
    whole, half, sliced = of(model), of(model, batch=BATCH // 2), of(model, slices=2)
    assert sliced["kept for the way back"] == half["kept for the way back"] < whole["kept for the way back"]
    assert sliced["gradients"] == whole["gradients"]


def test_each_saving_takes_from_its_own_roles(model):
    plain = of(model)
    changed = {
        "checkpointing": {"kept for the way back"},
        "frozen_bf16": {"teacher"},
        "offload": {"average"},
    }
    for name, roles in changed.items():
        less = of(model, **{name: True})
        assert {role for role in plain if less[role] < plain[role]} == roles | {"peak"}
    assert of(model, offload=True)["average"] == 0
    two = of(model, processes=2)  # of so small a network all gradients are exchanged at once, after the way back
    assert two | {"peak": plain["peak"]} == plain and 0 < two["peak"] - plain["peak"] < plain["gradients"]
    with_students = of(model, resting=3)
    assert with_students["resting"] == 3 * 4 * plans._teacher_weights(model) > 0
    assert with_students["peak"] - plain["peak"] == with_students["resting"]


def test_drawing_holds_the_teacher_and_what_it_makes_of_two_pictures_and_prompts(model):
    weights, few = 4 * plans._teacher_weights(model), DRAWING(model, Plan(pixels=8))
    more = DRAWING(model, Plan(pixels=16))
    assert weights < few < more < weights + 4.1 * (few - weights)


def test_stage_one_holds_what_drawing_makes_beside_what_it_trains(model, monkeypatch):
    weights = 4 * plans._teacher_weights(model)
    monkeypatch.setattr(plans, "drawing_bytes", lambda model, plan: weights + 10**9)
    need = of(model, method="stage-one")
    held = ("student", "teacher", "text encoder, autoencoder", "average", "moments")
    assert need["peak"] == sum(need[role] for role in held) + 10**9
    assert need["drawing"] == weights + 10**9 + need["text encoder, autoencoder"]


def test_moments_of_eight_bits_take_a_quarter_and_their_scales():
    weight, bias = torch.empty(64, 128), torch.empty(128)
    assert bytes_of(plans.moment_tensors(weight, "adamw8bit")) == 2 * (64 * 128 + 4 * 32)
    assert (
        bytes_of(plans.moment_tensors(bias, "adamw8bit"))
        == bytes_of(plans.moment_tensors(bias, "adamw"))
        == 2 * 4 * 128 + 4
    )
    assert plans.moment_tensors(weight, "paged_adamw8bit") == []


@pytest.mark.parametrize("method", ["halving", "stage-one"])
def test_another_optimiser_changes_the_moments_and_the_peak_by_as_much(method, model, monkeypatch):
    monkeypatch.setattr(plans, "drawing_bytes", lambda model, plan: 10**8)
    few, whole = (
        needed(model, Plan(method=method, pixels=8, batch=BATCH, savings=Savings(slices=2, optimizer=name)))
        for name in ("adamw8bit", "adamw")
    )
    assert whole.by("adamw8bit") == few and few.by("adamw") == whole
    assert whole.bytes["peak"] - few.bytes["peak"] == whole.moments["adamw"] - whole.moments["adamw8bit"] > 0


def test_frozen_weights_in_bfloat16_answer_to_the_bit_as_before(model):
    torch.manual_seed(0)
    net = network(model, True)
    before = bytes_of(held_by(net.module))
    given = torch.randn(2, 4, 4, 4), torch.tensor([10, 900]), torch.randn(2, LENGTH, 16)
    with torch.no_grad():
        answer = net(*given)
        in_bf16(net.module)
        assert torch.equal(net(*given), answer)
    assert bytes_of(held_by(net.module)) < 0.52 * before


# ------------------------------------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ("name", "weights"), [("sd-1.5", 859_520_964), ("sd-2.1", 865_910_724), ("sdxl", 2_567_463_684)]
)
def test_known_teachers_have_the_known_numbers_of_weights(name, weights):
    with torch.device("meta"):
        net = network(ARCHITECTURES[name], True)
    assert sum(p.numel() for p in net.module.parameters()) == weights


def test_the_folder_is_read_by_its_configurations_alone(folder, model, monkeypatch):
    pipe = tiny_pipeline("v_prediction")
    parts = pipe.text_encoder, pipe.vae
    assert plans.beside_bytes(model)[0] == sum(p.numel() for part in parts for p in part.parameters())
    assert network(model, True).module.state_dict().keys() == pipe.unet.state_dict().keys()
    with pytest.raises(ValueError, match=r"teacher='sd-3' is no folder with a model_index.json; name one, or .* sdxl"):
        architecture("sd-3")


def test_the_command_prints_roles_and_cards_and_refuses_with_the_number(folder, monkeypatch, capsys):
    arguments = [str(folder), "--pixels", "8", "--batch", "2", "--method", "stage-one"]
    main(arguments)
    printed = capsys.readouterr().out
    millions = plans._teacher_weights(architecture(str(folder))) / 1e6
    assert f"| teacher | {millions:.1f} |" in printed and "| H100 | 80 | yes |" in printed
    monkeypatch.setattr(command, "GIB", 1)
    with pytest.raises(
        ValueError, match=r"^stage-one of 2 samples at 8 pixels needs 1.0 GB, and L4 has 0.0: take more"
    ):
        main([*arguments, "--card", "L4"])
    for wrong, message in ((["--batch", "0"], "--batch=0 should be 1"), (["--slices", "3"], "does not divide into 3")):
        with pytest.raises(ValueError, match=message):
            main([*arguments, *wrong])


def test_a_refusal_names_what_is_not_used_yet():
    need = plans.Needed({"peak": 30 * 10**9, "drawing": 10**9}, {}, 0)
    full = Savings(slices=2, checkpointing=True, frozen_bf16=True, offload=True, optimizer="adamw8bit")
    for savings, cures in (
        (Savings(), "more slices than 1, checkpointing, frozen-bf16, offload, adamw8bit"),
        (full, ""),
    ):
        with pytest.raises(ValueError, match=f"needs 32.5 GB, and a card has 24.0: take {cures or 'a smaller batch,'}"):
            check_fits(need, Plan(batch=2, savings=savings), "a card", 24 * 10**9)
    check_fits(need, Plan(), "a card", 33 * 10**9)


def test_of_two_cards_that_are_sold_as_24_gb_the_one_with_error_correction_has_less():
    memory = {name: CARDS[name].memory * 2**30 for name in ("RTX 3090", "L4")}
    assert memory["RTX 3090"] == 24576 * 2**20 and memory["L4"] == pytest.approx(23034 * 2**20, rel=5e-3)
    need = plans.Needed({"peak": int(22.3e9), "drawing": 0}, {}, 0)  # 24.4 GB with the reserve
    check_fits(need, Plan(), "RTX 3090", memory["RTX 3090"])
    with pytest.raises(ValueError, match=r"needs 24.4 GB, and L4 has 24.2: take "):
        check_fits(need, Plan(), "L4", memory["L4"])


def test_a_plan_takes_as_long_as_its_operations_do_at_a_share_of_the_maker_s_number():
    need = plans.Needed({}, {}, 71 * 10**12)
    assert command.seconds(need, Plan(), CARDS["RTX 3090"]) == pytest.approx(1 / 0.35)
    assert memory_here()[1] > 10**8


def test_networks_are_built_by_the_adapter(model):
    assert isinstance(network(model, True), Network)
