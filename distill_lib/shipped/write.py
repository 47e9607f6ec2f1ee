"""Putting finished networks into `pretrained/`: fp16 safetensors in files of at most 7 MB, and how they were made."""

import json
from pathlib import Path
from typing import Any

from diffusers import ModelMixin

from distill_lib.engine import store
from distill_lib.engine.files import atomic, folder_hash, save_tensors
from distill_lib.engine.origin import commit
from distill_lib.engine.precision import current
from distill_lib.shipped import pretrained

FILE = 7 * 10**6
"""Bytes of a file at most."""


def ship(name: str, net: ModelMixin, runs: list[store.Run], config: dict[str, Any]) -> None:
    """Write the network that finished runs have left, each gone on from the one before, to pretrained/name in fp16.

    A network above 7 MB is split by diffusers, which reads all parts by the index beside them.
    """
    folder = pretrained.PRETRAINED / name
    for old in folder.glob("*.safetensors*"):  # another number of shards would leave some behind
        old.unlink()
    net.register_to_config(_name_or_path=name)  # diffusers keeps the folder that a network was loaded from
    net.half().save_pretrained(folder, safe_serialization=True, max_shard_size="7MB")
    write_origin(folder, runs, config)


def ship_reader(name: str, run: store.Run, config: dict[str, Any]) -> None:
    """Write a finished network of our own, which is no diffusers one, to pretrained/name in fp16."""
    folder = pretrained.PRETRAINED / name
    save_tensors(folder / "weights.safetensors", {k: v.half() for k, v in run.weights().items()})
    write_origin(folder, [run], config)


def write_origin(folder: Path, runs: list[store.Run], config: dict[str, Any]) -> None:
    """Write made.json: settings, data, commit, precision, command and curve (step, loss, seconds) over all runs."""
    curve, step, seconds = [], 0, 0.0
    for run in runs:
        curve += [[step + r["step"], round(r["loss"], 5), round(seconds + r["seconds"], 1)] for r in run.progress()]
        step, _, seconds = curve[-1]
    record = {"config": config, "commit": commit(), "command": f"make teachers NAMES={folder.name}", "curve": curve}
    record |= {"weights": folder_hash(folder), "precision": runs[-1].precision if runs else current()}
    with atomic(folder / "made.json") as part:
        part.write_text(json.dumps(record, allow_nan=False))
