"""What is nobody's bug ends in one sentence with a log; a bug keeps its traceback; notebooks run in our own kernel."""

import errno
import json
import os

import nbformat
import pytest

from distill_lib.diffusion.schedules import OURS
from distill_lib.paths import ROOT
from distill_lib.run import executing, guard, notebooks

LEFT = "print('of', os.environ['DISTILL_OWNER'])"


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Folders of this test alone, and the environment as it was afterwards."""
    before = dict(os.environ)
    for name in ("RUNS", "FIGURES"):
        monkeypatch.setenv(f"DISTILL_{name}", str(tmp_path / name.lower()))
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


def raised(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.part"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "no permission"),
        (OSError(errno.EROFS, "Read-only file system"), "the disk is read-only"),
        (MemoryError(), "the memory does not suffice"),
        (ConnectionError("github.com"), "the network does not answer"),
        (guard.Failure("a sentence"), "a sentence"),
    ],
)
def test_what_is_nobodys_bug_ends_in_a_sentence_and_keeps_its_traceback_in_a_log(places, capsys, error, message):
    with pytest.raises(SystemExit) as ended:
        guard.guarded(raised(error), "figures")
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith("error: ") and message in line
    (log,) = (places / "runs" / "logs").glob("*-figures-*.log")
    assert str(log) in line and "Traceback" in log.read_text()


def test_a_sentence_of_the_library_is_one_and_a_value_error_from_elsewhere_is_a_bug(capsys):
    with pytest.raises(SystemExit):
        guard.guarded(lambda: OURS.check_steps(7) if hasattr(OURS, "check_steps") else notebooks.read("x"), "figures")
    assert "Traceback" not in capsys.readouterr().err
    for bug in (lambda: json.loads("{"), lambda: 1 / 0):
        with pytest.raises((ValueError, ZeroDivisionError)):
            guard.guarded(bug, "figures")


def test_a_log_finds_a_place_where_runs_cannot_be_written(places):
    (places / "runs").write_text("a file where the folder should be")
    log = guard.kept_log("figures", "why")
    assert log.read_text() == "why"
    log.unlink()


def notebook_of(places, monkeypatch, *sources):
    """A notebook `n` of the given cells, saved with the kernel of somebody's conda environment."""
    cells = [nbformat.v4.new_code_cell('profile = "smoke"\nseed = 0', metadata={"tags": ["parameters"]})]
    notebook = nbformat.v4.new_notebook(cells=cells + [nbformat.v4.new_code_cell(s) for s in sources])
    notebook.metadata.kernelspec = {"name": "conda-env-mine-py", "display_name": "mine", "language": "python"}
    (places / "notebooks").mkdir()
    nbformat.write(notebook, places / "notebooks" / "n.ipynb")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", places / "notebooks")
    monkeypatch.setattr(executing, "NOTEBOOKS", places / "notebooks")
    monkeypatch.setattr(executing, "digest", lambda *_: "code")
    notebooks.read.cache_clear()


@pytest.mark.notebook
def test_the_kernel_is_this_interpreter_and_no_network_reaches_it(places, monkeypatch, capfd):
    hosts = "{c.laddr.ip for c in psutil.Process().net_connections('inet')} <= {'127.0.0.1', '::1'}"
    notebook_of(places, monkeypatch, f"import os, psutil, sys\nprint(sys.executable, {hosts})", LEFT)
    executing.execute("n", places / "out" / "n.ipynb", {"profile": "smoke", "seed": 3})
    heard = capfd.readouterr()
    assert f"{os.sys.executable} True" in heard.out and f"of {places / 'runs'}" in heard.out
    assert "encryption" not in heard.out + heard.err
    assert (places / "out" / "n.ipynb").exists() and (places / "out" / ".n.json").exists()
    assert not [path for path in (places / "out").iterdir() if path.suffix == ".part"]


@pytest.mark.notebook
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "the kernel of n was ended from outside"),
        ("raise OSError(28, 'No space left on device')", "n: the disk is full"),
        ("from distill_lib.profiles import load\nload('quik')", "n: profile='quik' is unknown"),
        ("1 / 0", None),
        ("int('x')", None),
    ],
)
def test_a_failed_notebook_leaves_its_sentence_and_log_and_no_output(places, monkeypatch, source, message):
    notebook_of(places, monkeypatch, source)
    out = places / "out" / "n.ipynb"
    with pytest.raises(Exception) as error:
        executing.execute("n", out, {"profile": "smoke", "seed": 0})
    failure = json.loads(executing.failure_path(out).read_text())
    assert isinstance(error.value, guard.Failure) is (message is not None)
    assert failure["sentence"] is None if message is None else failure["sentence"].startswith(message)
    assert source.splitlines()[-1][:5] in open(failure["log"]).read() or message
    assert not out.exists()


RUNS_CODE = ("export.py", "renewing.py", "exercises.py", "together.py")
"""The first runs what it has written itself, the others the cells of this checkout's notebooks, as papermill does."""


def test_no_source_of_the_library_unpickles_or_trusts_code_from_elsewhere():
    banned = ("import pickle", "allow_pickle=True", "trust_remote_code=True", " eval(")
    for path in (ROOT / "distill_lib").rglob("*.py"):
        text = path.read_text()
        assert [word for word in banned if word in text] == [], path
        loads = [line for line in text.splitlines() if "torch.load(" in line]
        assert all("weights_only=True" in line for line in loads), path  # tensors alone
        assert "exec(" not in text or path.name in RUNS_CODE, path
