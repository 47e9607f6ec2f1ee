"""Students leave as ONNX graphs too, each with a README whose lines draw by onnxruntime and numpy alone.

A folder holds `model.onnx`, `model-int8.onnx`, what turns prompts into ids, and the README. `make onnx` writes those of
shipped students.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from distill_lib.networks.adapter import Network
from distill_lib.networks.autoencoders import TinyDecode
from distill_lib.networks.drawing_graphs import class_graph, decoder_graph, one_step_graph, steps_graph
from distill_lib.networks.graphs import in_bytes
from distill_lib.networks.pipeline import TextToImage, tokens_of
from distill_lib.paths import runs_folder
from distill_lib.shipped import pretrained
from distill_lib.shipped.export import card, replaced
from distill_lib.worlds.captions import WORDS, drawn_attributes, say

_MORE = ' | {{"w": np.ones(1, np.float32), "steps": np.array({n_steps})}}'
_ROWS = """| `w` | float32 | batch | guidance strength, in [0, {w_max:g}] |
| `steps` | int64 | none, one number | steps of the sampler; the student is meant for {n_steps} |
"""
_KINDS = ("onestep", "textstudent", "student", "tinydecoder")
_STEPS = 16  # of the sampler, for students of stage one, which are made for many


def tokens_table(model: TextToImage) -> dict[str, Any]:
    """What turns a prompt into ids without a tokenizer: `start`, the id of each word, then `end` up to `length`.

    Raises:
        ValueError: the tokenizer is no list of the words of captions.
    """
    words = model.pipe.tokenizer
    table = dict(zip(WORDS, (row[1] for row in tokens_of(model.pipe, list(WORDS)).tolist()), strict=True))
    tokens = {"start": words.bos_token_id, "end": words.eos_token_id, "length": words.model_max_length, "ids": table}
    prompt = say(drawn_attributes(1, 0))[0]
    if ids_of(prompt, tokens) != tokens_of(model.pipe, [prompt])[0].tolist():
        raise ValueError(
            f"this tokenizer, of {len(words)} entries, is no list of the words of captions, by which the README of a "
            "graph reads prompts; export the folder of diffusers alone"
        )
    return tokens


def ids_of(prompt: str, tokens: dict[str, Any]) -> list[int]:
    """Ids of a prompt by a table of `tokens_table`, as the lines of the README make them."""
    ids = [tokens["start"], *(tokens["ids"][word] for word in prompt.split())]
    return ids + [tokens["end"]] * (tokens["length"] - len(ids))


def export_onnx(
    folder: Path, model: TextToImage | None, net: Network, n_steps: int, w_max: float | None, description: str
) -> Path:
    """Write a student to `folder` as one graph from ids or a class to pictures; an older folder stays whole until then.

    Args:
        folder: whose last name is the README's title.
        model: whose text encoder and tokenizer the student shares; none for a student of classes.
        net: the student.
        n_steps: for which it is meant: an input of the graph, unless the student takes no w and makes one step.
        w_max: largest strength that it was trained for; none for a student that takes no w.
        description: a sentence or two for the README.

    Raises:
        ValueError: the student takes no w and is to take one, or the other way round, or makes several steps without;
            the tokenizer is no list of words; or as `graphs.export`: all before anything is written.
    """
    if (w_max is None) == net.takes_w:
        wanted = "takes w, so that its largest is needed" if net.takes_w else "takes no w, so that none can be given"
        raise ValueError(f"this student {wanted}: w_max={w_max}")
    if not net.takes_w and (n_steps != 1 or model is None):
        raise ValueError(f"a student without w has a graph of one step from a prompt alone, not of steps={n_steps}")
    values = {"description": description, "loop": "", "more": "", "inputs": ""}
    if w_max is not None:
        values |= {"loop": ", the loop of its steps", "more": _MORE.format(n_steps=n_steps)}
        values |= {"inputs": _ROWS.format(w_max=w_max, n_steps=n_steps)}
    if model is None:
        return _write(folder, class_graph(net), net, "class", values | {"last": net.module.config.num_class_embeds - 2})
    tokens = tokens_table(model)
    values |= {"length": tokens["length"], "prompt": say(drawn_attributes(1, 0))[0]}
    graph = steps_graph(model, net) if net.takes_w else one_step_graph(model, net)
    return _write(folder, graph, net, "text", values, tokens)


def export_onnx_decoder(folder: Path, model: TextToImage, net: Network, description: str) -> Path:
    """Write the decoder of a student alone, a graph from latents to pictures; as `export_onnx`."""
    return _write(folder, decoder_graph(model, net), net, "decoder", {"description": description})


def _write(
    folder: Path, graph: ModelProto, net: Network, kind: str, values: dict[str, Any], tokens: dict | None = None
) -> Path:
    small, (image,) = in_bytes(graph), graph.graph.output
    side = image.type.tensor_type.shape.dim[-1].dim_value
    values |= {"title": folder.name, "side": side, "shape": ", ".join(map(str, net.shape))}
    values |= {"notes": card("onnx_notes")}
    readme = card(f"onnx_{kind}").format(**values)
    with replaced(folder) as part:
        onnx.save(graph, part / "model.onnx")
        onnx.save(small, part / "model-int8.onnx")
        if tokens:
            (part / "tokens.json").write_text(json.dumps(tokens))
        (part / "README.md").write_text(readme)
    return folder


def export_shipped(name: str, folder: Path) -> Path:
    """Write a shipped student to `folder` as a graph.

    Raises:
        ValueError: nothing of this name is shipped, or it has no graph.
    """
    kind, _, rest = name.partition("-")
    made = pretrained.made(name)["config"]
    description = f"`pretrained/{name}`, as `make teachers` trained it."
    if kind == "student":
        return export_onnx(folder, None, Network(pretrained.student(rest)), _STEPS, made["w_max"], description)
    if kind not in _KINDS:
        raise ValueError(f"{name} is no student with a graph; choose one of {', '.join(shipped_students())}")
    model = pretrained.pipeline(rest)
    if kind == "textstudent":
        return export_onnx(folder, model, pretrained.text_student(rest, model), _STEPS, made["w_max"], description)
    if kind == "onestep":
        return export_onnx(folder, model, pretrained.one_step(rest, model), 1, None, description)
    net = model.network.like(model.network.module, decode=TinyDecode(pretrained.tiny_decoder(rest)))
    return export_onnx_decoder(folder, model, net, description)


def shipped_students() -> list[str]:
    """Names of what is shipped and has a graph."""
    names = sorted(path.parent.name for path in pretrained.PRETRAINED.glob("*/made.json"))
    return [name for name in names if name.partition("-")[0] in _KINDS]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="distill_lib.run onnx", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(shipped_students())}; all unless given")
    names = parser.parse_args().names or shipped_students()
    if unknown := set(names) - set(shipped_students()):
        parser.error(f"{', '.join(sorted(unknown))} has no graph; choose of {', '.join(shipped_students())}")
    for name in names:
        print(export_shipped(name, runs_folder() / "onnx" / name), flush=True)


if __name__ == "__main__":
    main()
