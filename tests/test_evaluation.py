"""What is measured is what its name says: the right truth, the right classes, the right evaluations."""

from types import SimpleNamespace

import pytest
import torch
from closed_forms import tiny_unet
from real_folders import cifar_folder

from distill_lib.diffusion.guidance import combine, guided_pair
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.schedules import v_from
from distill_lib.diffusion.solvers import SAMPLERS
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.guided.halving import Halving, halve_down
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.measure import classes as evaluation
from distill_lib.measure import draw
from distill_lib.measure.classes import Measured, energy_rows, stage_one_errors, timed_rows
from distill_lib.measure.draw import BATCH, classes, held_out, sample_pictures, showcase
from distill_lib.measure.metrics import Reader
from distill_lib.measure.readers.extractor import Extractor
from distill_lib.networks.adapter import Keyed, Network
from distill_lib.networks.unet import build_unet, student_of
from distill_lib.shipped import pretrained
from distill_lib.teachers.denoising import train_teacher
from distill_lib.worlds.pictures import WORLDS, DatasetSpec, Pictures, load, render_pictures

N = 96


class Named:
    """Stands for a network of the textured world, which is only named here and never asked."""

    null = N

    def __init__(self, takes_w):
        self.takes_w = takes_w


@pytest.fixture(scope="module")
def reader():
    return Reader(pretrained.extractor())


@pytest.fixture(scope="module")
def one_of_each():
    """A real picture of each class of the textured world, uint8 (96, 3, 32, 32)."""
    image, scenes = render_pictures(WORLDS["textured"], 5, torch.arange(1500))
    label = scenes.labels(WORLDS["textured"])
    return torch.stack([image[(label == k).nonzero()[0, 0]] for k in range(N)])


@pytest.fixture
def measured(reader, runs, monkeypatch):
    """`Measured` of a network whose pictures are handed to it: `measured.hand[(net, steps, w)]`."""
    hand, calls = {}, []

    def samples_of(net, n_steps, w, n, seed=0, sampler="ddim"):
        calls.append((net, n_steps, w, n, seed, sampler))
        return hand[net, n_steps, w]

    monkeypatch.setattr(evaluation, "samples_of", samples_of)
    teacher = Named(takes_w=False)
    benchmark = Measured(reader, teacher, "textured", N, 64, seed=3)
    benchmark.hand, benchmark.calls = hand, calls
    return benchmark


def values(rows):
    return {row["metric"]: row["value"] for row in rows}


def test_real_pictures_of_the_right_classes_are_accurate_and_of_others_are_not(measured, one_of_each):
    student = Named(takes_w=True)
    measured.hand[measured.teacher, 64, 1.0] = one_of_each
    measured.hand[student, 4, 1.0] = one_of_each
    assert values(measured.rows("ours-D", student, 4, 1.0))["accuracy"] > 0.97
    measured.hand[student, 4, 1.0] = one_of_each.roll(1, 0)  # labels and pictures out of step
    shuffled = values(measured.rows("ours-D", student, 4, 1.0))
    assert shuffled["accuracy"] < 0.05 and shuffled["margin"] < 0


def test_the_truth_is_the_teacher_at_the_same_strength_seed_and_its_most_steps(measured, one_of_each):
    student = Named(takes_w=True)
    measured.hand[student, 4, 2.0] = measured.hand[measured.teacher, 64, 2.0] = one_of_each
    same = values(measured.rows("ours-S", student, 4, 2.0, "stochastic"))
    assert measured.calls == [(student, 4, 2.0, N, 3, "stochastic"), (measured.teacher, 64, 2.0, N, 3, "ddim")]
    assert same["paired"] == 0 and abs(same["fid_teacher"]) < 1e-3
    assert torch.equal(measured.truth(2.0, 3), one_of_each[:3])
    measured.hand[student, 4, 2.0] = one_of_each.flip(0)  # the same set, other pairs
    flipped = values(measured.rows("ours-D", student, 4, 2.0))
    assert abs(flipped["fid_teacher"]) < 1e-3 and flipped["paired"] > 0.05


def test_blur_shows_in_the_distance_and_in_the_sharpness(measured, one_of_each):
    student = Named(takes_w=True)
    measured.hand[measured.teacher, 64, 1.0] = one_of_each
    soft = torch.nn.functional.avg_pool2d(one_of_each.float(), 3, 1, 1, count_include_pad=False)
    measured.hand[student, 4, 1.0] = soft.round().to(torch.uint8)
    blurred = values(measured.rows("ours-D", student, 4, 1.0))
    assert blurred["sharpness"] < 0.5 * measured.real_sharpness
    assert blurred["fid_teacher"] > 0.1 * measured.floor  # a floor of 96 pictures is mostly bias; sharp it would be 0


def test_rows_count_evaluations_and_say_what_they_are(measured, one_of_each):
    student = Named(takes_w=True)
    for net, steps in ((measured.teacher, 4), (measured.teacher, 64), (student, 4)):
        for w in (0.0, 1.0):
            measured.hand[net, steps, w] = one_of_each
    nfe = {
        (method, w): measured.rows(method, net, 4, w)[0]["nfe"]
        for method, net in (("ddim", measured.teacher), ("ours-D", student))
        for w in (0.0, 1.0)
    }
    assert nfe == {("ddim", 0.0): 4, ("ddim", 1.0): 8, ("ours-D", 0.0): 4, ("ours-D", 1.0): 4}
    row = measured.rows("ddim", measured.teacher, 4, 1.0)[0]
    assert (row["steps"], row["w"], row["seed"], row["n"]) == (4, 1.0, 3, N)


def test_a_distance_during_training_is_that_of_the_weights_of_then(runs, monkeypatch):
    """Of a student that has become its teacher the distance is 0; its own weights stay as they are."""
    monkeypatch.setattr(evaluation, "fid", lambda reader, a, b: (a.float() - b.float()).square().mean().item())
    teacher = Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    student = Network(student_of(tiny_unet(1)).requires_grad_(False), bf16=False)
    truth = draw.samples_of(teacher, 4, 1.0, 8, seed=2)
    measured = SimpleNamespace(reader=None, seed=2, truth=lambda w, n: truth[:n])
    before = {name: value.clone() for name, value in student.module.state_dict().items()}
    snapshots = {5: before, 9: teacher.module.state_dict()}
    rows = evaluation.distance_rows(measured, student, snapshots, 4, 1.0, n=6)
    assert [(row["update"], row["n"], row["seed"], row["steps"]) for row in rows] == [(5, 6, 2, 4), (9, 6, 2, 4)]
    assert rows[0]["value"] > 0 and rows[1]["value"] == 0
    assert all(torch.equal(value, before[name]) for name, value in student.module.state_dict().items())


def test_real_data_are_compared_with_test_pictures_and_two_sets_share_none(tmp_path, runs, monkeypatch):
    monkeypatch.setenv("DISTILL_FOLDER", str(cifar_folder(tmp_path / "cifar")))
    single, double = held_out("cifar10", 20), held_out("cifar10", 20, part=1)
    test = load(DatasetSpec(name="cifar10", split="test")).image
    first, second, every = ({image.numpy().tobytes() for image in images} for images in (single, double, test))
    assert first | second == every and not first & second
    with pytest.raises(ValueError, match="cifar10 has 40 test pictures; 2 sets of samples=30 need more"):
        held_out("cifar10", 30, part=1)


def test_a_teacher_and_a_student_of_cifar10_go_through_the_same_code(tmp_path, runs, monkeypatch):
    monkeypatch.setenv("DISTILL_FOLDER", str(cifar_folder(tmp_path / "cifar")))
    pictures = load(DatasetSpec(name="cifar10"))
    teacher = Network(build_unet(resolution=32, n_classes=10, channels=(16, 32)))
    train_settings = TrainSettings(steps=2, batch_size=8, lr=1e-3, warmup=1)
    run = Run("test", {"name": "cifar"}, normal)
    finish(teacher, train_teacher(teacher, pictures, train_settings, run), run, "teacher")
    student = Network(student_of(teacher.module))
    run = Run("test", {"name": "stage one"}, normal)
    finish(student, distill_guidance(student, teacher, pictures, train_settings, run), run, "stage one")
    chain = halve_down(Keyed(student, run.key), pictures, [Halving(n, train_settings.with_seed(n)) for n in (2, 1)])
    reader = Reader(Extractor(10, 4).eval())
    rows = Measured(reader, teacher, "cifar10", 20, 4).rows("ours-D", chain[2].net, 2, 1.0)
    assert {row["metric"] for row in rows} > {"fid", "fid_teacher", "accuracy"}
    assert all(row["nfe"] == 2 and row["n"] == 20 for row in rows)


def test_stage_one_errors_are_0_for_the_pair_itself_and_1_for_its_conditional_half(runs):
    teacher = Network(tiny_unet().requires_grad_(False), bf16=False)
    image = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    pictures = Pictures(image, torch.arange(16) % 3, ("a", "b", "c"))

    def perfect(z_t, t, label, w):
        return combine(*guided_pair(teacher, z_t, t, label, teacher.null), w)

    def deaf(z_t, t, label, w):
        return guided_pair(teacher, z_t, t, label, teacher.null)[0]

    for student, error in ((perfect, 0.0), (deaf, 1.0)):
        rows = stage_one_errors(student, teacher, pictures, [64, 1024], [0.5, 4.0], n=16)
        assert [(row["t"], row["w"]) for row in rows] == [(1 / 16, 0.5), (1 / 16, 4.0), (1.0, 0.5), (1.0, 4.0)]
        assert [row["value"] for row in rows] == pytest.approx([error] * 4, abs=1e-9)


def test_the_energy_that_is_missed_weighs_times_by_what_guidance_adds():
    """v_cond - v_uncond = t / T and a student that is off by 0.1 everywhere:  E(w) = 2 0.01 / (w^2 sum (t/T)^2)."""
    pictures = Pictures(torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8), torch.arange(8) % 4, tuple("abcd"))

    class Pair:
        device, null = torch.device("cpu"), 4

        def __call__(self, z_t, t, label, w=None):
            return (label != 4)[:, None, None, None] * (t / 1024)[:, None, None, None] * torch.ones_like(z_t)

    pair, ws = Pair(), [0.5, 4.0]

    def student_off_by(offset, heard):
        def student(z_t, t, label, w):
            v_cond, v_uncond = guided_pair(pair, z_t, t, label, pair.null)
            return combine(v_cond, v_uncond, heard * w) + offset

        return student

    def energy(student):
        rows = energy_rows(student, pair, pictures, [512, 1024], ws, n=16)
        assert [(row["w"], row["metric"], row["n"]) for row in rows] == [(w, "energy_error", 8) for w in ws]
        return [row["value"] for row in rows]

    assert energy(student_off_by(0.0, 1)) == [0, 0] and energy(student_off_by(0.0, 0)) == pytest.approx([1, 1])
    assert energy(student_off_by(0.1, 1)) == pytest.approx([0.02 / (w**2 * 1.25) for w in ws], rel=1e-4)


def test_times_are_of_one_batch_with_their_evaluations():
    pair = Network(tiny_unet().requires_grad_(False))
    seconds, rate = timed_rows("ddim", pair, 2, 1.0, 1, {"seed": 7})
    assert (seconds["metric"], rate["metric"]) == ("seconds", "images_per_second")
    assert seconds["nfe"] == rate["nfe"] == 4 and seconds["seed"] == 7
    assert seconds["value"] * rate["value"] == pytest.approx(BATCH)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_depends_on_its_number_and_the_seed_alone(sampler, monkeypatch):
    net = Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    whole = sample_pictures(net, 4, 1.0, classes(6, 3), seed=1, sampler=sampler)
    monkeypatch.setattr(draw, "BATCH", 2)
    assert (sample_pictures(net, 4, 1.0, classes(6, 3), seed=1, sampler=sampler).int() - whole.int()).abs().max() <= 1
    other = sample_pictures(net, 4, 1.0, classes(6, 3), seed=2, sampler=sampler)
    assert not torch.equal(other, whole)


def test_the_stochastic_samplers_draw_noise_on_the_way():
    net = Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    d, s, a = (sample_pictures(net, 4, 1.0, classes(4, 3), sampler=by) for by in ("ddim", "stochastic", "ancestral"))
    assert not torch.equal(d, s) and not torch.equal(d, a) and not torch.equal(s, a)


@pytest.mark.parametrize("unknown", ["ours-D", "ours-S", "lcm", "teacher", ""])
def test_an_unknown_sampler_is_refused_and_leaves_nothing_in_the_cache(unknown, runs):
    net = Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    with pytest.raises(ValueError, match=f"sampler='{unknown}' is unknown; choose one of ddim, stochastic, .*unipc$"):
        draw.samples_of(net, 4, 1.0, 2, sampler=unknown)
    assert not list(runs.rglob("*.safetensors"))


def test_samples_are_kept_by_the_name_of_their_sampler(runs):
    net = Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    for count, sampler in enumerate(SAMPLERS, 1):
        draw.samples_of(net, 4, 1.0, 2, sampler=sampler)
        assert len(list(runs.rglob("*.safetensors"))) == count


def test_sets_of_one_network_share_the_parts_that_are_alike(runs, monkeypatch):
    net = Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    monkeypatch.setattr(draw, "BATCH", 4)
    kept = []
    for n in (6, 10, 8, 6):
        assert torch.equal(draw.samples_of(net, 2, 1.0, n), sample_pictures(net, 2, 1.0, classes(n, 3)))
        kept.append(len(list(runs.rglob("*.safetensors"))))
    assert kept == [2, 4, 4, 4]  # numbers 0 to 3 and 4, 5; then 4 to 7 and 8, 9; then nothing new
    draw.samples_of(net, 2, 1.0, 4, seed=1)
    assert len(list(runs.rglob("*.safetensors"))) == 5


def test_the_pictures_shown_are_spread_over_the_classes():
    for n, count in ((768, 10), (256, 8), (96, 2)):
        index = showcase(n, 96, count)
        assert len(index.unique()) == count and index.max() < 96
        assert torch.equal(index, showcase(768, 96, count))
    assert showcase(32, 96, 8).max() < 32
    eight = showcase(768, 96, 8)
    assert len((eight % 3).unique()) == 3 and len((eight // 24).unique()) == 4  # every texture, every shape


def test_what_guidance_is_made_of_is_exact_for_a_teacher_that_is_right_with_the_class():
    """v_cond = v and v_uncond = v + 0.2: the losses are 0 and 0.04, and so is the size of guidance."""
    image = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
    pictures = Pictures(image, torch.arange(8) % 4, tuple("abcd"))
    x, _ = pictures.batch(torch.arange(8))
    eps = evaluation.noise.normal(0, "guidance", 0, torch.arange(8), x.shape[1:])

    class Right:
        device, null = torch.device("cpu"), 4

        def __call__(self, z_t, t, label, w=None):
            right = v_from(x.repeat(2, 1, 1, 1), eps.repeat(2, 1, 1, 1), t)
            return right + 0.2 * (label == 4)[:, None, None, None]

    result = evaluation.guidance_rows(Right(), pictures, [64, 1024], n=8)
    value = {(row["t"], row["metric"]): row["value"] for row in result}
    for t in (1 / 16, 1.0):
        assert value[t, "loss_cond"] == 0
        assert value[t, "loss_uncond"] == pytest.approx(0.04, rel=1e-4)
        assert value[t, "guidance_size"] == pytest.approx(0.04, rel=1e-4)
