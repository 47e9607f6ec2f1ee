"""The page of live models: shipped students as graphs of 8 bits, which draw in the reader's browser.

`make live` writes

runs/site/live/   index.html  live.js  live.css    as `site/live` has them
                  live.json                        words, classes, tokens, and the files below with their sizes
                  *.onnx                           models, none larger than `LARGEST` says
                  *-noise.bin                      stored noise, float32 with the lowest byte first
                  example-0.png ..                 what the teacher of SDXS draws of the prompts of the examples
                  ort*                             three files of onnxruntime-web (`onnx_web`)
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto
from PIL import Image
from torch import Tensor

from distill_lib import profiles
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.pixels import to_bytes
from distill_lib.diffusion.schedules import OURS
from distill_lib.diffusion.solvers import sample_by
from distill_lib.networks.adapter import Network, denoiser
from distill_lib.networks.drawing_graphs import class_graph, one_step_graph
from distill_lib.networks.graphs import in_bytes
from distill_lib.networks.pipeline import TextToImage
from distill_lib.paths import COMMITTED, ROOT, runs_folder
from distill_lib.shipped import live_points, onnx_web, pretrained
from distill_lib.shipped.export import replaced
from distill_lib.shipped.export_onnx import tokens_table
from distill_lib.worlds.captions import HELD_OUT, PHRASINGS, drawn_attributes, say
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import COLORS, SHAPES, TEXTURES, class_names

SOURCES = ROOT / "site" / "live"
LARGEST = {"points": 200_000, "pixels": 4_000_000, "prompts": 13_000_000}
"""Bytes of one model, by the part of the page."""
WORLD = "textured"
"""Whose classes are drawn, and whose student and teacher."""
_SEED = 2300  # of stored noise, a stream for each part
_EXAMPLES, _EXAMPLE_SEED = 3, 2301
_POINTS = 500
_MANY = 64  # steps that points are compared with


def words_table() -> dict[str, Any]:
    """What the page says in words: kinds of solids in the order of the world, phrasings, pairs that no training saw."""
    kinds = {"shapes": list(SHAPES), "colors": list(COLORS), "textures": list(TEXTURES)}
    unseen = [" ".join(pair) for pair in HELD_OUT]
    return {
        "pixels": kinds | {"names": class_names(WORLDS[WORLD])},
        "prompts": kinds | {"phrasings": list(PHRASINGS), "unseen": unseen},
    }


def stored_noise(part: str, count: int, shape: tuple[int, ...]) -> Tensor:
    """The stored noise of a part of the page, (count, *shape): the same in every browser."""
    return normal(_SEED, f"live-{part}", 0, torch.arange(count), shape)


def write_graph(folder: Path, name: str, graph: ModelProto, part: str) -> dict[str, Any]:
    """Write a graph, and give its name and its bytes.

    Raises:
        ValueError: it is larger than LARGEST of that part.
    """
    if (size := graph.ByteSize()) > LARGEST[part]:
        raise ValueError(
            f"{name} takes {size / 1e6:.1f} MB, and a model of {part} has {LARGEST[part] / 1e6:g} MB at most"
        )
    onnx.save(graph, folder / f"{name}.onnx")
    return {"file": f"{name}.onnx", "bytes": size}


def _write_noise(folder: Path, part: str, noise: Tensor) -> str:
    name = f"{part}-noise.bin"
    (folder / name).write_bytes(noise.numpy().astype("<f4").tobytes())
    return name


def points_part(folder: Path, profile: str) -> dict[str, Any]:
    """Students of points in the plane and their teacher; trained at the sizes of a profile unless they are there."""
    graphs = {n: live_points.student_graph(net) for n, net in live_points.students(profiles.load(profile).toy).items()}
    students = {n: write_graph(folder, f"points-{n}", graph, "points") for n, graph in sorted(graphs.items())}
    return {
        "students": students,
        "teacher": write_graph(folder, "points-teacher", live_points.teacher_graph(), "points"),
        "noise": _write_noise(folder, "points", stored_noise("points", _POINTS, (2,))),
        "n": _POINTS,
        "classes": live_points.TEACHER.null,
        "many": _MANY,
        "T": OURS.T,
    }


def pixels_part(folder: Path) -> dict[str, Any]:
    """The student of stage one of a world, and its teacher as a guided pair, both of batch 1."""
    nets = {"student": Network(pretrained.student(WORLD)), "teacher": Network(pretrained.teacher(WORLD))}
    graphs = {name: in_bytes(class_graph(net, batch=1)) for name, net in nets.items()}
    shape = nets["student"].shape
    files = {name: write_graph(folder, f"pixels-{name}", graph, "pixels") for name, graph in graphs.items()}
    noise = _write_noise(folder, "pixels", stored_noise("pixels", 1, shape))
    return files | {"noise": noise, "shape": shape, "side": WORLDS[WORLD].resolution}


def prompts_part(folder: Path) -> dict[str, Any]:
    """The one-step student, and examples with the pictures that its teacher makes of them from the same noise."""
    model = pretrained.pipeline()
    net = pretrained.one_step("scenes", model)
    graph = write_graph(folder, "prompts-student", in_bytes(one_step_graph(model, net, batch=1)), "prompts")
    noise = stored_noise("prompts", _EXAMPLES, net.shape)
    wanted_attributes = drawn_attributes(_EXAMPLES, _EXAMPLE_SEED)
    steps, pictures = _teacher_pictures(model, say(wanted_attributes), noise)
    examples = []
    for i, both in enumerate(wanted_attributes.tolist()):
        Image.fromarray(pictures[i].permute(1, 2, 0).numpy()).save(folder / f"example-{i}.png")
        left, right = (dict(zip(("shape", "color", "texture", "size"), solid, strict=True)) for solid in both)
        examples.append({"left": left, "right": right, "picture": f"example-{i}.png"})
    return {
        "graph": graph,
        "noise": _write_noise(folder, "prompts", noise),
        "shape": net.shape,
        "side": pictures.shape[-1],
        "tokens": tokens_table(model),
        "teacher": {"steps": steps},
        "examples": examples,
    }


@torch.no_grad()
def _teacher_pictures(model: TextToImage, prompts: list[str], noise: Tensor) -> tuple[int, Tensor]:
    """Steps and pictures, uint8 (B, 3, R, R), of the teacher as it made the pairs that the student learnt from."""
    recipe, net = pretrained.made("pairs-scenes")["config"], model.network.exact()
    denoise = denoiser(net, model.states(prompts).to(net.device), recipe["w"])
    fresh = lambda i: normal(_EXAMPLE_SEED, "live-fresh", i, torch.arange(len(noise)), net.shape)  # noqa: E731
    x = sample_by(recipe["solver"], denoise, noise.to(net.device), recipe["teacher_steps"], fresh, net.schedule)
    return recipe["teacher_steps"], to_bytes(net.decode(x).cpu())


def write_page(folder: Path, profile: str) -> Path:
    """Write the whole page to `folder`; an older one there stays whole until the new one is.

    Raises:
        ValueError: the runtime cannot be had, or as `write_graph` and what is shipped raise.
    """
    runtime = onnx_web.unpacked(onnx_web.package(runs_folder() / "cache"))
    with replaced(folder) as part:
        for path in SOURCES.iterdir():
            shutil.copyfile(path, part / path.name)
        for name, data in runtime.items():
            (part / name).write_bytes(data)
        words = words_table()
        table = {
            "runtime": sum(map(len, runtime.values())),
            "points": points_part(part, profile),
            "pixels": pixels_part(part) | words["pixels"],
            "prompts": prompts_part(part) | words["prompts"],
        }
        (part / "live.json").write_text(json.dumps(table))
    return folder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="distill_lib.run live", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", default=COMMITTED, help="whose sizes the students of points are trained at")
    folder = write_page(runs_folder() / "site" / "live", parser.parse_args().profile)
    print(f"the page is in {folder}; look at it by: python -m http.server --directory {folder}", flush=True)


if __name__ == "__main__":
    main()
