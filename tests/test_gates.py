"""Gates of the studio: each number in closed form, by readers and networks that need no training."""

import math

import pytest
import torch
from torch import nn

from distill_lib.diffusion.noise import Draws
from distill_lib.engine import store
from distill_lib.engine.loop import TrainSettings
from distill_lib.engine.trainable import Bare
from distill_lib.measure import gates
from distill_lib.measure.gates import (
    DEFICIT,
    GATES,
    Gate,
    autoencoder_rows,
    deficit_rows,
    floor_rows,
    gate_rows,
    one_step_rows,
    prompt_rows,
)
from distill_lib.measure.readers.attributes import prompt_accuracy, read_attributes
from distill_lib.measure.readers.extractor import scene_examples
from distill_lib.measure.readers.studio import (
    StudioReader,
    details,
    floors_read,
    glyph_probabilities,
    glyph_shares,
    glyphs_read,
    in_all_glyphs,
    legible,
    legible_agreement,
    mixed,
    studio_loss,
    train_studio_reader,
)
from distill_lib.measure.rows import select, tidy
from distill_lib.worlds.captions import attributes
from distill_lib.worlds.pictures import WORLDS, render_pictures
from distill_lib.worlds.vocabulary import STUDIO

SPEC = WORLDS["studio"]


class Corner(nn.Module):
    """A reader that takes the red of the first pixel for the glyph: logit 4 for number red // 25, else 0."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, image):
        number = ((image[:, 0, 0, 0] + 1) * 127.5 / 25).round().long().clamp(0, 9)
        glyph = self.scale * nn.functional.one_hot(number, 10)
        return torch.zeros(len(image), 2, 25), glyph, torch.zeros(len(image), 4)


def pictures(numbers, contrast=60):
    """Checkerboards of a contrast whose first pixel's red says the glyph."""
    y, x = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    board = 128 + contrast * (2 * ((x + y) % 2) - 1)
    image = board.expand(len(numbers), 3, 8, 8).clone().to(torch.uint8)
    image[:, 0, 0, 0] = (25 * torch.tensor(numbers)).to(torch.uint8)
    return image


def of(rows, **wanted):
    (row,) = select(rows, **wanted)
    return row["value"]


SURE = math.exp(4) / (math.exp(4) + 9)


def test_glyphs_read_legible_and_agreement_count_what_they_say():
    probability = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.1, 0.0, 0.9], [0.2, 0.5, 0.3]])
    assert glyphs_read(probability, torch.tensor([0, 1, 2, 0])) == 0.5
    assert legible(probability) == pytest.approx((0.7 + 0.4 + 0.9 + 0.5) / 4)
    teacher = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.0, 0.6, 0.4]])
    assert legible_agreement(probability, teacher) == 0.75 and legible_agreement(teacher, teacher) == 1
    assert legible(torch.full((5, 10), 0.1)) == pytest.approx(0.1)


def test_an_autoencoder_is_judged_by_glyphs_noise_and_sharpness():
    image = pictures([0, 1, 2, 3])
    back = pictures([0, 1, 2, 9])
    rows = autoencoder_rows(Corner(), image, back, torch.arange(4), 5)
    assert of(rows, method="autoencoder", metric="glyphs_read") == 0.75
    assert of(rows, method="real", metric="glyphs_read") == 1
    square = ((25 * 6) / 127.5) ** 2 / (4 * 3 * 64)  # one value of one picture is off by 150
    assert of(rows, metric="psnr") == pytest.approx(10 * math.log10(4 / square), rel=1e-5)
    assert {row["seed"] for row in rows} == {5} and {row["n"] for row in rows} == {4}


def test_sharpness_kept_is_the_square_of_the_contrast():
    full, half = pictures([4] * 3, 80), pictures([4] * 3, 40)
    full[:, 0, 0, 0] = half[:, 0, 0, 0] = 128
    rows = one_step_rows(Corner(), half, full)
    assert of(rows, method="squares", metric="sharpness_kept") == pytest.approx(0.25, rel=0.02)
    assert of(rows, method="squares", metric="legible_agreement") == 1
    assert of(rows, method="squares", metric="legible_kept") == pytest.approx(1)
    assert of(rows, method="squares", metric="legible") == pytest.approx(SURE, rel=1e-5)


def test_what_is_kept_of_legibility_is_counted_from_chance():
    class Blind(Corner):
        def forward(self, image):
            return torch.zeros(len(image), 2, 25), 0 * super().forward(image)[1], torch.zeros(len(image), 4)

    rows = one_step_rows(Blind(), pictures([1, 2]), pictures([3, 4]))
    assert of(rows, method="squares", metric="legible") == pytest.approx(0.1)

    class Half(Corner):
        """Certain where the picture is bright at its last pixel."""

        def forward(self, image):
            sure = (image[:, 0, -1, -1] > 0)[:, None]
            return torch.zeros(len(image), 2, 25), super().forward(image)[1] * sure, torch.zeros(len(image), 4)

    image, truth = pictures([1, 2]), pictures([1, 2])
    image[..., -1, -1], truth[..., -1, -1] = torch.tensor([255, 0])[:, None], 255
    rows = one_step_rows(Half(), image, truth)
    assert of(rows, metric="legible_kept") == pytest.approx(0.5)


class Answers:
    """A benchmark whose pictures are all wrong without guidance and right with it."""

    n, seed, real, shows = 4, 3, "real", "shows"

    def pictures(self, net, n_steps, w):
        return w

    def judged(self, image, wanted=None):
        return {"prompt_accuracy": 1.0 if image == "real" else image / 4, "sharpness": 0.1}


class Pair:
    takes_w = False


def test_prompts_are_judged_at_each_strength_and_beside_real_pictures():
    rows = prompt_rows(Answers(), Pair(), 32)
    assert of(rows, method="early", metric="prompt_accuracy", w=0.0) == 0
    assert of(rows, method="early", metric="prompt_accuracy", w=2.0) == 0.5
    assert of(rows, method="real", metric="prompt_accuracy") == 1
    assert {row["nfe"] for row in select(rows, w=0.0)} == {32} and {row["nfe"] for row in select(rows, w=2.0)} == {64}


def test_the_error_of_the_cut_is_the_mean_over_noise_levels():
    class Levels:
        held, seed = [0] * 7, 2

        def prediction_rows(self, net, method):
            return [{"metric": "prediction_error", "method": method, "t": t, "value": t} for t in (0.25, 0.5, 0.9)]

    (row,) = gates.cut_rows(Levels(), None)
    assert row["value"] == pytest.approx(0.55) and row["n"] == 7 and row["method"] == "cut" and "t" not in row


def test_the_deficit_removed_is_a_share_of_what_squares_lack():
    values = {"squares": 0.02, "teacher": 0.06, "cnn": 0.05, "vit": 0.02}
    rows = [row for name, v in values.items() for row in tidy({"sharpness": v}, method=name, seed=1)]
    removed = {row["method"]: row["value"] for row in deficit_rows(rows)}
    assert removed == {"cnn": pytest.approx(0.75), "vit": 0.0}
    passed = gate_rows(deficit_rows(rows), tuple(Gate(name, "deficit_removed", low=DEFICIT) for name in removed))
    assert [row["passed"] for row in passed] == [1, 0]
    with pytest.raises(ValueError, match="seed=1: the deficit needs"):
        deficit_rows(rows[1:])
    with pytest.raises(ValueError, match=r"squares are as sharp as the teacher, 0.06"):
        deficit_rows([rows[1] | {"method": "squares"}, rows[1]])


def test_floors_are_standard_errors():
    measured = [
        {"method": "ddim", "steps": 4, "metric": "mmd_teacher", "value": 0.06, "error": 0.01},
        {"method": "ddim", "steps": 4, "metric": "fid_inf", "value": 9.0, "error": 1.0},
    ]
    (row,) = floor_rows(measured)
    assert row == {"method": "ddim", "steps": 4, "metric": "floors", "value": pytest.approx(6)}


def test_gates_are_passed_at_their_limits_and_failed_beyond_them():
    rows = [
        {"method": gate.method, "metric": gate.metric, "value": gate.low if gate.low > -1 else gate.high, "w": gate.w}
        for gate in GATES
    ]
    assert len(GATES) == 10 and all(row["passed"] for row in gate_rows(rows))
    for row in rows:
        row["value"] += 0.01 if row["metric"] in ("legible_kept",) or row["method"] == "squares" else -0.01
    assert not any(row["passed"] for row in gate_rows(rows))
    two_seeds = [{"method": "a", "metric": "b", "value": value} for value in (1.0, 3.0)]
    assert gate_rows(two_seeds, (Gate("a", "b", low=2.0, high=2.0),))[0]["passed"] == 1
    with pytest.raises(ValueError, match="ddim floors has no row"):
        gate_rows([row for row in rows if row["method"] != "ddim"])


# ------------------------------------------------------------------------------------------------ the reader


def test_the_loss_is_that_of_all_attributes_and_of_both_details_and_of_a_mean_that_of_its_glyphs():
    torch.manual_seed(0)
    answers = torch.randn(3, 2, 25), torch.randn(3, 10), torch.randn(3, 4)
    _, scenes = render_pictures(SPEC, 0, torch.arange(3))
    truth, floor = attributes(scenes, SPEC), details(scenes)[:, 1]
    share, whole = torch.rand(3, 10).softmax(1), torch.tensor([True, False, True])
    loss = studio_loss(answers, truth, share, floor, whole)
    for i in range(3):
        each = [
            -logits.log_softmax(0)[right]
            for side in range(2)
            for logits, right in zip(answers[0][i, side].split((6, 12, 5, 2)), truth[i, side], strict=True)
        ]
        expected = -(share[i] * answers[1][i].log_softmax(0)).sum()
        if whole[i]:
            expected = expected + torch.stack(each).mean() - answers[2][i].log_softmax(0)[floor[i]]
        assert loss[i].item() == pytest.approx(expected.item(), rel=1e-5)


def test_scenes_in_all_glyphs_differ_in_their_posters_alone_and_one_of_them_is_the_scene():
    every = in_all_glyphs(SPEC, 3, 4)
    image, scenes = render_pictures(SPEC, 3, torch.arange(4))
    assert every.shape == (4, 10, 3, 64, 64)
    assert torch.equal(every[torch.arange(4), scenes.glyph[:, 0]], image)
    differs = (every != every[:, :1]).any(1).any(1)
    rows, columns = differs.any(2), differs.any(1)
    assert ((0 < rows.sum(1)) & (rows.sum(1) < 20)).all() and ((0 < columns.sum(1)) & (columns.sum(1) < 15)).all()


def test_a_mean_of_pictures_has_their_weights():
    every = in_all_glyphs(SPEC, 3, 2)
    assert torch.equal(mixed(every, torch.eye(10)[[7, 2]]), torch.stack([every[0, 7], every[1, 2]]))
    halves = mixed(every, torch.tensor([[0.5, 0.5] + 8 * [0.0]] * 2)).int()
    assert ((halves - (every[:, 0].int() + every[:, 1].int()) / 2).abs() <= 0.5).all()


def test_weights_of_glyphs_go_from_even_ones_to_one_alone():
    share = glyph_shares(Draws(0, 0, torch.arange(4000)))
    assert share.shape == (4000, 10) and torch.allclose(share.sum(1), torch.ones(4000))
    largest = share.amax(1)
    assert (largest < 0.15).float().mean() > 0.02 and (largest > 0.95).float().mean() > 0.2
    assert (share.mean(0) - 0.1).abs().max() < 0.02


@pytest.fixture(scope="module")
def small_reader(tmp_path_factory):
    """A reader that has learned eight pictures, and two scenes in all glyphs, by heart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "RUNS", tmp_path_factory.mktemp("reader"))
        yield _trained()


def _trained():
    torch.manual_seed(0)
    image, scenes = render_pictures(SPEC, 0, torch.arange(8))
    truth, every, net = (attributes(scenes, SPEC), details(scenes)), in_all_glyphs(SPEC, 1, 2), StudioReader(width=8)
    settings = TrainSettings(steps=120, batch_size=16, lr=3e-3, warmup=5, ema=0.5, bf16=False)
    run = store.Run("reader", {}, train_studio_reader)
    history = list(train_studio_reader(Bare(net), image, truth, every, settings, run))
    assert history[-1].loss < 0.6 * history[0].loss
    net.load_state_dict(run.weights())
    return net, image, truth, every


def test_a_reader_of_the_studio_learns_a_few_pictures_by_heart(small_reader):
    net, image, truth, _ = small_reader
    assert glyphs_read(glyph_probabilities(net, image), truth[1][:, 0]) >= 0.75
    assert (floors_read(net, image) == truth[1][:, 1]).float().mean() >= 0.75
    assert (read_attributes(net, image, STUDIO.kinds) == truth[0]).float().mean() > 0.7
    assert prompt_accuracy(truth[0], truth[0]).all()


def test_a_reader_is_sure_of_glyphs_and_not_of_their_means(small_reader):
    net, _, _, every = small_reader
    means = mixed(every, torch.full((2, 10), 0.1))
    assert legible(glyph_probabilities(net, means)) < 0.3 < 0.6 < legible(glyph_probabilities(net, every.flatten(0, 1)))


def test_the_features_of_the_metrics_are_asked_for_glyph_and_floor():
    _, label, values, weights = scene_examples([SPEC], 5, 3)
    scenes = render_pictures(SPEC, 3, torch.arange(5))[1]
    assert torch.equal(label, scenes.labels(SPEC)) and values.shape == weights.shape
    glyph, floor = values[:, -14:-4], values[:, -4:]
    assert torch.equal(glyph.argmax(1), scenes.glyph[:, 0]) and torch.equal(floor.argmax(1), scenes.floor_kind[:, 0])
    assert set(values[:, -14:].unique().tolist()) == {-3.0, 3.0} and (weights[:, -14:] == 1).all()
