"""Edges against shapes whose edges are known; maps in [0, 1], from pictures and from files."""

import numpy as np
import pytest
import torch
from PIL import Image

from distill_lib.worlds.maps import (
    FACTOR,
    KINDS,
    as_picture,
    canny,
    coarse_map,
    control_map,
    depth_map,
    edge_f1,
    edge_map,
    read_map,
)


def picture(size=48):
    return torch.zeros(1, 1, size, size)


def disc(radius=14.0, size=48):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    middle = (size - 1) / 2
    away = ((y - middle) ** 2 + (x - middle) ** 2).sqrt()
    return (radius + 0.5 - away).clamp(0, 1)[None, None], away


def test_an_even_picture_has_no_edge_and_a_slope_has_none_inside():
    assert not canny(picture() + 0.7).any()
    slope = torch.linspace(0, 1, 48).expand(1, 1, 48, 48)  # 0.02 a pixel
    assert not canny(slope)[..., 4:-4].any()


def test_a_step_is_one_pixel_wide_where_it_is():
    image = picture()
    image[..., 20:] = 1
    result = canny(image)
    assert torch.equal(result.sum(2), torch.ones(1, 48, dtype=torch.long))
    assert set(result[0].nonzero()[:, 1].tolist()) <= {19, 20}


def test_edges_of_a_disc_are_its_closed_circle():
    image, away = disc()
    result = canny(image)[0]
    assert (away[result] - 14).abs().max() < 1.5
    y, x = result.nonzero().T
    angle = torch.atan2(y - 23.5, x - 23.5).sort().values
    assert torch.cat([angle, angle[:1] + 2 * torch.pi]).diff().max() < 2.5 / 14  # no gap of three pixels


def test_a_picture_on_its_side_has_its_edges_on_their_side():
    torch.manual_seed(1)
    image = torch.nn.functional.avg_pool2d(torch.rand(3, 3, 60, 60), 5, 1)
    assert torch.equal(canny(image.mT), canny(image).mT)


def test_a_weak_edge_stays_where_it_leads_to_a_strong_one():
    image = picture()
    image[..., 24:] = 0.15  # below `high` all the way down
    assert not canny(image).any()
    image[..., 24:] *= torch.linspace(4, 1, 48)[:, None]  # strong at the top, and fading
    assert torch.equal(canny(image).any(2), torch.ones(1, 48, dtype=torch.bool))


def test_colours_of_one_brightness_have_an_edge_between_them():
    image = torch.zeros(1, 3, 48, 48)
    image[:, 0, :, :24], image[:, 1, :, 24:] = 0.6, 0.6
    assert canny(image).any() and not canny(image.mean(1, keepdim=True)).any()


@pytest.mark.parametrize(("off", "f1"), [(0, 1.0), (1, 1.0), (2, 0.0)])
def test_an_edge_may_be_a_pixel_off(off, f1):
    a, b = (torch.zeros(2, 16, 16, dtype=torch.bool) for _ in range(2))
    a[..., 5], b[..., 5 + off] = True, True
    assert edge_f1(a, b).tolist() == [f1, f1]


def test_f1_weighs_what_is_missing_and_what_is_too_much():
    wanted, result = (torch.zeros(1, 32, 32, dtype=torch.bool) for _ in range(2))
    wanted[:, :, 4], wanted[:, :, 20] = True, True
    result[:, :, 4] = True
    assert edge_f1(result, wanted).item() == pytest.approx(2 / 3)  # precision 1, recall 1/2
    assert edge_f1(result, wanted) == edge_f1(wanted, result)
    nothing = torch.zeros_like(wanted)
    assert edge_f1(nothing, wanted).item() == 0 and edge_f1(nothing, nothing).item() == 1


def test_maps_lie_in_0_to_1_and_near_is_light():
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    depth = torch.tensor([2.0, 12.0]).reshape(2, 1, 1).expand(2, 64, 64)
    for kind in KINDS:
        seen = control_map(kind, image, depth)
        assert seen.shape == (2, 3 if kind == "coarse" else 1, 64, 64)
        assert 0 <= seen.min() and seen.max() <= 1
    near, far = depth_map(depth)
    assert near.min() == pytest.approx(10 / 12) and far.max() == 0


def test_a_coarse_map_knows_nothing_of_what_lies_inside_a_square():
    image = torch.full((1, 3, 64, 64), 100, dtype=torch.uint8)
    pattern = torch.tensor([[20, -20], [-20, 20]]).repeat(32, 32)
    assert torch.allclose(coarse_map(image), coarse_map((image + pattern).to(torch.uint8)), atol=1e-6)
    assert coarse_map(image).std() < 1e-6 and FACTOR == 4


def test_an_unknown_kind_is_named_with_those_that_there_are():
    with pytest.raises(ValueError, match="control='pose' is unknown; choose one of edges, depth, coarse"):
        control_map("pose", torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_comes_back_from_a_png_file(kind, tmp_path):
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    seen = edge_map(image) if kind == "edges" else control_map(kind, image, 12 * torch.rand(1, 32, 32))
    Image.fromarray(as_picture(seen)[0].permute(1, 2, 0).numpy()).save(tmp_path / "map.png")
    back = read_map(tmp_path / "map.png", 32, kind)
    assert back.shape == seen.shape and (back - seen).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("kind", ["depth", "coarse"])
def test_a_map_of_sixteen_bits_is_scaled_and_not_cut_off(kind, tmp_path):
    values = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    Image.fromarray(values).save(tmp_path / "map.png")
    seen = read_map(tmp_path / "map.png", 32, kind)
    assert (seen - torch.from_numpy(values.astype(np.float32)) / 65535).abs().max() <= 0.5 / 255 + 1e-6
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "map.tif")
    with pytest.raises(ValueError, match=r"map\.tif is no readable picture: its values are floating-point numbers"):
        read_map(tmp_path / "map.tif", 32, kind)


def test_a_file_of_the_wrong_size_or_none_is_refused(tmp_path):
    Image.new("L", (48, 64)).save(tmp_path / "narrow.png")
    with pytest.raises(ValueError, match=r"narrow.png has 48 x 64 pixels, but a control has to have 64 x 64; resize"):
        read_map(tmp_path / "narrow.png", 64)
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "missing.png"):
        with pytest.raises(ValueError, match="is no readable picture"):
            read_map(tmp_path / name, 64)
    with pytest.raises(ValueError, match="control='pose'"):
        read_map(tmp_path / "narrow.png", 64, "pose")
