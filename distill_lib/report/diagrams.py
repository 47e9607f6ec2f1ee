"""Diagrams of ideas, each drawn in the notebook that introduces it, in the style of `boxes`.

They hold no measurement. `removed_blocks` reads what it draws off two networks.
"""

from itertools import pairwise

from matplotlib.figure import Figure
from torch import nn

from distill_lib.report.boxes import Sheet


def two_stages(start: int = 16) -> Figure:
    """Guided distillation as a whole: one network for the pair, then half of the steps again and again."""
    sheet = Sheet(
        37,
        "Guided distillation: first one network for the pair, then fewer steps",
        "Top: the frozen teacher is evaluated with and without its class, and both answers are combined with the "
        "strength w; stage one trains one network, which is given w, to answer the same. Bottom: stage two halves the "
        f"steps from {start} to 1, each student being the frozen teacher of the next.",
    )
    sheet.words(2, 32, "Stage one", ha="left", weight="bold")
    z = sheet.box(6, 24, 8, 5, "$z_t$", "data")
    pair = [sheet.box(23, y, 18, 5, f"teacher, {name}") for y, name in ((27.5, "class $c$"), (20.5, "no class"))]
    guided = sheet.box(45, 24, 17, 6, "$(1+w)\\,v_c - w\\,v_\\varnothing$", "data")
    student = sheet.box(66, 24, 14, 8, "one network,\ngiven $w$", "trained")
    for box in pair:
        sheet.arrow(z.at("right"), box.at("left"))
        sheet.arrow(box.at("right"), guided.at("left"))
    sheet.arrow(guided.at("right"), student.at("left"), kind="comparison")
    sheet.words(23, 16.2, "2 evaluations per step")
    sheet.words(66, 18.2, "1 evaluation per step")
    sheet.words(2, 13, "Stage two: numbers of steps", ha="left", weight="bold")
    counts = [str(start >> k) for k in range(start.bit_length())]
    counts = counts if len(counts) < 8 else [*counts[:3], "...", *counts[-3:]]
    width, last = 66 / len(counts), None
    for i, n in enumerate(counts):
        box = sheet.box(4.5 + width * (i + 0.5), 8, width - 4, 5, n, "trained" if i else "frozen")
        if last:
            sheet.arrow(last.at("right"), box.at("left"), kind="comparison")
        last = box
    sheet.key("frozen", "trained", "comparison", comparison="learns to give the same")
    return sheet.figure


def two_steps_and_one() -> Figure:
    """One halving: where two steps of the teacher lead, and the target with which one step leads there."""
    sheet = Sheet(
        33,
        "One halving: the student makes in one step what the teacher makes in two",
        "From the state z at time t the frozen teacher makes two deterministic steps, by way of a state half-way. The "
        "student makes one step from the same start to the same end; the picture that it has to predict for that is "
        "computed from start and end.",
    )
    axis = 9.0
    places = {"t": (10.0, 26.0), "m": (36.0, 20.0), "s": (62.0, 15.5)}
    start, half, end = places.values()
    sheet.arrow((5, axis), (71, axis))
    for (name, (x, y)), time in zip(places.items(), ("$t$", "$m$, half-way", "$s$"), strict=True):
        sheet.ax.plot([x, x], [axis, y], color="#bbbbbb", lw=0.8, zorder=1)
        sheet.ax.plot(x, y, "o", color="black", ms=6, zorder=5)
        sheet.words(x, axis - 2.2, time)
        sheet.words(x + (2.6 if y < 26 else -3), y + 1.6, f"$z_{name}$")
    sheet.arrow(start, half, kind="frozen", bend=-0.25)
    sheet.arrow(half, end, kind="frozen", bend=-0.25)
    sheet.arrow(start, end, kind="trained", bend=0.28)
    sheet.words(43, 26.5, "teacher, two steps (frozen)", color="#555555", ha="left")
    sheet.words(11.5, 12.2, "student, one step (trained)", color="#0072B2", ha="left")
    target = r"$\tilde x = (z_s - r z_t)\,/\,(\alpha_s - r \alpha_t)$,  $r = \sigma_s/\sigma_t$"
    sheet.words(37.5, 2.6, f"what the student has to predict:  {target}")
    return sheet.figure


def way_of_w() -> Figure:
    """Where the strength of guidance enters the U-Net: beside time, into every residual unit."""
    sheet = Sheet(
        37,
        "The strength $w$ enters where the time does",
        "The strength w becomes Fourier features; a new linear layer without bias, which starts at zero, adds them to "
        "the features of the time before the embedding. The embedding reaches every residual unit of the U-Net, in the "
        "down stages, the middle and the up stages.",
    )
    time = sheet.box(7, 29, 10, 5, "time $t$", "data")
    strength = sheet.box(7, 20.5, 10, 5, "strength $w$", "data")
    waves = [sheet.box(23, y, 15, 5, "sines, cosines") for y in (29, 20.5)]
    new = sheet.box(43, 20.5, 18, 5.6, "new linear layer,\nstarts at zero", "trained")
    plus = sheet.box(43, 29, 4, 4, "+", "data")
    embedding = sheet.box(63, 29, 20, 5, "time embedding", "trained")
    for a, b in ((time, waves[0]), (strength, waves[1]), (waves[0], plus), (waves[1], new), (plus, embedding)):
        sheet.arrow(a.at("right"), b.at("left"))
    sheet.arrow(new.at("top"), plus.at("bottom"))
    names = ("down", "down", "middle", "up", "up")
    units = [sheet.box(13 + 12.5 * i, 9, 9.5, 5, name, "trained") for i, name in enumerate(names)]
    sheet.arrow((2, 9), units[0].at("left"))
    for a, b in pairwise(units):
        sheet.arrow(a.at("right"), b.at("left"))
    sheet.arrow(units[-1].at("right"), (73, 9))
    sheet.words(3.5, 11.2, "$z_t$")
    sheet.words(71, 11.2, r"$\hat v$")
    sheet.arrow(embedding.at("bottom"), (63, 14), (13, 14), head=False)
    for unit in units:
        sheet.arrow((unit.x, 14), unit.at("top"))
    sheet.words(15, 15.6, "into every residual unit of every stage", ha="left")
    sheet.key("frozen", "trained", frozen="fixed", trained="trained; all but the new layer start as the teacher")
    return sheet.figure


def _units(block: nn.Module | None) -> list[str]:
    """The units of a stage in order: "R", a residual one, and "A", attention to the prompt."""
    if block is None:
        return []
    attentions = [a for a in getattr(block, "attentions", None) or [] if a is not None]
    return [letter for i in range(len(block.resnets)) for letter in ("R", "A")[: 1 + (i < len(attentions))]]


def _kept(large: list[str], small: list[str], up: bool) -> list[bool]:
    """Which units of a stage a small network still has; of an up stage the last one comes from the last."""
    kept = []
    for i, letter in enumerate(large):
        number, count, most = large[:i].count(letter), small.count(letter), large.count(letter)
        is_last = up and number == most - 1
        kept.append(count == most or (count > 0 and (is_last or number < count - up)))
    return kept


def removed_blocks(large: nn.Module, small: nn.Module, name: str) -> Figure:
    """Which units of a U-Net of diffusers a cut removes, read off the large network and the small one."""
    levels, gone = len(large.down_blocks), len(large.up_blocks) - len(small.up_blocks)
    sheet = Sheet(
        11 + 6 * (levels + 1),
        f"What is removed of {name}",
        f"The U-Net of {name} as two columns of stages, down on the left and up on the right, the innermost at the "
        "bottom with the middle below. Units that the small network lacks have dotted edges, the others full ones.",
    )
    top = sheet.height - 6.5
    low = top - 6 * levels
    for level in range(levels):
        up, y = levels - 1 - level, top - 6 * level
        down_small = _units(small.down_blocks[level]) if level < len(small.down_blocks) else []
        up_small = _units(small.up_blocks[up - gone]) if up >= gone else []
        left = _row(sheet, 15.5, y, _units(large.down_blocks[level]), down_small)
        _row(sheet, 46.5, y, _units(large.up_blocks[up]), up_small, up=True)
        sheet.arrow((left, y), (44.2, y), thin=True)
        sheet.words(0.8, y, {0: "finest", levels - 1: "innermost"}.get(level, ""), ha="left")
    end = _row(sheet, 34, low, _units(large.mid_block), _units(small.mid_block))
    sheet.words(0.8, low, "middle", ha="left")
    sheet.arrow((11.8, top), (11.8, low), (31.7, low))
    sheet.arrow((end, low), (73.5, low), (73.5, top))
    sheet.key("trained", "removed", trained="kept (R: residual unit, A: attention)")
    return sheet.figure


def _row(sheet: Sheet, x: float, y: float, large: list[str], small: list[str], up: bool = False) -> float:
    """A stage from x on; returns where it ends."""
    for i, (letter, kept) in enumerate(zip(large, _kept(large, small, up), strict=True)):
        sheet.box(x + 4.4 * i, y, 3.8, 4.2, letter, "trained" if kept else "removed")
    return x + 4.4 * len(large) - 2.1


def three_networks() -> Figure:
    """Score distillation: which network sees what, and which loss has a gradient for which."""
    sheet = Sheet(
        45,
        "Score distillation: who sees what, and who gets a gradient",
        "The trained student turns noise into a picture in one step. Above, the frozen teacher turns the same noise "
        "into a picture in many steps, and feature matching compares the two; its gradient goes to the student. Below, "
        "the student's picture is noised and shown to the trained online model and to the frozen offline model; the "
        "difference of their scores is a gradient for the student, and a denoising loss one for the online model.",
    )
    noise = sheet.box(5.5, 30, 9, 5, "noise $z_T$", "data")
    teacher = sheet.box(24, 38, 19, 5, "teacher, many steps")
    student = sheet.box(24, 30, 19, 5, "student, one step", "trained")
    wanted = sheet.box(47, 38, 12, 5, "picture $x$", "data")
    drawn = sheet.box(47, 30, 12, 5, r"picture $\hat x$", "data")
    matching = sheet.box(67, 34, 13, 6.4, "feature\nmatching", "data")
    noised = sheet.box(47, 17.5, 12, 5, "noised, $z_t$", "data")
    offline = sheet.box(47, 9, 16, 5, "offline model")
    online = sheet.box(26, 9, 16, 5, "online model", "trained")
    denoising = sheet.box(7, 9, 12, 6.4, "denoising\nloss", "data")
    scores = sheet.box(67, 9, 13, 6.4, "difference\nof scores", "data")
    for a, b in ((noise, teacher), (noise, student), (teacher, wanted), (student, drawn), (wanted, matching)):
        sheet.arrow(a.at("right"), b.at("left"))
    sheet.arrow(drawn.at("right"), matching.at("left"))
    sheet.arrow(drawn.at("bottom"), noised.at("top"))
    sheet.arrow(noised.at("bottom"), offline.at("top"))
    sheet.arrow(noised.at("left"), (26, 17.5), online.at("top"))
    sheet.arrow(offline.at("right"), scores.at("left"))
    sheet.arrow(online.at("bottom"), (26, 4.4), (67, 4.4), scores.at("bottom"))
    sheet.arrow(online.at("left", 0.75), denoising.at("right", 0.7))
    sheet.arrow(denoising.at("right", 0.3), online.at("left", 0.25), kind="gradient")
    sheet.arrow(matching.at("bottom"), (67, 25), (27, 25), student.at("bottom", 0.66), kind="gradient")
    sheet.arrow(scores.at("top"), (67, 22.5), (21, 22.5), student.at("bottom", 0.34), kind="gradient")
    sheet.key("frozen", "trained", "gradient")
    return sheet.figure


def control_net() -> Figure:
    """How a ControlNet is attached to a U-Net, and through what a small one learns from a large one."""
    sheet = Sheet(
        49,
        "A ControlNet adds to what the up stages get, and is compared there",
        "Twice, a U-Net with down stages, middle and up stages, and below it a ControlNet, a copy of the way down that "
        "reads the map and adds its outputs to the skip connections. Above the large pair, frozen; below the small "
        "one, without a middle, of which the ControlNet alone is trained. Up stages and answers of both are compared.",
    )
    ends = []
    for y, size in ((39.5, "large"), (18.5, "small")):
        z_t, seen = sheet.box(4.5, y, 7, 4.6, "$z_t$", "data"), sheet.box(4.5, y - 8, 7, 4.6, "map", "data")
        down = sheet.box(20, y, 17, 4.6, f"down, {size}")
        up = sheet.box(56, y, 16, 4.6, f"up, {size}")
        v_hat = sheet.box(70.5, y, 7, 4.6, r"$\hat v$", "data")
        copy = sheet.box(20, y - 8, 17, 4.6, "ControlNet", "frozen" if size == "large" else "trained")
        middle = sheet.box(38, y, 11, 4.6, "middle") if size == "large" else down
        steps = [z_t, down, middle, up, v_hat] if size == "large" else [z_t, down, up, v_hat]
        for a, b in pairwise(steps):
            sheet.arrow(a.at("right"), b.at("left"))
        sheet.arrow(seen.at("right"), copy.at("left"))
        sheet.arrow(copy.at("right"), (51, y - 8), up.at("bottom", 0.1875))
        sheet.words(30, y - 6.6, "added to skips", ha="left")
        ends.append((up, v_hat, copy))
    (large_up, large_v, _), (small_up, small_v, small_copy) = ends
    sheet.arrow(large_up.at("bottom", 0.7), small_up.at("top", 0.7), kind="comparison")
    sheet.arrow(large_v.at("bottom"), small_v.at("top"), kind="comparison")
    sheet.words(60.2, 26, "eq. 7", ha="left")
    sheet.words(69.6, 29, "eq. 6", ha="right")
    corner = (small_up.at("bottom", 0.7)[0], 6.6)
    sheet.arrow(small_up.at("bottom", 0.7), corner, (20, 6.6), small_copy.at("bottom"), kind="gradient")
    sheet.key("frozen", "trained", "comparison", "gradient")
    return sheet.figure
