"""The files a fresh clone starts from agree with each other, and with what is installed."""

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BY_TORCH = re.compile(r"(nvidia|cuda)-|triton$")  # pinned by torch itself, and only where there are CUDA builds


def pins(lines: list[str]) -> dict[str, str]:
    """{canonical name: version} of exact requirements; a marker may choose, so the last that applies here counts."""
    requirements = [Requirement(line) for line in lines]
    for requirement in requirements:
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), f"not an exact pin: {requirement}"
    return {
        canonicalize_name(r.name): str(r.specifier)[2:]
        for r in sorted(requirements, key=lambda r: r.marker is None or r.marker.evaluate())
    }


DIRECT = pins(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
LOCK_LINES = [x for x in (ROOT / "requirements.lock").read_text().splitlines() if not x.startswith("#")]
LOCK = pins(LOCK_LINES)


def git(*arguments: str) -> list[str]:
    """Lines that a git command prints."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode <= 1, result.stderr  # 1 is grep without a match
    return result.stdout.splitlines()


def files() -> list[Path]:
    """Files that are tracked, or would be by `git add .`."""
    listed = (ROOT / x for x in git("-c", "core.quotePath=off", "ls-files", "-co", "--exclude-standard"))
    return [x for x in listed if x.is_file()]


def make_calls(markdown: str) -> Iterator[str]:
    """Targets of the `make X` commands in code spans and code blocks."""
    for code in re.findall(r"```.*?```|`[^`\n]+`", markdown, re.DOTALL):
        for words in re.findall(r"\bmake((?:[ ]+[^\s`;&|#]+)+)", re.sub(r"(?<!\S)#.*", "", code)):
            yield from re.findall(r"(?<= )[a-z][a-z-]*(?= |$)", words)


def test_lock_has_the_direct_dependencies_at_the_same_versions():
    assert {name: LOCK.get(name) for name in DIRECT} == DIRECT


def test_the_lock_of_the_site_has_its_extra_and_repeats_nothing():
    lines = [x for x in (ROOT / "requirements-site.lock").read_text().splitlines() if not x.startswith("#")]
    extra, lock = pins(PROJECT["optional-dependencies"]["site"]), pins(lines)
    assert {name: (lock | LOCK).get(name) for name in extra} == extra
    names = [canonicalize_name(Requirement(line).name) for line in lines]
    assert names == sorted(names)
    assert not lock.keys() & LOCK.keys()


def test_environment_yml_has_the_direct_dependencies_at_the_same_versions():
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert pins(pip["pip"]) == DIRECT
    (python,) = (x.partition("=")[2] for x in conda if x.startswith("python="))
    assert python in SpecifierSet(PROJECT["requires-python"])


def test_lock_has_the_version_of_setuptools_that_builds_us():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert pins(build) == {"setuptools": LOCK["setuptools"]}


def test_lock_is_sorted_and_leaves_the_packages_of_cuda_to_torch():
    names = [canonicalize_name(Requirement(line).name) for line in LOCK_LINES]
    assert names == sorted(names)
    assert [name for name in names if BY_TORCH.match(name)] == []


def test_lock_is_closed():
    """Whatever its packages ask for on this machine is in the lock too, at a version that they accept."""
    todo, seen = [(name, "") for name in DIRECT], set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen or BY_TORCH.match(name):
            continue
        seen.add((name, extra))
        assert name in LOCK, f"{name} is needed, but not in requirements.lock: make lock"
        for wanted in map(Requirement, requires(name) or []):
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                child = canonicalize_name(wanted.name)
                assert BY_TORCH.match(child) or wanted.specifier.contains(LOCK.get(child, "0"), prereleases=True), (
                    f"{name} wants {wanted}, requirements.lock has {LOCK.get(child)}"
                )
                todo += [(child, e) for e in ("", *wanted.extras)]


@pytest.mark.parametrize(("python", "allowed"), [("3.10", False), ("3.11", True), ("3.13", True), ("3.14", False)])
def test_python_range(python, allowed):
    assert (python in SpecifierSet(PROJECT["requires-python"])) is allowed


def test_every_data_file_of_the_library_is_packaged():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    library = ROOT / "distill_lib"
    packaged = {path for pattern in table["distill_lib"] for path in library.glob(pattern)}
    assert {x for x in files() if x.is_relative_to(library) and x.suffix != ".py"} <= packaged


def test_make_calls_reads_commands_only():
    text = "you make it `make a` or\n```\nmake b-c X=1 -j2  # to make d\nmake e && make\n```\n`make figures [ID=g]`"
    assert list(make_calls(text)) == ["a", "b-c", "e", "figures"]


@pytest.mark.parametrize("page", ["README.md", "README.zh.md", "CONTRIBUTING.md", "docs/run.md"])
def test_every_make_command_of_a_page_exists(page):
    assert (ROOT / page).exists(), f"{page} is missing"
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(make_calls((ROOT / page).read_text()))
    assert "test" in named
    assert named <= targets


def test_make_works_in_a_path_with_a_space(tmp_path):
    folder = tmp_path / "a folder"
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')  # says what it was asked
    python.chmod(0o755)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())

    def make(*arguments: str) -> list[str]:
        clean = {"PATH": os.environ["PATH"]}  # no PROFILE, ID, or flags of the make that runs this test
        return subprocess.check_output(["make", *arguments], cwd=folder, env=clean, text=True).splitlines()

    plan = make("-n", "figures")
    assert plan.index("touch .venv/.installed") == len(plan) - 2  # just before the command itself
    assert not any(str(folder) in line for line in plan)

    (folder / ".venv" / ".installed").touch()
    command = ["-m", "distill_lib.run", "figures", "--profile"]
    assert make("figures") == [*command, "quick"]
    all_set = make("figures", "PROFILE=laptop", "ID=g tab", "SEED=1")
    assert all_set == [*command, "laptop", "--id", "g tab", "--seed", "1"]


def test_files_are_small():
    assert [str(x) for x in files() if x.stat().st_size >= 8 * 2**20] == []


def test_no_file_names_a_path_of_one_machine():
    pattern = r"(^|[^[:alnum:]_./])/(home|Users|root|work|private|tmp)/[[:alnum:]_]|file:///[[:alnum:]]"
    assert git("grep", "--untracked", "-nIoE", pattern) == []
