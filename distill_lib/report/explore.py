"""Sliders over the precomputed pictures of `shipped.explore`: as a page that needs no kernel, and as widgets of one."""

import base64
import io
import json
from typing import Any

import numpy as np
from ipywidgets import Dropdown, HBox, Image, Label, Layout, SelectionSlider, VBox
from PIL import Image as Picture

from distill_lib.report.cells import Html
from distill_lib.shipped import explore
from distill_lib.shipped.explore import NETWORKS, NOISES, SIDE, STEPS, WS

SCALE = 4
"""Pixels of the screen for one of a picture."""
_TITLES = {"pair": "guided pair", "student": "student of stage one"}
_PAGE = """<div id="distill-explore">
<style>
#distill-explore .shown {{ width: {width}px; height: {height}px; image-rendering: pixelated;
  background-image: url(data:image/webp;base64,{sheet}); background-size: {sheet_width}px {sheet_height}px; }}
#distill-explore label {{ display: inline-block; margin: 0 1em 0.5em 0; }}
#distill-explore figure {{ display: inline-block; margin: 0 1.5em 0 0; }}
</style>
<p class="asleep">No pictures? Jupyter shows them once you run this cell, or trust the notebook.</p>
<label>w <input type="range" name="w" min="0" max="{last_w}" value="1"> <output></output></label>
<label>steps <input type="range" name="steps" min="0" max="{last_steps}" value="2"> <output></output></label>
<label>class <select name="kind">{options}</select></label><br>
{figures}
<script>
(() => {{
  const root = document.getElementById("distill-explore"), ws = {ws}, steps = {steps};
  const at = name => Number(root.querySelector(`[name=${{name}}]`).value);
  function show() {{
    const [w, n, kind] = [at("w"), at("steps"), at("kind")];
    const shown = root.querySelectorAll("output");
    shown[0].textContent = ws[w];
    shown[1].textContent = steps[n];
    root.querySelectorAll("figure").forEach((figure, network) => {{
      const row = (network * ws.length + w) * steps.length + n;
      figure.firstElementChild.style.backgroundPosition = `${{-kind * {width}}}px ${{-row * {height}}}px`;
      const count = (network === 0 && ws[w] > 0 ? 2 : 1) * steps[n];
      figure.querySelector("b").textContent = `${{count}} evaluation${{count > 1 ? "s" : ""}}`;
    }});
  }}
  root.querySelector(".asleep").remove();
  root.addEventListener("input", show);
  show();
}})();
</script>
</div>"""
_FIGURE = """<figure><div class="shown" role="img" aria-label="{title}"></div>
<figcaption>{title}, <b></b></figcaption></figure>"""


def page() -> Html:
    """All pictures and their sliders in one piece of HTML, which asks for nothing and needs no kernel."""
    height, width = explore.read_sheet().shape[:2]
    options = "".join(f'<option value="{kind}">{name}</option>' for kind, name in enumerate(explore.names()))
    text = _PAGE.format(
        sheet=base64.b64encode(explore.SHEET.read_bytes()).decode(),
        width=SCALE * SIDE * NOISES,
        height=SCALE * SIDE,
        sheet_width=SCALE * width,
        sheet_height=SCALE * height,
        last_w=len(WS) - 1,
        last_steps=len(STEPS) - 1,
        options=options,
        figures="\n".join(_FIGURE.format(title=_TITLES[network]) for network in NETWORKS),
        ws=json.dumps([f"{w:g}" for w in WS]),
        steps=json.dumps(STEPS),
    )
    return Html(text)


def enlarged(sheet: np.ndarray, network: str, w: float, n_steps: int, kind: int) -> np.ndarray:
    """The pictures of a network side by side, each pixel SCALE pixels wide and high."""
    return explore.pictures(sheet, network, w, n_steps, kind).repeat(SCALE, 0).repeat(SCALE, 1)


def evaluations(network: str, w: float, n_steps: int) -> int:
    """Evaluations of a network for a picture: the guided pair takes two a step where w is above 0."""
    return n_steps * (2 if network == "pair" and w > 0 else 1)


def sliders() -> VBox:
    """The same as widgets: the sliders, and below them the pictures of each network over its name."""
    sheet, kinds = explore.read_sheet(), list(enumerate(explore.names()))
    chosen = {
        "w": SelectionSlider(options=WS, value=1.0, description="w"),
        "n_steps": SelectionSlider(options=STEPS, value=4, description="steps"),
        "kind": Dropdown(options=[(name, kind) for kind, name in kinds], description="class"),
    }
    size = Layout(width=f"{SCALE * SIDE * NOISES}px", height=f"{SCALE * SIDE}px")
    panels = {network: VBox([Image(format="png", layout=size), Label()]) for network in NETWORKS}

    def show(_: Any = None) -> None:
        values = {name: widget.value for name, widget in chosen.items()}
        for network, panel in panels.items():
            image, caption = panel.children
            buffer = io.BytesIO()
            Picture.fromarray(enlarged(sheet, network, **values)).save(buffer, "png")
            image.value = buffer.getvalue()
            count = evaluations(network, values["w"], values["n_steps"])
            caption.value = f"{_TITLES[network]}, {count} evaluation{'s' * (count > 1)}"

    for widget in chosen.values():
        widget.observe(show, "value")
    show()
    return VBox([HBox(list(chosen.values())), HBox(list(panels.values()))])
