"""Sliders over the precomputed pictures of `shipped.explore`: as a page that needs no kernel, and as widgets of one."""

import base64
import io
import json
from typing import Any

import numpy as np
from ipywidgets import Dropdown, HBox, Image, SelectionSlider, VBox
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
      const each = network === 0 && ws[w] > 0 ? 2 : 1;
      figure.querySelector("b").textContent = each * steps[n];
    }});
  }}
  root.addEventListener("input", show);
  show();
}})();
</script>
</div>"""
_FIGURE = """<figure><div class="shown" role="img" aria-label="{title}"></div>
<figcaption>{title}, <b></b> evaluations</figcaption></figure>"""


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


def both(sheet: np.ndarray, w: float, n_steps: int, kind: int) -> np.ndarray:
    """The pictures of both networks above each other, enlarged, with a white line between."""
    upper, lower = (explore.pictures(sheet, network, w, n_steps, kind) for network in NETWORKS)
    whole = np.concatenate([upper, np.full_like(upper[:2], 255), lower])
    return whole.repeat(SCALE, 0).repeat(SCALE, 1)


def sliders() -> VBox:
    """The same as widgets: pair above, student below."""
    sheet, kinds = explore.read_sheet(), list(enumerate(explore.names()))
    chosen = {
        "w": SelectionSlider(options=WS, value=1.0, description="w"),
        "n_steps": SelectionSlider(options=STEPS, value=4, description="steps"),
        "kind": Dropdown(options=[(name, kind) for kind, name in kinds], description="class"),
    }
    image = Image(format="png")

    def show(_: Any = None) -> None:
        buffer = io.BytesIO()
        Picture.fromarray(both(sheet, **{name: widget.value for name, widget in chosen.items()})).save(buffer, "png")
        image.value = buffer.getvalue()

    for widget in chosen.values():
        widget.observe(show, "value")
    show()
    return VBox([HBox(list(chosen.values())), image])
