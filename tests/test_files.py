"""Files that a disk has spoiled, or has no room for: told by their checksums, and never in place of a good one."""

import errno
import os
import subprocess
import sys

import pytest
import torch

from distill_lib.diffusion.noise import normal
from distill_lib.engine import files
from distill_lib.engine.files import atomic, load_tensors, save_tensors
from distill_lib.engine.store import Run, cached


def flip(path, place=-3):
    """Turn one bit of a byte of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def states(*steps):
    run = Run("kind", {}, normal)
    run.start()
    for step in steps:
        run.save_state({"step": torch.tensor(step), "weight": torch.full((50,), float(step))})
    return run, run.folder / "state" / "state.safetensors", run.folder / "state" / "previous.safetensors"


# ------------------------------------------------------------------------------------------------ spoiled files


@pytest.mark.parametrize("place", [-3, 40, 100, 130])
def test_a_flipped_bit_in_numbers_or_in_the_header_is_told_by_the_file_itself(place, tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"weight": torch.arange(50.0), "zero": torch.tensor(0), "brain": torch.ones(3).bfloat16()})
    load_tensors(path, strict=True)
    flip(path, place)
    with pytest.raises(ValueError, match=rf"{path} cannot be used: .*; delete the folder {tmp_path} and run again"):
        load_tensors(path, strict=True)


def test_a_file_of_another_program_holds_no_checksum_and_is_read_unless_one_is_asked_for(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2)}, path)
    assert load_tensors(path)["a"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="checksum"):
        load_tensors(path, strict=True)


@pytest.mark.parametrize("spoil", [flip, cut])
def test_a_spoiled_state_falls_back_to_the_one_before_it_and_says_so(spoil, runs, capsys):
    run, state, previous = states(1, 2, 3)
    assert run.state()["step"] == 3
    spoil(state)
    assert run.state()["step"] == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{state} cannot be used: ") and line.endswith(
        f"; {run.key} goes on from previous.safetensors, the state before it"
    )
    run.save_state({"step": torch.tensor(4)})  # the spoiled one does not take the place of the good one
    assert run.state()["step"] == 4 and load_tensors(previous, strict=True)["step"] == 2


def test_a_kill_between_the_two_moves_of_a_state_leaves_the_one_before(runs):
    run, state, previous = states(1, 2)
    state.unlink()  # moved to `previous`, and the new one has not come yet
    assert run.state()["step"] == 1
    run.finish({"a": torch.ones(1)})
    assert run.state() is None and not state.exists() and not previous.exists()


def test_two_spoiled_states_end_in_a_sentence_that_names_their_folder(runs):
    run, state, previous = states(1, 2)
    flip(state)
    flip(previous)
    with pytest.raises(ValueError, match=rf"delete the folder {state.parent} and run again") as error:
        run.state()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spoil", [flip, cut])
def test_spoiled_weights_mark_and_snapshots_name_the_folder_of_the_run(spoil, runs):
    run = Run("kind", {}, normal)
    run.save_snapshot(5, {"a": torch.zeros(30)})
    run.finish({"a": torch.zeros(30)})
    for path, read in (
        (run.folder / "snapshots" / "5.safetensors", run.snapshots),
        (run.folder / "weights.safetensors", run.weights),
    ):
        spoil(path)
        with pytest.raises(ValueError, match=rf"{path} cannot be used: .*; delete the folder {run.folder} and run"):
            read()
    run.finish({"a": torch.zeros(30)})
    (run.folder / "done").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=f"delete the folder {run.folder} and run again"):
        run.weights()


def test_a_configuration_that_cannot_be_read_is_no_ground_to_go_on(runs):
    run, *_ = states(1)
    (run.folder / "config.json").write_bytes(b'{"precision": "bf\xb16"}')
    with pytest.raises(ValueError, match=rf"config.json cannot be used: .*delete the folder {run.folder} and run"):
        _ = run.precision


def test_a_line_of_progress_with_a_flipped_bit_is_left_out(runs):
    run = Run("kind", {}, normal)
    run.start()
    for step in (1, 2, 3):
        run.log({"step": step, "loss": 0.5})
    path = run.folder / "progress.jsonl"
    flip(path, path.read_bytes().index(b"0.5") + 2)  # another loss, and sound JSON
    assert run.progress() == [{"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.5}]
    path.write_bytes(path.read_bytes() + b"\xff\n[]\n7\n{}\n")
    assert len(run.progress()) == 2


@pytest.mark.parametrize("spoil", [flip, cut])
def test_a_spoiled_cache_is_computed_anew_and_says_so(spoil, runs, capsys):
    made = []
    make = lambda: made.append(1) or {"a": torch.ones(100)}  # noqa: E731
    cached("kind", {}, make, normal)
    (path,) = (runs / "cache").glob("*.safetensors")
    spoil(path)
    for _ in range(2):
        assert cached("kind", {}, make, normal)["a"].sum() == 100
    assert len(made) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path} cannot be used: ") and line.endswith("; it is computed anew")


# ------------------------------------------------------------------------------------------------ a full disk


@pytest.fixture
def full(monkeypatch):
    """A disk that is found to be full when a file is brought to it."""

    def fsync(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(files.os, "fsync", fsync)


def test_a_full_disk_leaves_state_and_cache_as_they_were_and_no_rest(runs, full):
    run, state, previous = states(1, 2)
    full()
    for path, write in (
        (state, lambda: run.save_state({"step": torch.tensor(3)})),
        (runs / "cache", lambda: cached("kind", {}, lambda: {"a": torch.ones(9)}, normal)),
    ):
        with pytest.raises(ValueError, match=rf"cannot write {path}.*: no space left.*; free some and run") as error:
            write()
        assert "\n" not in str(error.value)
    assert load_tensors(state, strict=True)["step"] == 2 and load_tensors(previous, strict=True)["step"] == 1
    assert not list(runs.rglob(".*")) and not list(runs.rglob("*/kind-*.safetensors"))


def test_what_safetensors_says_of_a_full_disk_is_understood(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def save(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(files, "save_file", save)
    with pytest.raises(ValueError, match=r"x.safetensors: no space left on its disk \(No space left on device\)"):
        save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(1)})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_under_the_progress_ends_in_a_sentence(runs):
    run = Run("kind", {}, normal)
    run.start()
    (run.folder / "progress.jsonl").symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"cannot write .*progress.jsonl: no space left"):
        run.log({"step": 1})


# ------------------------------------------------------------------------------------------------ what a kill leaves


def test_the_rest_of_a_killed_process_goes_with_the_next_write_and_that_of_a_living_one_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".file.{dead.pid}", f".file.{os.getppid()}", f".other.{dead.pid}", ".file.note"):
        (tmp_path / name).write_text("half")
    with atomic(tmp_path / "file") as part:
        part.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {
        "file", f".file.{os.getppid()}", f".other.{dead.pid}", ".file.note",
    }  # fmt: skip


def test_what_stood_there_before_can_be_kept(tmp_path):
    for text in ("one", "two", "three"):
        with atomic(tmp_path / "file", keep=tmp_path / "before") as part:
            part.write_text(text)
    assert (tmp_path / "file").read_text() == "three" and (tmp_path / "before").read_text() == "two"
