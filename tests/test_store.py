"""Run folders and caches: whole or absent, found again by content, never trusted when they do not check."""

import fcntl
import json
import sys
from functools import partial
from types import ModuleType

import pytest
import torch
from closed_forms import tiny_unet

from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.samplers import sample
from distill_lib.diffusion.schedules import add_noise
from distill_lib.engine import reach, store
from distill_lib.engine.files import atomic, load_tensors, locked, save_tensors
from distill_lib.engine.store import Run, cached, content_key
from distill_lib.guided.halving import halve_steps
from distill_lib.measure import draw
from distill_lib.measure.draw import samples_of
from distill_lib.networks.adapter import Network, Trained


def top():
    """Stands for a function of `distill_lib.top` in the library that the fixture writes."""


def apart():
    """Stands for a function of `distill_lib.e` there."""


top.__module__, apart.__module__ = "distill_lib.top", "distill_lib.e"


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library of five modules: top imports a package's b and, inside a function, c; b imports d; e stands apart."""
    files = {
        "distill_lib/__init__.py": "",
        "distill_lib/top.py": "import torch\nfrom distill_lib.part import b\n\ndef f():\n    import distill_lib.c\n",
        "distill_lib/part/__init__.py": "",
        "distill_lib/part/b.py": "from distill_lib.d import name\n",
        "distill_lib/c.py": "",
        "distill_lib/d.py": "name = 1\n",
        "distill_lib/e.py": "",
        "distill_library/other.py": "",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(reach, "ROOT", tmp_path)
    reach.code_files.cache_clear()
    yield tmp_path / "distill_lib"
    reach.code_files.cache_clear()


# ------------------------------------------------------------------------------------------------ keys


def test_code_files_follow_imports_of_imports_and_nothing_else(library):
    result = {path.relative_to(library).as_posix() for path in reach.code_files("distill_lib.top")}
    assert {"top.py", "part/b.py", "c.py", "d.py"} <= result
    assert "e.py" not in result and all(path.endswith(".py") for path in result)


def test_the_real_library_is_reached_as_far_as_it_goes():
    result = {path.name for path in reach.code_files("distill_lib.guided.halving")}
    assert {"halving.py", "samplers.py", "noise.py", "loop.py"} <= result
    assert "metrics.py" not in result


@pytest.mark.parametrize("file, stale", [("top.py", True), ("part/b.py", True), ("d.py", True), ("e.py", False)])
def test_a_key_changes_with_the_files_it_reaches(library, file, stale):
    before = content_key({"a": 1}, top)
    (library / file).write_text((library / file).read_text() + "# edited\n")
    assert (content_key({"a": 1}, top) != before) == stale


def test_a_key_changes_with_the_code_of_what_its_configuration_names(library, monkeypatch):
    monkeypatch.setitem(sys.modules, "distill_lib.e", ModuleType("distill_lib.e"))
    config = {"loss": [partial(apart, 1)]}
    before = content_key(config, top)
    assert content_key(config, top) == before
    (library / "e.py").write_text("# edited\n")
    assert content_key(config, top) != before


def test_a_key_changes_with_the_configuration_and_not_with_its_order():
    assert content_key({"a": 1, "b": [2]}, normal) == content_key({"b": [2], "a": 1}, normal)
    assert content_key({"a": 1}, normal) != content_key({"a": 2}, normal)
    assert content_key({"a": 1}, normal) != content_key({"a": 1}, add_noise)
    assert len(content_key({}, normal)) == 12


FORMS = {
    "import distill_lib.e as other": True,
    "import distill_lib.e": True,
    "from distill_lib import e": True,
    "from distill_lib import e as other": True,
    "from distill_lib.e import name": True,
    "def f():\n    from distill_lib import e": True,
    "import distill_library.other": False,
}


@pytest.mark.parametrize("text, seen", FORMS.items())
def test_every_form_of_import_is_seen(library, text, seen):
    (library / "d.py").write_text(text + "\n")
    assert ("e.py" in {path.name for path in reach.code_files("distill_lib.top")}) == seen


@pytest.mark.parametrize("text", ["from . import e", "from .e import name", "from .. import e"])
def test_a_relative_import_is_refused(library, text):
    (library / "d.py").write_text(text + "\n")
    with pytest.raises(ValueError, match="write it in full") as error:
        reach.code_files("distill_lib.top")
    assert one_sentence(error)


def test_an_unknown_module_is_refused(library):
    with pytest.raises(ValueError, match=r"module='distill_lib\.tip' has no file") as error:
        reach.code_files("distill_lib.tip")
    assert one_sentence(error)
    (library / "d.py").write_text("from distill_lib.gone import name\n")  # a rename that missed one
    with pytest.raises(ValueError, match=r"'distill_lib\.gone'"):
        content_key({}, top)


def test_a_maker_is_known_by_the_module_that_it_is_written_in():
    assert reach.module_of(halve_steps) == "distill_lib.guided.halving"
    assert reach.module_of(Trained) == "distill_lib.networks.adapter"
    assert reach.module_of(partial(partial(halve_steps, run=None), halving=None)) == "distill_lib.guided.halving"
    assert reach.module_of(sample) == "distill_lib.diffusion.samplers"  # behind torch.no_grad
    assert reach.module_of(partial(sample, n_steps=2)) == "distill_lib.diffusion.samplers"


def written_here():
    """A function outside the library."""


def in_a_notebook():
    """A function of a notebook."""


in_a_notebook.__module__ = "__main__"
unnamed = lambda: None  # noqa: E731
unnamed.__module__ = "distill_lib.diffusion.noise"
REFUSED = {
    "string": ("distill_lib.diffusion.noise", "no function or class"),
    "nothing": (None, "no function or class"),
    "lambda": (unnamed, "lambda of distill_lib.diffusion.noise"),
    "partial of a lambda": (partial(unnamed), "lambda"),
    "test": (written_here, "written in .*test_store"),
    "notebook": (in_a_notebook, "written in __main__"),
    "torch": (torch.stack, "pass a function of distill_lib|no function or class"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_maker_whose_code_no_key_would_hold_is_refused(runs, name):
    maker, match = REFUSED[name]
    for call in (lambda: Run("kind", {}, maker), lambda: cached("kind", {}, dict, maker)):
        with pytest.raises(ValueError, match=match) as error:
            call()
        assert one_sentence(error)


def test_a_key_without_a_maker_is_refused():
    with pytest.raises(ValueError, match="without a maker"):
        content_key({"a": 1})


# ------------------------------------------------------------------------------------------------ files


def test_an_atomic_file_appears_whole_when_its_block_ends(tmp_path):
    path = tmp_path / "new" / "file"
    with atomic(path) as part:
        part.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_an_exception_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="interrupted"), atomic(path) as part:
        part.write_text("new, but ")
        raise RuntimeError("interrupted")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def blocked(tmp_path):
    """A folder that cannot be made, even by root: its parent is a file."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "runs"


def one_sentence(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_folder_that_cannot_be_written_to_ends_in_a_sentence(blocked):
    with pytest.raises(ValueError, match=rf"cannot write .*{blocked}.*another") as error, atomic(blocked / "x"):
        pass
    assert one_sentence(error)


def test_a_run_whose_folder_cannot_be_written_to_ends_in_a_sentence(blocked, monkeypatch):
    monkeypatch.setattr(store, "RUNS", blocked)
    with pytest.raises(ValueError, match="cannot write") as error:
        Run("kind", {}, normal).start()
    assert one_sentence(error)


def test_a_cache_whose_folder_cannot_be_written_to_ends_in_a_sentence(blocked, monkeypatch):
    monkeypatch.setattr(store, "RUNS", blocked)
    with pytest.raises(ValueError, match="cannot write") as error:
        cached("kind", {}, dict, normal)
    assert one_sentence(error)


def is_locked(path):
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_lock_keeps_others_out_until_its_block_ends(tmp_path):
    path = tmp_path / "new" / "lock"
    with locked(path):
        assert is_locked(path)
    assert not is_locked(path)
    with pytest.raises(RuntimeError), locked(path):
        raise RuntimeError
    assert not is_locked(path)


def test_tensors_come_back_as_they_were(tmp_path):
    tensors = {
        "a": torch.randn(3, 4).T,  # not contiguous
        "b": torch.arange(5, dtype=torch.uint8),
        "c": torch.randn(2, requires_grad=True),
        "half": torch.randn(3).half(),
    }
    checksum = save_tensors(tmp_path / "x.safetensors", tensors)
    loaded = load_tensors(tmp_path / "x.safetensors", checksum)
    assert loaded.keys() == tensors.keys()
    assert all(
        torch.equal(loaded[name], tensors[name]) and loaded[name].dtype == tensors[name].dtype for name in loaded
    )


@pytest.mark.parametrize("case", ["truncated", "one bit", "another file", "missing"])
def test_a_file_that_does_not_check_ends_in_a_sentence(case, tmp_path):
    path = tmp_path / "x.safetensors"
    checksum = save_tensors(path, {"a": torch.zeros(100)})
    data = bytearray(path.read_bytes())
    if case == "truncated":
        path.write_bytes(data[:150])
    elif case == "one bit":
        data[-1] ^= 1
        path.write_bytes(data)
    elif case == "another file":
        save_tensors(path, {"a": torch.ones(100)})
    else:
        path.unlink()
    with pytest.raises(ValueError, match=rf"{path} cannot be used.*delete the folder .* and run again") as error:
        load_tensors(path, checksum)
    assert one_sentence(error)


def test_nothing_is_unpickled(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="cannot be used"):
        load_tensors(tmp_path / "x.safetensors")


# ------------------------------------------------------------------------------------------------ runs


def test_the_same_settings_find_the_same_folder_and_others_another(runs):
    assert Run("kind", {"lr": 1}, normal).folder == Run("kind", {"lr": 1}, normal).folder
    assert Run("kind", {"lr": 1}, normal).folder != Run("kind", {"lr": 2}, normal).folder
    assert Run("kind", {"lr": 1}, normal).folder.parent == runs


def test_a_run_is_done_only_with_its_mark(runs):
    run = Run("kind", {"lr": 1}, normal)
    assert not run.done and run.state() is None and run.progress() == []
    run.start()
    assert json.loads((run.folder / "config.json").read_text()) == {"lr": 1, "precision": store.wanted_precision()}
    run.save_state({"a": torch.ones(2)})
    assert not run.done and torch.equal(run.state()["a"], torch.ones(2))
    run.finish({"a": torch.full((2,), 7.0)})
    assert run.done and run.state() is None
    assert torch.equal(run.weights()["a"], torch.full((2,), 7.0))


def test_the_mark_of_a_run_tells_its_weights_from_any_others(runs):
    run = Run("kind", {}, normal)
    run.finish({"a": torch.zeros(9)})
    save_tensors(run.folder / "weights.safetensors", {"a": torch.ones(9)})  # a sound file, but not the one
    with pytest.raises(ValueError, match="checksum"):
        run.weights()


def test_a_kill_between_weights_and_mark_leaves_the_run_unfinished_and_resumable(runs, monkeypatch):
    run = Run("kind", {}, normal)
    run.save_state({"a": torch.ones(2)})
    whole = atomic

    def killed(path):
        if path.name == "done":
            raise KeyboardInterrupt
        return whole(path)

    monkeypatch.setattr(store, "atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        run.finish({"a": torch.zeros(2)})
    assert not run.done and run.state() is not None


def test_a_step_logged_twice_counts_once_the_last_time(runs):
    run = Run("kind", {}, normal)
    run.start()
    for step, loss in ((1, 0.5), (2, 0.4), (2, 0.3), (3, 0.2)):
        run.log({"step": step, "loss": loss})
    assert [(r["step"], r["loss"]) for r in run.progress()] == [(1, 0.5), (2, 0.3), (3, 0.2)]


# ------------------------------------------------------------------------------------------------ caches


def test_a_cache_is_made_once_for_a_configuration_and_its_code(runs, library):
    made = []

    def make():
        made.append(1)
        return {"a": torch.full((2,), float(len(made)))}

    for _ in range(3):
        assert cached("kind", {"n": 1}, make, top)["a"].tolist() == [1, 1]
    assert cached("kind", {"n": 2}, make, top)["a"].tolist() == [2, 2]
    (library / "d.py").write_text("name = 2\n")
    assert cached("kind", {"n": 1}, make, top)["a"].tolist() == [3, 3]


def test_cached_samples_go_stale_with_all_code_that_makes_them(monkeypatch):
    calls = []
    monkeypatch.setattr(
        draw, "cached", lambda kind, spec, make, maker: calls.append(maker) or {"image": torch.zeros(1)}
    )
    samples_of(Network(tiny_unet()), 4, 1.0, 8)
    reached = {path.name for path in reach.code_files(reach.module_of(calls[0]))}
    # the solver, the schedule, the noise of z_T, the formula of guidance and the adapter that calls the network
    assert {"samplers.py", "schedules.py", "noise.py", "guidance.py", "adapter.py"} <= reached


def test_a_cache_that_failed_is_made_again(runs):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cached("kind", {}, fail, normal)
    assert cached("kind", {}, lambda: {"a": torch.ones(1)}, normal)["a"].item() == 1
