"""Broken folders: whatever is done to a good one, it opens or one line says why not; nothing hangs, nothing changes."""

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from test_lora import drawn, in_file, written
from tiny_pipelines import tiny_pipeline

from distill_lib.experiments.foreign import prompts_of
from distill_lib.networks.controlnet import build_control, load_control
from distill_lib.networks.lora import merged
from distill_lib.networks.lora_files import load_lora
from distill_lib.networks.pipeline import open_pipeline

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
SECONDS = 60  # an example takes a tenth of one
FUZZ = settings(
    max_examples=EXAMPLES,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ODD = st.one_of(
    st.sampled_from([0, 1, 2, 3, 5, -1, 16, 10**5, 10**9, 0.5, -0.5, 1e30, float("nan"), None, True, "", "x", [], {}]),
    st.integers(-40, 40),
    st.lists(st.integers(1, 32), max_size=3),
    st.text(max_size=5),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A pipeline, a LoRA of its U-Net, a ControlNet."""
    folder = tmp_path_factory.mktemp("whole")
    tiny_pipeline("epsilon").save_pretrained(folder / "pipe", safe_serialization=True)
    model = open_pipeline(folder / "pipe", bf16=False)
    (folder / "lora").mkdir()
    written(folder / "lora", in_file(drawn(model.network, 2)), r=2, lora_alpha=4)
    build_control(model.network.module, 2).save_pretrained(folder / "control", safe_serialization=True)
    return folder, model


def places(value, at=()):
    """The paths of all values in a JSON document."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*at, key))


def is_json(path):
    """Whether a file is still one whose values can be changed."""
    try:
        return path.suffix == ".json" and isinstance(json.loads(path.read_text()), dict)
    except (ValueError, RecursionError):
        return False


def change(data, path):
    """Do something to one file or folder."""
    damage = ["remove", "cut", "bytes", "rename", "empty"]
    damage += ["value", "value", "value", "drop", "garbage"] if is_json(path) else ["header"]
    once = path.is_dir() or not path.stat().st_size
    damage = data.draw(st.sampled_from(["remove", "rename", "empty"] if once else damage))
    note(f"{damage} {path}")
    if path.is_dir():
        shutil.rmtree(path)
        if damage == "empty":
            path.mkdir()
    elif damage == "remove":
        path.unlink()
    elif damage == "rename":
        path.rename(path.with_name(data.draw(st.sampled_from(["x.json", "x.safetensors", "model.bin", "x"]))))
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: int(data.draw(st.floats(0, 0.999)) * path.stat().st_size)])
    elif damage == "bytes":
        raw, where = bytearray(path.read_bytes()), data.draw(st.integers(0, min(4000, path.stat().st_size - 1)))
        raw[where : where + 4] = data.draw(st.binary(min_size=1, max_size=4))
        path.write_bytes(raw)
    elif damage == "header":
        raw = path.read_bytes()
        path.write_bytes(data.draw(st.integers(0, 2**63)).to_bytes(8, "little") + raw[8:])
    elif damage == "garbage":
        path.write_text(data.draw(st.sampled_from(["{", "null", "[]", '"x"', "[" * 10**4, "{}", "\ufeff{}", "NaN"])))
    else:
        result = json.loads(path.read_text())
        at = data.draw(st.sampled_from([at for at in places(result) if at] or [("x",)]))
        inner = result
        for key in at[:-1]:
            inner = inner[key]
        if damage == "drop":
            inner.pop(at[-1], None) if isinstance(inner, dict) else inner.pop(at[-1])
        else:
            inner[at[-1]] = data.draw(ODD)
        note(f"{at} -> {None if damage == 'drop' else inner[at[-1]]!r}")
        path.write_text(json.dumps(result))


def prints(folder):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def opens_or_says_why(opening, folder):
    """That it opens, or ends in a ValueError of one line; that it ends; that it leaves all as it was."""

    def late(*_):
        raise AssertionError(f"no answer after {SECONDS} s")

    before, old = prints(folder), signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        opening()
    except ValueError as error:
        message = str(error)
        note(message)
        assert message and "\n" not in message and len(message) < 1000, message
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    assert prints(folder) == before


def broken(data, folder, scratch, times=1):
    """A copy of a folder with something done to it."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(folder, scratch)
    for _ in range(times):
        change(data, data.draw(st.sampled_from(sorted(scratch.rglob("*")))))
    return scratch


@FUZZ
@given(data=st.data())
def test_a_broken_pipeline_opens_or_says_why(whole, data):
    folder = broken(data, whole[0] / "pipe", whole[0] / "broken", data.draw(st.sampled_from([1, 1, 2])))
    opens_or_says_why(lambda: open_pipeline(folder), folder)


@FUZZ
@given(data=st.data())
def test_a_broken_lora_is_merged_or_says_why(whole, data):
    folder = broken(data, whole[0] / "lora", whole[0] / "broken")
    opens_or_says_why(lambda: merged(whole[1].network, (load_lora(folder), 1.0)), folder)


@FUZZ
@given(data=st.data())
def test_a_broken_controlnet_opens_or_says_why(whole, data):
    folder = broken(data, whole[0] / "control", whole[0] / "broken")
    opens_or_says_why(lambda: load_control(folder), folder)


@FUZZ
@given(raw=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)), measured=st.integers(0, 4))
def test_any_bytes_are_prompts_or_say_why(tmp_path_factory, raw, measured):
    folder = Path(tmp_path_factory.getbasetemp()) / "prompts"
    folder.mkdir(exist_ok=True)
    (folder / "prompts.txt").write_bytes(raw)

    def read():
        first, others = prompts_of(str(folder / "prompts.txt"), measured)
        assert len(first) == measured and others
        assert all(p == p.strip() and p and "\n" not in p and "\r" not in p for p in [*first, *others])

    opens_or_says_why(read, folder)
