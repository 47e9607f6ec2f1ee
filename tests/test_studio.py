"""The studio: exact geometry, clutter that meets and hides nothing, captions that are read back, three looks."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import max_pool2d

from distill_lib.worlds import rays, room
from distill_lib.worlds.captions import (
    attributes,
    drawn_attributes,
    exchanged,
    names_held_out,
    read_caption,
    say,
    tokenizer,
    vocabulary_behind,
)
from distill_lib.worlds.glyphs import GLYPHS
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import class_names, draw_scenes, render, rendered
from distill_lib.worlds.studio import ACROSS, COLORS, DEPTH, SHAPES, TEXTURES, StudioScenes
from distill_lib.worlds.vocabulary import SCENES, STUDIO

SPEC = WORLDS["studio"]
COARSE = replace(SPEC, supersample=1, resolution=32)
MANY = draw_scenes(SPEC, 4, torch.arange(2000))


def part(scenes, index, **changes):
    return replace(scenes, **{name: column[index] for name, column in vars(scenes).items()} | changes)


# ------------------------------------------------------------------------------------------------ scenes


def test_a_scene_is_a_function_of_seed_and_number():
    again = draw_scenes(SPEC, 4, torch.tensor([39, 0, 5]))
    for column in StudioScenes.__dataclass_fields__:
        assert torch.equal(getattr(again, column), getattr(MANY, column)[[39, 0, 5]])
    assert (draw_scenes(SPEC, 5, torch.arange(50)).light != MANY.light[:50]).all()
    whole = rendered(COARSE, part(MANY, torch.arange(6)))
    for a, b in zip(rendered(COARSE, part(MANY, torch.tensor([5, 2]))), whole, strict=True):
        assert torch.equal(a, b[[5, 2]])


def test_everything_is_drawn_and_evenly():
    for column, kinds in ((MANY.glyph, 10), (MANY.floor_kind, 4), (MANY.shape[:, :2], 6), (MANY.color[:, :2], 12)):
        count = column.flatten().bincount(minlength=kinds).double()
        expected = column.numel() / kinds
        assert ((count - expected).abs() < 4.5 * expected**0.5).all()
    count = MANY.present[:, 2:].sum(1).bincount(minlength=4)
    assert (count > 60).all()  # of 2,000 scenes with none to three solids of clutter
    assert (MANY.present[:, :2]).all() and abs(MANY.relation.float().mean() - 0.5) < 4 * 0.5 / 2000**0.5


def test_a_relation_is_plain():
    apart = (MANY.position[:, 0] - MANY.position[:, 1]).abs()
    beside, behind = MANY.relation == 0, MANY.relation == 1
    assert (apart[beside, 0] >= ACROSS - 1e-5).all() and (apart[beside, 1] <= ACROSS / 2).all()
    assert (apart[behind, 1] >= DEPTH).all() and (apart[behind, 0] <= DEPTH / 2).all()


def test_no_two_solids_meet():
    radius = torch.tensor(rays.HALF_WIDTH)[MANY.shape] * MANY.size
    for j in range(1, 5):
        for i in range(j):
            both = MANY.present[:, i] & MANY.present[:, j]
            gap = (MANY.position[:, i] - MANY.position[:, j]).norm(dim=1) - radius[:, i] - radius[:, j]
            assert gap[both].min() > 0


def test_clutter_hides_no_solid_and_nothing_hides_the_poster():
    for index in torch.arange(600).split(100):
        scenes = part(MANY, index)
        masks = render(scenes, COARSE).masks
        bare = replace(scenes, present=scenes.present & (torch.arange(5) < 2))
        assert torch.equal(masks[:, :2], render(bare, COARSE).masks[:, :2])  # named solids are seen as without clutter
        for i in range(2, 5):
            single = replace(scenes, present=scenes.present & (torch.arange(5) == i))
            assert torch.equal(masks[:, i], render(single, COARSE).masks[:, i])  # and clutter as without anything else
        for i in range(2):
            single = replace(scenes, present=torch.arange(5).eq(i).expand(len(index), 5))
            whole = render(single, COARSE).masks[:, i].sum((1, 2))
            assert (whole > 24).all()  # of 1024 pixels
            share = masks[:, i].sum((1, 2)) / whole
            assert share.min() > 0.45 and share[scenes.relation == 0].min() > 0.85
    top = room.boxes(*MANY.position.unbind(2), *(torch.tensor(x)[MANY.shape] * MANY.size for x in EXTENT))[..., 3]
    lower = room.boxes(MANY.poster[:, :1], torch.full((2000, 1), room.WALL), torch.zeros(2000, 1), MANY.poster[:, 1:])
    assert (top[MANY.present] < (lower[..., 3] - 0.01).expand(-1, 5)[MANY.present]).all()


EXTENT = rays.HALF_WIDTH, rays.HEIGHT


def test_nothing_is_cut_off_by_the_frame():
    for index in torch.arange(600).split(100):
        masks = render(part(MANY, index), COARSE).masks
        edges = [masks[:, :, 0], masks[:, :, -1], masks[..., 0], masks[..., -1]]
        assert max(edge.max().item() for edge in edges) == 0
    zero = torch.full((2000, 1), room.WALL), torch.zeros(2000, 1)
    for x, y in ((0.0, 0.0), room.POSTER):
        corner = room.boxes(MANY.poster[:, :1] + x, *zero, MANY.poster[:, 1:] + y)
        assert corner[..., [0, 1, 3]].abs().max() < 1


@pytest.mark.parametrize("change", [{"objects": 1}, {"clutter": 2}])
def test_a_studio_with_other_solids_is_refused(change):
    with pytest.raises(ValueError, match="2 named objects and up to 3"):
        draw_scenes(replace(SPEC, **change), 0, torch.arange(1))


# ------------------------------------------------------------------------------------------------ geometry


@pytest.mark.parametrize("shape", ["pyramid", "hemisphere"])
def test_points_on_the_new_solids_satisfy_their_equation_and_normals_stand_on_them(shape):
    torch.manual_seed(0)
    surface = {
        "pyramid": lambda p: torch.maximum(p[..., 0].abs(), p[..., 2].abs()) - 0.9 * (1 - p[..., 1] / 1.8),
        "hemisphere": lambda p: p.square().sum(-1) - 1,
    }[shape]
    o = torch.tensor([0.3, 2.5, -4.0]).expand(1, 4000, 3)
    d = torch.nn.functional.normalize(
        torch.rand(1, 4000, 3) * torch.tensor([2.4, 1.2, 0]) - torch.tensor([1.5, 1.3, -2]), dim=2
    )
    t, normal = rays.SOLIDS[SHAPES.index(shape)](list(o.unbind(2)), list(d.unbind(2)))
    hit = t < rays.FAR
    p = (o + t[..., None] * d)[hit]
    assert hit.sum() > 500 and surface(p).abs().max() < 1e-4 and (p[:, 1] > -1e-4).all()
    inside = p - 1e-3 * torch.nn.functional.normalize(torch.stack(normal, -1)[hit], dim=1)
    assert (surface(inside) < 0).all()
    # a ray that misses meets no point inside, on a fine grid along it
    along = (o + torch.linspace(0, 8, 400)[:, None, None] * d)[:, ~hit[0]]
    assert not ((surface(along) < -1e-2) & (along[..., 1] > 1e-2)).any()


def test_the_wall_and_the_floor_lie_where_their_planes_are():
    scenes = part(MANY, torch.arange(1), present=torch.zeros(1, 5, dtype=torch.bool))
    depth = render(scenes, COARSE).depth[0, 0]
    eye, direction = rays.from_camera(32, room.VIEW)
    point = eye + direction * depth.reshape(-1, 1)
    on_wall = (point[:, 2] - room.WALL).abs() < 1e-4
    assert (on_wall | (point[:, 1].abs() < 1e-4)).all() and (point[:, 1] > -1e-4).all() and (point[:, 2] < 2.001).all()
    assert 0.5 < on_wall.float().mean() < 0.75


def test_the_poster_shows_its_glyph_cell_by_cell():
    index = torch.arange(10)
    scenes = part(MANY, index, glyph=index[:, None])
    centre = torch.tensor([[(c + 1.5, 7.5 - r) for c in range(5)] for r in range(7)]) * room.CELL
    point = torch.zeros(10, 35, 3)
    point[..., :2] = scenes.poster[:, None] + centre.flatten(0, 1)
    owner = torch.full((10, 35), -2)
    on, inked, rim = room.on_poster(point, owner, scenes.poster, scenes.glyph)
    assert on.all() and not rim.any() and torch.equal(inked.unflatten(1, (7, 5)), GLYPHS)
    assert not room.on_poster(point, owner * 0, scenes.poster, scenes.glyph)[0].any()


def test_glyphs_differ_in_at_least_four_cells():
    flat = GLYPHS.flatten(1)
    distance = (flat[:, None] != flat).sum(2) + 99 * torch.eye(10, dtype=torch.long)
    assert GLYPHS.shape == (10, 7, 5) and distance.min() >= 4


def test_floors_repeat_as_they_are_named():
    x = torch.linspace(-1, 1, 81)
    point = torch.stack([x, 0 * x, 0 * x], 1)[None].expand(4, -1, -1)
    kind, frame = torch.arange(4)[:, None], torch.zeros(4, 3)
    plain, tiles, planks, rings = room.floor_pattern(point, kind, frame)
    assert (plain == 1).all() and torch.equal(rings, room.floor_pattern(point, kind, frame)[3])
    away = point + torch.tensor([0.0, 0.0, 0.5])
    moved = room.floor_pattern(away, kind, frame)
    assert torch.equal(moved[2], planks)  # boards run away from the camera
    assert (moved[1] != tiles).float().mean() > 0.9  # tiles alternate


# ------------------------------------------------------------------------------------------------ looks


def test_looks_share_scenes_depth_and_masks_and_no_colours():
    index = torch.arange(4)
    photo, drawn, clay = (
        render(draw_scenes(WORLDS[name], 4, index), WORLDS[name]) for name in ("studio", "studio-sketch", "studio-clay")
    )
    for other in (drawn, clay):
        assert torch.equal(photo.masks, other.masks) and torch.equal(photo.depth, other.depth)
        assert (photo.image - other.image).abs().mean() > 0.08


def test_strokes_of_the_sketch_are_two_pixels_wide():
    spec = replace(WORLDS["studio-sketch"], resolution=64)
    scenes = draw_scenes(spec, 4, torch.arange(8))
    image, masks = rendered(spec, scenes)[0], render(scenes, spec).masks
    dark = (image.float().mean(1) < 90).float()[:, None]
    squares = -max_pool2d(-dark, 2, 1)  # 1 where a square of 2 x 2 pixels is dark all over
    covered = max_pool2d(torch.nn.functional.pad(squares, (1, 1, 1, 1)), 2, 1)
    outside = (masks.sum(1, keepdim=True) == 0) & (dark > 0) & (torch.arange(64)[:, None] > 26)  # below the poster
    assert outside.sum() > 500 and covered[outside].mean() > 0.9


# ------------------------------------------------------------------------------------------------ captions


def test_each_caption_is_read_back_to_what_the_scene_shows_in_every_phrasing():
    wanted = attributes(MANY, SPEC)
    for number in range(6):
        captions = say(wanted[:300], torch.full((300,), number), STUDIO)
        assert torch.equal(torch.stack([read_caption(text, STUDIO) for text in captions]), wanted[:300])
    first = drawn_attributes(200, 1)
    for number in range(6):
        captions = say(first, torch.full((200,), number))
        assert torch.equal(torch.stack([read_caption(text) for text in captions]), first)
    with pytest.raises(ValueError, match="is no caption"):
        read_caption("a red cube above a blue cone", STUDIO)


def test_the_first_solid_of_a_caption_is_the_left_one_or_the_one_in_front():
    for i, (first, second) in enumerate(attributes(MANY, SPEC)[:300].tolist()):
        axis = first[3]
        order = [0, 1] if MANY.position[i, 0, axis] < MANY.position[i, 1, axis] else [1, 0]
        for solid, k in zip((first, second), order, strict=True):
            assert solid[:3] == [column[i, k].item() for column in (MANY.shape, MANY.color, MANY.texture)]
    turned = torch.tensor([1, 0, 2, 3, 4])
    both = {name: column[:, turned] for name, column in vars(MANY).items() if column.shape[1] == 5}
    assert torch.equal(attributes(replace(MANY, **both), SPEC), attributes(MANY, SPEC))


def test_words_are_single_tokens_and_tokenizers_tell_their_world():
    tokens = tokenizer(STUDIO)
    assert all(len(tokens(word).input_ids) == 3 for word in STUDIO.words)
    captions = [text for k in range(6) for text in say(attributes(MANY, SPEC)[:100], torch.full((100,), k), STUDIO)]
    lengths = [len(tokens(text).input_ids) for text in captions]
    assert lengths == [len(text.split()) + 2 for text in captions] and max(lengths) <= 24
    assert vocabulary_behind(tokens) is STUDIO and vocabulary_behind(tokenizer()) is SCENES


def test_prompts_are_drawn_as_scenes_are_without_the_pairs_held_out():
    wanted = drawn_attributes(800, 5, vocabulary=STUDIO)
    assert not names_held_out(wanted, STUDIO).any() and (wanted[:, 0, 3] == wanted[:, 1, 3]).all()
    for column, kinds in enumerate(STUDIO.kinds):
        assert wanted[..., column].unique().tolist() == list(range(kinds))
    unseen = drawn_attributes(100, 5, True, STUDIO)
    assert all(any(f"{c} {s}" in text for c, s in STUDIO.held_out) for text in say(unseen, None, STUDIO))
    swapped = exchanged(wanted, torch.full((800,), 0.99))
    assert torch.equal(swapped[..., 3], wanted[..., 3])  # an exchange of solids leaves the relation


def test_classes_are_named_in_the_order_of_their_numbers():
    names = class_names(SPEC)
    assert len(names) == len(set(names)) == 360
    for i, label in enumerate(MANY.labels(SPEC)[:50].tolist()):
        words = TEXTURES[MANY.texture[i, 0]], list(COLORS)[MANY.color[i, 0]], SHAPES[MANY.shape[i, 0]]
        assert names[label] == " ".join(words)
    assert math.prod((len(SHAPES), len(COLORS), len(TEXTURES))) == 360
