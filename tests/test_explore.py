"""The page of sliders: its pictures are those that the library draws today, as a page and as widgets."""

import base64
import io
import json

import nbformat
import numpy as np
import pytest
from PIL import Image
from test_site import ASKS_OUTSIDE

from distill_lib.report import explore as report
from distill_lib.run.exercises import EXPLORE, NEEDS_KERNEL
from distill_lib.shipped import explore
from distill_lib.shipped.explore import CLASSES, NETWORKS, NOISES, SIDE, STEPS, WS


@pytest.mark.parametrize(("network", "w", "n_steps"), [("student", 1.0, 4), ("pair", 2.0, 2), ("pair", 0.0, 1)])
def test_a_row_of_the_sheet_is_what_is_drawn_today(network, w, n_steps):
    at = explore.row(network, w, n_steps) * SIDE
    stored = explore.read_sheet()[at : at + SIDE].astype(int)
    now = explore.drawn(explore.load_network(network), w, n_steps).astype(int)
    assert stored.shape == now.shape and np.abs(stored - now).max() <= 2  # rounding of another machine
    other = explore.row(network, w, STEPS[STEPS.index(n_steps) + 1]) * SIDE
    assert np.abs(explore.read_sheet()[other : other + SIDE].astype(int) - now).mean() > 2


def test_the_sheet_has_a_row_for_each_network_strength_and_number_of_steps():
    rows = [explore.row(network, w, n) for network in NETWORKS for w in WS for n in STEPS]
    assert rows == list(range(len(rows)))
    assert explore.read_sheet().shape == (len(rows) * SIDE, len(CLASSES) * NOISES * SIDE, 3)
    assert explore.SHEET.stat().st_size < 7e5


def test_widgets_show_the_pictures_of_their_values_at_their_size_and_what_they_cost():
    box = report.sliders()
    (w, steps, kind), panels = box.children[0].children, box.children[1].children
    w.value, steps.value, kind.value = 4.0, 32, 2
    for network, panel in zip(NETWORKS, panels, strict=True):
        image, caption = panel.children
        visible = np.asarray(Image.open(io.BytesIO(image.value)))
        wanted = explore.pictures(explore.read_sheet(), network, 4.0, 32, 2)
        assert (visible[:: report.SCALE, :: report.SCALE] == wanted).all()
        assert (image.layout.height, image.layout.width) == tuple(f"{side}px" for side in visible.shape[:2])
        assert caption.value.endswith(", 64 evaluations" if network == "pair" else ", 32 evaluations")
    w.value, steps.value = 0.0, 1
    assert all(panel.children[1].value.endswith(", 1 evaluation") for panel in panels)


def test_the_page_holds_the_sheet_asks_for_nothing_outside_and_is_stored():
    page = str(report.page())
    assert base64.b64encode(explore.SHEET.read_bytes()).decode() in page
    assert not ASKS_OUTSIDE.search(page) and "http" not in page.replace(page.split("base64,")[1].split(")")[0], "")
    cells = nbformat.read(EXPLORE, as_version=4).cells
    stored = [output for cell in cells for output in cell.get("outputs", []) if "text/html" in output.get("data", {})]
    assert [output.data["text/html"] for output in stored] == [page]


def test_no_state_of_widgets_is_stored_and_their_cells_say_that_they_need_a_kernel():
    notebook = nbformat.read(EXPLORE, as_version=4)
    assert "widgets" not in notebook.metadata and "widget-view" not in json.dumps(notebook)
    waiting = [cell for cell in notebook.cells if NEEDS_KERNEL in cell.metadata.get("tags", [])]
    assert len(waiting) == 2 and not any(cell.outputs for cell in waiting)
