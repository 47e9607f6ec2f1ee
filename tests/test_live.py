"""The page of live models in a browser: each control answers, and its pictures are those of PyTorch.

Runs where `make live` has written the page, and chromium and playwright are there (`make test-site`); else skipped.
"""

import json
import re

import numpy as np
import onnx
import pytest
import torch
from browsing import chromium, page_of

from distill_lib.diffusion.pixels import from_patches
from distill_lib.diffusion.samplers import sample
from distill_lib.networks.adapter import Network, denoise_pair, denoise_student
from distill_lib.networks.runtime import GraphRun
from distill_lib.paths import runs_folder
from distill_lib.shipped import live, live_points, pretrained
from distill_lib.worlds.captions import drawn_attributes, say

PAGE = runs_folder() / "site" / "live"


@pytest.fixture(scope="module")
def browser():
    """Chromium, and the address at which the page is served."""
    if not (PAGE / "live.json").exists():
        pytest.skip("needs the page, which `make live` writes")
    with chromium(PAGE) as opened:
        yield opened


@pytest.fixture
def page(browser):
    """The page, whose errors and requests to elsewhere fail the test."""
    wrong = []
    with page_of(*browser, wrong) as page:
        page.goto(browser[1])
        page.wait_for_selector("#points-load:enabled")
        yield page
    assert wrong == []


def settle(page, part, act):
    """Do something, and wait until the part of the page is drawn again."""
    before = int(page.get_attribute(f"#{part}", "data-drawn"))
    act()
    drawn = f"document.getElementById('{part}').dataset.drawn > {before}"
    page.wait_for_function(f"{drawn} || /failed|cannot/.test(document.getElementById('{part}-status').textContent)")
    assert page.evaluate(drawn), page.inner_text(f"#{part}-status")


def loaded(page, part):
    """Load the models of a part by the keyboard."""
    page.focus(f"#{part}-load")
    settle(page, part, lambda: page.keyboard.press("Enter"))
    return json.loads((PAGE / "live.json").read_text())[part]


def moved(page, part, slider, key):
    page.focus(f"#{part}-{slider}")
    settle(page, part, lambda: page.keyboard.press(key))
    return float(page.inner_text(f"#{part}-{slider}-value"))


def on_canvas(page, name):
    """The picture on a canvas, (1, 3, R, R) in [0, 1]."""
    script = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    data = np.array(page.eval_on_selector(f"#{name}", script), np.float32)
    side = int((len(data) / 4) ** 0.5)
    return torch.from_numpy(data.reshape(1, side, side, 4)[..., :3]).permute(0, 3, 1, 2) / 255


def stored(part):
    noise = torch.from_numpy(np.fromfile(PAGE / part["noise"], "<f4"))
    return noise.reshape(-1, *part["shape"]) if "shape" in part else noise.reshape(-1, 2)


def distance(a, b):
    """Mean absolute difference of pictures, a share of the range from black to white."""
    return (a - b).abs().mean().item()


def seen(image):
    return (image / 2 + 0.5).clamp(0, 1)


def test_the_models_of_the_page_are_as_large_as_its_buttons_say(page):
    table = json.loads((PAGE / "live.json").read_text())
    for part, largest in live.LARGEST.items():
        values = [*table[part].values(), *table[part].get("students", {}).values()]
        models = [value for value in values if isinstance(value, dict) and "bytes" in value]
        assert [(PAGE / x["file"]).stat().st_size for x in models] == [x["bytes"] for x in models]
        assert models and max(x["bytes"] for x in models) <= largest
        total = sum(x["bytes"] for x in models) / 1e6
        assert page.inner_text(f"#{part}-load").startswith(f"Load {total:.1f} MB")


@torch.no_grad()
def test_pictures_of_classes_are_those_of_pytorch_from_the_stored_noise(page):
    part = loaded(page, "pixels")
    student, teacher = (Network(x("textured")).exact() for x in (pretrained.student, pretrained.teacher))
    before = on_canvas(page, "pixels-student")
    settle(page, "pixels", lambda: page.click("#pixels-texture label:has-text('checked')"))
    settle(page, "pixels", lambda: page.click("#pixels-shape label:has-text('cube')"))
    w, n = moved(page, "pixels", "w", "ArrowRight"), int(moved(page, "pixels", "steps", "ArrowLeft"))
    label, z_T = torch.tensor([part["names"].index("checked red cube")]), stored(part)
    assert (w, n) == (2.1, 7)
    n = int(moved(page, "pixels", "steps", "ArrowRight"))  # our own grid has no seven steps
    wanted = seen(from_patches(sample(denoise_student(student, label, torch.tensor([w])), z_T, n)))
    assert distance(wanted, before) > 0.05
    assert distance(wanted, on_canvas(page, "pixels-student")) < 0.02
    pair = seen(from_patches(sample(denoise_pair(teacher, label, w), z_T, n // 2)))
    assert distance(pair, on_canvas(page, "pixels-teacher")) < 0.02
    settle(page, "pixels", lambda: page.click("#pixels-new"))
    assert distance(wanted, on_canvas(page, "pixels-student")) > 0.05
    settle(page, "pixels", lambda: page.click("#pixels-stored"))
    assert distance(wanted, on_canvas(page, "pixels-student")) < 0.02
    assert re.fullmatch(
        r"Student, .*: 8 steps, 8 evaluations, [\d.]+ ms", page.inner_text("#pixels figcaption >> nth=0")
    )


@torch.no_grad()
def test_the_one_step_student_reads_the_prompt_and_draws_the_picture_of_pytorch(page):
    part = loaded(page, "prompts")
    words = say(drawn_attributes(3, live._EXAMPLE_SEED))
    model = pretrained.pipeline()
    net = pretrained.one_step("scenes", model).exact()
    pictures = []
    for i, prompt in enumerate(words):
        settle(page, "prompts", lambda i=i: page.click(f"#prompts-example-{i}"))
        assert page.inner_text("#prompts-text") == prompt
        label, z_T = model.states([prompt]), stored(part)[i : i + 1]
        x = sample(lambda z_t, t, label=label: net(z_t, t, label), z_T, 1, net.schedule)
        wanted = seen(net.decode.tiny.decoder(x))
        pictures.append(on_canvas(page, "prompts-student"))
        assert distance(wanted, pictures[-1]) < 0.02
        assert page.is_visible("#prompts-teacher img")
    assert distance(pictures[0], pictures[1]) > 0.05
    settle(page, "prompts", lambda: page.select_option("#prompts-left-color", label="red"))
    settle(page, "prompts", lambda: page.select_option("#prompts-left-shape", label="cone"))
    assert page.inner_text("#prompts-unseen") == "No training has seen a red cone."
    assert not page.is_visible("#prompts-teacher img")
    page.click("#prompts-thirty")
    page.wait_for_function("document.querySelectorAll('#prompts-grid canvas').length === 30")
    assert re.match(r"\d+ pictures? in [\d.]+ s, \d+ ms each", page.inner_text("#prompts-thirty-time"))


@torch.no_grad()
def test_points_end_where_those_of_pytorch_do(page):
    part = loaded(page, "points")
    w, label, z_T = 1.1, torch.arange(part["n"]) % 5, stored(part)
    assert moved(page, "points", "w", "ArrowRight") == w
    assert moved(page, "points", "steps", "ArrowLeft") == 2
    pair = denoise_pair(live_points.TEACHER, label, w)
    truth = sample(pair, z_T, 64)
    student = walked(part["students"]["2"]["file"], z_T, 2, label, torch.full((part["n"],), w))
    for panel, z in (("student", student), ("teacher", sample(pair, z_T, 1))):
        rms = (z - truth).square().sum(1).mean().sqrt().item()
        text = page.inner_text(f"figure:has(#points-{panel}) figcaption")
        assert abs(float(text.rpartition(" ")[2]) - rms) < 0.006  # two digits


def walked(file, z, n, label, w):
    """Points (B, 2) after n steps of a student, by its file: its weights are this machine's, and are not shipped."""
    run = GraphRun(onnx.load(PAGE / file))
    for i in range(n, 0, -1):
        z = run(z=z, t=torch.tensor(1024 * i // n), s=torch.tensor(1024 * (i - 1) // n), label=label, w=w)
    return z


def test_a_browser_without_webassembly_is_told_so_in_a_sentence(browser):
    opened, address = browser
    page = opened.new_page()
    page.add_init_script("delete globalThis.WebAssembly")
    page.goto(address)
    page.wait_for_function("document.getElementById('missing').textContent.includes('WebAssembly')")
    assert page.is_visible("#missing") and page.is_disabled("#points-load")
    page.close()


def test_a_name_at_the_end_of_the_address_leaves_one_section_which_draws(page):
    page.goto(f"{page.url}#points")
    page.wait_for_selector("#points-load:enabled")
    loaded(page, "points")
    assert page.is_visible("#points-student")
    assert not any(page.is_visible(hidden) for hidden in ("h1", "#pixels", "#prompts", "#missing"))


def test_on_a_phone_nothing_is_wider_than_the_screen_and_the_keyboard_shows_where_it_is(page):
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "points-load"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
