"""Animations: samples stand where the states say, and files have the frames and times that were asked for."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from distill_lib.paths import ROOT
from distill_lib.report.motion import along, gif, slide, walks


def test_samples_move_straight_within_a_step_and_end_at_the_last_state():
    states = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]], [[2.0, 4.0]]])
    assert along(states, 0.25).tolist() == [[[0.0, 0.0]], [[1.0, 0.0]]]
    assert along(states, 0.75).tolist() == [[[0.0, 0.0]], [[2.0, 0.0]], [[2.0, 2.0]]]
    assert np.array_equal(along(states, 1.0), np.concatenate([states[:2], states[2:]]))


def opened(frames, times):
    picture = Image.open(io.BytesIO(gif(frames, times)))
    durations = []
    for k in range(picture.n_frames):
        picture.seek(k)
        durations.append(picture.info["duration"])
    return picture, durations


def test_each_sampler_walks_in_turn_and_its_last_frame_stays():
    generator = torch.Generator().manual_seed(0)
    paths = {name: torch.randn(n + 1, 5, 2, generator=generator) for name, n in (("teacher", 8), ("student", 1))}
    picture, durations = opened(*walks(paths, torch.arange(5), per_path=3))
    assert durations == [60, 60, 1000, 60, 60, 1000]
    assert picture.info["loop"] == 0


def test_w_slides_up_and_down_and_rests_at_the_ends():
    strips = {w: torch.full((2, 3, 8, 8), int(60 * w), dtype=torch.uint8) for w in (2.0, 0.0, 1.0, 3.0)}
    frames, times = slide(strips, "title")
    assert [frame.alt.split("Rows: ")[1] for frame in frames] == [f"w = {w}.00." for w in (0, 1, 2, 3, 2, 1)]
    assert times == [700, 150, 150, 700, 150, 150]
    assert opened(frames, times)[1] == times


def test_frames_of_other_sizes_or_without_times_are_refused():
    frames, times = slide({0.0: torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, "t")
    others, _ = slide({0.0: torch.zeros(2, 3, 16, 16, dtype=torch.uint8)}, "t")
    with pytest.raises(ValueError, match="2 frames of 2 sizes"):
        gif([*frames, *others], [1, 1])
    with pytest.raises(ValueError, match="1 frames of 1 sizes with 0 times"):
        gif(frames, [])
    with pytest.raises(ValueError, match="0 frames"):
        gif([], times[:0])


@pytest.mark.parametrize("path", sorted((ROOT / "figures" / "laptop").glob("*.gif")), ids=lambda path: path.stem)
def test_a_committed_animation_is_light_and_moves(path):
    picture = Image.open(path)
    assert path.stat().st_size < 1_000_000
    assert picture.n_frames > 10
