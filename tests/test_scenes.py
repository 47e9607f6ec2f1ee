"""The world: the same picture whatever the batch, geometry that can be checked by hand, nothing cut off."""

import math
from dataclasses import replace

import pytest
import torch

from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.rays import _CAMERA, _HALF_VIEW, _LOOK_AT, HORIZON
from distill_lib.worlds.scenes import COLORS, SHAPES, TEXTURES, Scenes, SceneSpec, class_names, draw_scenes, render

BARE = SceneSpec(texture=0, tiles=0, clutter=0, supersample=1, resolution=128)


def one_solid(shape="sphere", x=0.0, z=0.3, size=0.5, **changes):
    """A scene with one solid of our choice, everything else as drawn."""
    scenes = draw_scenes(BARE, 0, torch.arange(1))
    changes = {
        "shape": torch.tensor([[SHAPES.index(shape)]]),
        "position": torch.tensor([[[x, z]]]),
        "size": torch.tensor([[size]]),
    } | changes
    return replace(scenes, **changes)


def rays(n):
    """Unit directions (n, n, 3) of the pixel centres from the camera's constants, in numbers of our own."""
    eye, at = torch.tensor(_CAMERA), torch.tensor(_LOOK_AT)
    forward = (at - eye) / (at - eye).norm()
    right = torch.tensor([forward[2], 0.0, -forward[0]]) / math.hypot(forward[0], forward[2])
    up = torch.tensor([-forward[1] * right[2], forward[2] * right[0] - forward[0] * right[2], -forward[1] * right[0]])
    steps = ((torch.arange(n) + 0.5) / n * 2 - 1) * _HALF_VIEW
    direction = forward + steps[None, :, None] * right - steps[:, None, None] * up
    return eye, direction / direction.norm(dim=2, keepdim=True), forward


# ------------------------------------------------------------------------------------------------ independence


@pytest.mark.parametrize("index", [[13], [39, 0, 5], list(range(39, -1, -1))])
def test_a_scene_and_its_picture_do_not_depend_on_the_batch(index):
    spec = SceneSpec(objects=2, resolution=16)
    whole, part = draw_scenes(spec, 3, torch.arange(40)), draw_scenes(spec, 3, torch.tensor(index))
    for column in Scenes.__dataclass_fields__:
        assert torch.equal(getattr(part, column), getattr(whole, column)[index])
    rendered, again = render(whole, spec), render(part, spec)
    for column in ("image", "depth", "masks"):
        assert torch.equal(getattr(again, column), getattr(rendered, column)[index])


def test_another_seed_draws_other_scenes():
    a, b = (draw_scenes(SceneSpec(), seed, torch.arange(50)) for seed in (0, 1))
    assert (a.light != b.light).all()


def test_a_scene_does_not_depend_on_the_resolution():
    a, b = (draw_scenes(SceneSpec(resolution=r), 0, torch.arange(20)) for r in (32, 64))
    assert all(torch.equal(getattr(a, column), getattr(b, column)) for column in Scenes.__dataclass_fields__)


# ------------------------------------------------------------------------------------------------ geometry


def test_depth_of_a_sphere_on_the_ray_through_its_centre():
    eye, direction, _ = rays(128)
    for row, column, size in ((75, 64, 0.5), (80, 40, 0.45), (70, 90, 0.6)):
        ray = direction[row, column]
        reach = (size - eye[1]) / ray[1]  # where the ray comes down to the height of a resting sphere's centre
        centre = eye + reach * ray
        depth = render(one_solid(x=centre[0].item(), z=centre[2].item(), size=size), BARE).depth[0, 0]
        # a root of b^2 - a c, where b^2 is about 80 at this scale: float32 leaves 1e-5
        assert depth[row, column].item() == pytest.approx((reach - size).item(), abs=1e-4)
        # around the centre everything of the sphere lies farther off, by symmetry
        assert depth[row, column] <= depth[row - 1 : row + 2, column - 1 : column + 2].min() + 1e-5


def test_depth_of_the_floor_is_where_the_ray_meets_it():
    eye, direction, _ = rays(128)
    scenes = one_solid()
    scenes = replace(scenes, present=torch.zeros_like(scenes.present))
    depth = render(scenes, BARE).depth[0, 0]
    below = direction[..., 1] < 0
    expected = torch.where(below, -eye[1] / direction[..., 1], torch.inf).clamp(max=HORIZON)
    assert torch.allclose(depth, expected, rtol=1e-5)


@pytest.mark.parametrize("x, z, size", [(0.0, 0.3, 0.5), (0.4, -0.2, 0.45), (-0.5, 0.6, 0.68)])
def test_the_silhouette_of_a_sphere_has_its_analytic_area(x, z, size):
    n = 128
    eye, _, forward = rays(n)
    centre = torch.tensor([x, size, z]) - eye
    distance = centre.norm()
    cos = (centre @ forward) / distance  # angle between the optical axis and the sphere
    sin_cone = size / distance  # opening of the cone of rays that touch it
    # a plane at distance 1 cuts that cone in an ellipse of area
    area = math.pi * sin_cone**2 * (1 - sin_cone**2).sqrt() / (cos**2 - sin_cone**2) ** 1.5
    expected = area / (2 * _HALF_VIEW / n) ** 2
    result = render(one_solid(x=x, z=z, size=size), BARE).masks[0, 0].sum()
    # pixel centres in an oval: each of the ~pi d border pixels counts as 0 or 1 instead of its share, an error of
    # variance 1/12 a pixel at most; four standard deviations
    border = 2 * (math.pi * expected).sqrt()
    assert abs(result - expected) < 4 * (border / 12).sqrt()


@pytest.mark.parametrize("shape", SHAPES)
def test_points_on_a_solid_satisfy_its_equation(shape):
    rotation = 0.7
    scenes = one_solid(shape, x=0.2, z=0.1, size=0.5, rotation=torch.tensor([[rotation]]))
    result = render(scenes, BARE)
    eye, direction, _ = rays(128)
    own = result.masks[0, 0] > 0
    assert own.sum() > 300
    point = (eye + direction * result.depth[0, 0][..., None])[own] - torch.tensor([0.2, 0.0, 0.1])
    x, y, z = (point / 0.5).T
    x, z = math.cos(rotation) * x + math.sin(rotation) * z, math.cos(rotation) * z - math.sin(rotation) * x
    r2 = x**2 + z**2
    residual = {
        "sphere": r2 + (y - 1) ** 2 - 1,
        "cube": torch.stack([x.abs(), (y - 0.85).abs(), z.abs()]).amax(0) - 0.85,
        "cylinder": torch.minimum((r2 - 0.85**2).abs(), (y - 1.8).abs()),
        "cone": r2 - (2 - y) ** 2 / 4,
    }[shape]
    assert residual.abs().max() < 1e-4  # float32 at distances of some 10 in the solid's own frame


def test_a_nearer_solid_hides_a_farther_one():
    pair = {"shape": torch.tensor([[0, 0]]), "present": torch.ones(1, 2, dtype=torch.bool)}
    spec = replace(BARE, objects=2)
    scenes = replace(
        draw_scenes(spec, 0, torch.arange(1)),
        position=torch.tensor([[[0.0, -0.3], [0.0, 0.9]]]),
        size=torch.tensor([[0.6, 0.4]]),
        **pair,
    )
    masks = render(scenes, spec).masks[0]
    unhidden = render(replace(scenes, present=torch.tensor([[False, True]])), spec).masks[0, 1]
    assert masks[1].sum() < 0.5 * unhidden.sum()
    assert (masks.sum(0) <= 1).all()


def test_a_shadow_falls_away_from_the_light():
    dark = []
    for azimuth in (-1.0, 1.0):
        result = render(one_solid(light=torch.tensor([[azimuth]])), BARE)
        plain = render(replace(one_solid(light=torch.tensor([[azimuth]])), present=torch.tensor([[False]])), BARE)
        floor = result.masks[0, 0] == 0
        shadow = floor & (result.image[0].mean(0) < plain.image[0].mean(0) - 0.1)
        dark.append(shadow.nonzero()[:, 1].float().mean().item())
    assert dark[0] > 64 + 5 and dark[1] < 64 - 5  # light from the left casts to the right


# ------------------------------------------------------------------------------------------------ framing


@pytest.mark.parametrize("name", ["cluttered", "captioned"])
def test_no_solid_is_cut_off_by_the_frame(name):
    # the edge of the picture at full coverage: one ray a pixel, no averaging that could hide a touch
    spec = replace(WORLDS[name], supersample=1, resolution=32)
    for part in torch.arange(2000).split(100):
        masks = render(draw_scenes(spec, 0, part), spec).masks
        edges = [masks[:, :, 0], masks[:, :, -1], masks[..., 0], masks[..., -1]]
        assert max(edge.max().item() for edge in edges) == 0


def test_every_named_solid_is_seen():
    for name in ("plain", "cluttered", "captioned"):
        spec = replace(WORLDS[name], supersample=1, resolution=32)
        masks = render(draw_scenes(spec, 0, torch.arange(500)), spec).masks[:, : spec.objects]
        assert masks.sum((2, 3)).min() >= 20  # of 1024 pixels


def test_two_objects_stand_left_and_right():
    spec = replace(WORLDS["captioned"], clutter=0, supersample=1, resolution=32)
    scenes = draw_scenes(spec, 0, torch.arange(500))
    assert (scenes.position[:, 0, 0] < scenes.position[:, 1, 0]).all()
    masks = render(scenes, spec).masks
    columns = torch.arange(32.0)
    middle = (masks.sum(2) * columns).sum(2) / masks.sum((2, 3))
    assert (middle[:, 0] < middle[:, 1]).all()


@pytest.mark.parametrize("objects", [0, 3])
def test_a_number_of_objects_that_is_not_drawn_is_refused(objects):
    with pytest.raises(ValueError, match=f"objects={objects}.*1 or 2"):
        draw_scenes(SceneSpec(objects=objects), 0, torch.arange(1))


# ------------------------------------------------------------------------------------------------ names and knobs


@pytest.mark.parametrize("name", ["plain", "textured"])
def test_a_label_names_shape_colour_and_texture(name):
    spec = WORLDS[name]
    scenes = draw_scenes(spec, 0, torch.arange(300))
    names = class_names(spec)
    assert len(names) == len(set(names)) == 32 * (3 if spec.texture else 1)
    for i, label in enumerate(scenes.labels(spec).tolist()):
        words = [list(COLORS)[scenes.color[i, 0]], SHAPES[scenes.shape[i, 0]]]
        if spec.texture:
            words.insert(0, TEXTURES[scenes.texture[i, 0]])
        assert names[label] == " ".join(words)


def test_all_classes_occur_equally_often():
    labels = draw_scenes(WORLDS["textured"], 0, torch.arange(20_000)).labels(WORLDS["textured"])
    count = labels.bincount(minlength=96).double()
    chi2 = ((count - 20_000 / 96).square() / (20_000 / 96)).sum()
    assert chi2 < 143  # 95 degrees of freedom, exceeded with probability 0.001


def test_a_solid_shows_the_colour_of_its_name():
    spec = replace(WORLDS["plain"], resolution=32)
    scenes = draw_scenes(spec, 0, torch.arange(200))
    result = render(scenes, spec)
    inside = (result.masks[:, :1] == 1).float()
    mean = (result.image * inside).sum((2, 3)) / inside.sum((2, 3))
    palette = torch.tensor(list(COLORS.values()))
    chroma = lambda c: c - c.mean(1, keepdim=True)  # noqa: E731 - light changes brightness, not hue
    direction = torch.nn.functional.normalize
    named = direction(chroma(mean), dim=1) @ direction(chroma(palette), dim=1)[:-1].T  # gray has no hue
    coloured = scenes.color[:, 0] < 7
    right = (named.argmax(1) == scenes.color[:, 0])[coloured].float().mean()
    assert right > 0.95  # jitter of 0.05 and the highlight confuse a few neighbours on the colour circle


def test_the_plain_world_shows_no_texture_and_the_textured_one_does():
    for name, shows in (("plain", False), ("textured", True)):
        spec = replace(WORLDS[name], resolution=16)
        scenes = draw_scenes(spec, 0, torch.arange(20))
        images = [render(replace(scenes, texture=torch.full_like(scenes.texture, k)), spec).image for k in range(3)]
        assert torch.equal(images[0], images[1]) != shows
        assert torch.equal(images[0], images[2]) != shows


# ------------------------------------------------------------------------------------------------ the sketch


def test_photo_and_sketch_show_the_same_scenes_and_share_no_look():
    index = torch.arange(20)
    photo, sketch = (render(draw_scenes(WORLDS[name], 0, index), WORLDS[name]) for name in ("textured", "sketch"))
    assert torch.equal(photo.masks, sketch.masks) and torch.equal(photo.depth, sketch.depth)
    labels = [draw_scenes(WORLDS[name], 0, index).labels(WORLDS[name]) for name in ("textured", "sketch")]
    assert torch.equal(*labels)
    assert (photo.image - sketch.image).abs().mean() > 0.2


def test_ink_lies_around_the_solid_and_paper_where_nothing_is():
    spec = replace(BARE, look="sketch")
    scenes = one_solid("sphere")
    result = render(scenes, spec)
    inside = result.masks[0, 0] == 1
    grown = torch.nn.functional.max_pool2d
    beside = grown(inside[None].float(), (3, 1), 1, (1, 0)), grown(inside[None].float(), (1, 3), 1, (0, 1))
    around = torch.maximum(*beside)[0].bool() & ~inside
    ink = ((torch.tensor([0.13, 0.12, 0.18]) * 2 - 1)[:, None, None] - result.image[0]).abs().amax(0) < 1e-5
    assert ink[around].all()
    sky = result.depth[0, 0] >= 12
    paper = (torch.tensor([0.97, 0.96, 0.92]) * 2 - 1)[:, None]
    far = sky & ~torch.nn.functional.max_pool2d(inside[None].float(), 5, 1, 2)[0].bool()
    assert torch.allclose(result.image[0][:, far], paper.expand(3, int(far.sum())), atol=1e-5)


def test_a_cube_has_ink_between_its_faces_and_a_sphere_has_none_inside():
    share = {}
    for shape in ("cube", "sphere"):
        scenes = one_solid(shape, rotation=torch.full((1, 1), math.pi / 4))
        result = render(scenes, replace(BARE, look="sketch"))
        deep = -torch.nn.functional.max_pool2d(-(result.masks[:, :1] == 1).float(), 7, 1, 3)[0, 0] == 1
        ink = ((torch.tensor([0.13, 0.12, 0.18]) * 2 - 1)[:, None, None] - result.image[0]).abs().amax(0) < 1e-5
        share[shape] = ink[deep].float().mean()
    assert share["cube"] > 0.01 and share["sphere"] == 0


def test_a_look_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="look='oil': the world is drawn as photo, sketch, clay"):
        draw_scenes(SceneSpec(look="oil"), 0, torch.arange(1))


@pytest.mark.parametrize("spec", [SceneSpec(), SceneSpec(clutter=4), WORLDS["captioned"]])
def test_no_two_solids_meet(spec):
    scenes = draw_scenes(spec, 0, torch.arange(3000))
    radius = torch.tensor([1.0, 0.85 * 2**0.5, 0.85, 1.0])[scenes.shape] * scenes.size  # around each base
    for j in range(1, radius.shape[1]):
        for i in range(j):
            both = scenes.present[:, i] & scenes.present[:, j]
            gap = (scenes.position[:, i] - scenes.position[:, j]).norm(dim=1) - radius[:, i] - radius[:, j]
            assert gap[both].min() > 0


def test_clutter_stands_behind_and_can_be_switched_off():
    spec = SceneSpec(resolution=16)
    scenes = draw_scenes(spec, 0, torch.arange(200))
    assert scenes.shape.shape[1] == 3
    assert (scenes.position[:, 1:, 1] > scenes.position[:, :1, 1]).all()
    share = scenes.present[:, 1:].float().mean().item()
    assert abs(share - 0.8) < 4 * (0.16 / 400) ** 0.5  # 4 sd of a share of 0.8
    assert draw_scenes(replace(spec, clutter=0), 0, torch.arange(5)).shape.shape[1] == 1


def test_pictures_depth_and_masks_keep_their_ranges():
    spec = SceneSpec(resolution=16)
    result = render(draw_scenes(spec, 0, torch.arange(50)), spec)
    assert result.image.shape == (50, 3, 16, 16) and result.depth.shape == (50, 1, 16, 16)
    assert result.masks.shape == (50, 3, 16, 16)
    assert result.image.min() >= -1 and result.image.max() <= 1
    assert result.depth.min() > 1 and result.depth.max() <= HORIZON
    assert result.masks.min() >= 0 and result.masks.sum(1).max() <= 1 + 1e-6


def test_supersampling_averages_the_finer_picture():
    coarse, fine = SceneSpec(resolution=16, supersample=2), SceneSpec(resolution=32, supersample=1)
    scenes = draw_scenes(coarse, 0, torch.arange(5))
    pooled = torch.nn.functional.avg_pool2d(render(scenes, fine).image, 2)
    assert torch.allclose(render(scenes, coarse).image, pooled, atol=1e-6)


def test_a_scene_is_described_by_all_its_columns():
    scenes = draw_scenes(SceneSpec(), 0, torch.arange(4))
    assert all(len(getattr(scenes, column)) == len(scenes) == 4 for column in Scenes.__dataclass_fields__)
