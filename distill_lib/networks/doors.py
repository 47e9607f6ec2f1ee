"""The doors of folders that other people made: which files are read, that nothing is unpickled, no code run, no weight
made up, and no path followed that leaves the folder.

diffusers and transformers fill missing weights with random ones and say so in a log alone; a tokenizer without its
files gets an empty vocabulary. Here each of these ends in one sentence.
"""

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch
import transformers
from torch.nn import Module

Part = TypeVar("Part", bound=Module)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")  # keys under which a configuration names code
_PATHS = ("vocab_file", "merges_file", "tokenizer_file", "added_tokens_file")  # a tokenizer's, which may lie anywhere
_ATTENTION = (
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
)  # may name code of the hub
_NUMBER = 10**6  # no number in a configuration of these networks is larger
_DEPTH = 128
_LARGE = ("model_max_length", "total_size")  # but for these: "no limit", and bytes in a list of shards
_DEPTHS = ("layers_per_block", "num_hidden_layers", "transformer_layers_per_block", "reverse_transformer_layers")
_LONG = 300  # characters of other people's messages


def one_line(error: BaseException) -> str:
    """What an exception says, in one line of at most some hundred characters."""
    words = " ".join(str(error).split())
    if not words or not isinstance(error, ValueError | OSError | RuntimeError):
        words = f"{type(error).__name__} {words}".strip()  # a KeyError says nothing but the key
    return words if len(words) <= _LONG else words[:_LONG].rstrip() + " .."


@contextlib.contextmanager
def naming_part(part: str) -> Iterator[None]:
    """Whatever goes wrong with a part becomes a sentence that names it.

    Raises:
        ValueError: in the place of any other exception.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(f"{part}: {one_line(error)}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No reports and progress bars of diffusers and transformers: what they would say becomes a sentence or nothing."""
    logs = (diffusers.utils.logging, transformers.utils.logging)
    before, bar = [log.get_verbosity() for log in logs], transformers.utils.logging.is_progress_bar_enabled()
    try:
        for log in logs:
            log.set_verbosity(log.CRITICAL)
        transformers.utils.logging.disable_progress_bar()
        yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.set_verbosity(level)
        if bar:
            transformers.utils.logging.enable_progress_bar()


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in a configuration, with the key that they stand under; betas are left to the grid's own check."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name)
    elif isinstance(value, int | float) and not isinstance(value, bool) and name != "trained_betas":
        yield name, value


def read_config(path: Path) -> dict[str, Any]:
    """A configuration in JSON.

    Raises:
        ValueError: the file is missing or no JSON object, it names code to be run, or a number in it is absurd.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"its {path.name} is no JSON ({one_line(error)})") from error
    if not isinstance(config, dict):
        raise ValueError(f"its {path.name} holds a {type(config).__name__} where a JSON object is due")
    if named := [key for key in _CODE if config.get(key)]:
        raise ValueError(
            f"its {path.name} names code to be run ({named[0]}), and no code of a folder is run; remove it"
        )
    if named := [key for key in _PATHS if config.get(key)]:
        raise ValueError(f"its {path.name} names a file by {named[0]}, and only files beside it are read; remove it")
    if named := [key for key in _ATTENTION if config.get(key) not in (None, "eager", "sdpa")]:
        raise ValueError(f"its {path.name} has {named[0]}={config[named[0]]!r}; eager and sdpa are allowed")
    if config.get("quantization_config"):
        raise ValueError(f"its {path.name} has quantization_config; only weights in floating point are read")
    for name, value in _numbers(config):
        largest = _DEPTH if name in _DEPTHS else _NUMBER
        if not (math.isfinite(value) and abs(value) <= largest) and name not in _LARGE:
            raise ValueError(f"its {path.name} has {name}={value}; numbers up to {largest} are allowed there")
    return config


def _check_inside(path: Path, root: Path) -> None:
    whole = root.resolve()
    if whole.parent.name == "snapshots" and (whole.parent.parent / "blobs").is_dir():
        whole = whole.parent.parent  # an entry of the hub's cache, whose files are links to its blobs
    if not path.resolve().is_relative_to(whole):
        raise ValueError(f"{path.name} is a link out of {root} (to {path.resolve()}); copy it there")


def check_files(folder: Path, root: Path) -> None:
    """Refuse links and shard lists that lead out of the folder.

    Args:
        folder: of one part.
        root: what the folder belongs to; in the hub's cache, whose files are links, the whole entry counts.

    Raises:
        ValueError: the folder is missing, a file in it lies elsewhere or is an adapter's, or a list of shards names
            something else than a file beside it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder.name}")
    for path in (folder, *sorted(folder.iterdir())):
        _check_inside(path, root)
        if path.name == "adapter_config.json":
            raise ValueError("it holds an adapter (adapter_config.json) of weights elsewhere; merge and save it whole")
        if ".index." in path.name and path.suffix == ".json":
            shards = read_config(path).get("weight_map")
            if not isinstance(shards, dict) or not shards:
                raise ValueError(f"its {path.name} has no weight_map; save the weights again")
            for name in set(map(str, shards.values())):
                if Path(name).name != name or not name.endswith(".safetensors"):
                    raise ValueError(f"its {path.name} names {name!r}; only .safetensors files beside it are read")
                if not (folder / name).is_file():
                    raise ValueError(f"its {path.name} names {name!r}, which is not there; fetch the missing file")


def variant_of(folder: Path, stem: str) -> str | None:
    """Which weights of a part are read: None for the plain ones, else the one variant that is there, such as fp16.

    Args:
        folder: of the part.
        stem: `model` as transformers names weights, or `diffusion_pytorch_model`.

    Raises:
        ValueError: there are no safetensors, or several variants and no plain file.
    """
    names = [path.name for path in folder.iterdir()]
    if f"{stem}.safetensors" in names or f"{stem}.safetensors.index.json" in names:
        return None
    pattern = re.compile(rf"{stem}\.(?:safetensors\.index\.)?([A-Za-z0-9_]+)\.(?:safetensors|json)")
    variants = sorted({match[1] for name in names if (match := pattern.fullmatch(name)) and match[1] != "index"})
    if len(variants) == 1:
        return variants[0]
    if variants:
        raise ValueError(f"it has weights as {', '.join(variants)} and no {stem}.safetensors; leave one of them")
    if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
        raise ValueError(
            f"it has {pickles[0]} and no {stem}.safetensors; a pickle can run code and is never read: "
            "save the weights as safetensors (safe_serialization=True)"
        )
    raise ValueError(f"it has no {stem}.safetensors; fetch or save its weights")


def _few(names: Iterable[str]) -> str:
    listed = sorted(map(str, names))
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def check_loaded(info: dict[str, Any]) -> None:
    """Refuse a network that is not wholly its file's, by what `from_pretrained(.., output_loading_info=True)` tells.

    Raises:
        ValueError: names the first weights that are missing, have no place, or have another shape.
    """
    missing, strange = info["missing_keys"], info["unexpected_keys"]
    if any("_orig_mod." in name for name in strange):
        raise ValueError(
            f"its weights were saved from a compiled network ({_few(strange)}); save the network that was compiled"
        )
    if missing:
        raise ValueError(f"its file lacks weights ({_few(missing)}), and none are made up; save the whole part again")
    if strange:
        raise ValueError(f"its file holds weights that its config.json has no place for ({_few(strange)})")
    if info.get("mismatched_keys"):
        raise ValueError(f"weights have another shape than config.json says ({_few(info['mismatched_keys'])})")


def load_part(kind: type[Part], folder: Path, root: Path | None = None) -> Part:
    """A network of diffusers or transformers from its folder, in float32: safetensors only, whole, and nothing else.

    Args:
        kind: its class.
        folder: with config.json and weights, in one file, in shards, or as a single variant (`variant_of`).
        root: the pipeline's folder, which no link may leave; the part's own folder without it.

    Raises:
        ValueError: says in a few words what is wrong with the folder, which it does not name.
    """
    check_files(folder, root or folder)
    read_config(folder / "config.json")
    stem = "model" if issubclass(kind, transformers.PreTrainedModel) else "diffusion_pytorch_model"
    options = {"variant": variant_of(folder, stem), "use_safetensors": True, "local_files_only": True}
    with quiet():
        part, info = kind.from_pretrained(folder, **options, output_loading_info=True)
    check_loaded(info)
    part = part.float()
    broken = [name for name, value in part.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f"weights are not finite ({_few(broken)}); fetch or train them again")
    return part


def open_part(kind: type[Part], folder: Path, content: str, cure: str) -> Part:
    """`load_part` of a folder of ours.

    Raises:
        ValueError: the folder is missing, or its weights are truncated, not finite, or belong to another network; names
            the folder, `content` should be in it, and the `cure`.
    """
    try:
        return load_part(kind, folder)
    except Exception as error:
        raise ValueError(f"no usable {content} in {folder}: {one_line(error)}; {cure}") from error


def check_tokenizer(folder: Path, root: Path) -> None:
    """Refuse a tokenizer's folder whose files are missing: transformers would make up a vocabulary of two entries.

    Raises:
        ValueError: says in a few words what is missing.
    """
    check_files(folder, root)
    names = {path.name for path in folder.iterdir()}
    if "tokenizer.json" not in names and not {"vocab.json", "merges.txt"} <= names:
        raise ValueError("it has neither tokenizer.json nor vocab.json with merges.txt; fetch the missing file")
    for name in names & {"tokenizer_config.json", "tokenizer.json", "vocab.json"}:
        read_config(folder / name)
