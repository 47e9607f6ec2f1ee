"""`make figures` in peace, and killed in every way: it leaves the same to the bit. `make chaos` kills 200 times.

All tests share one notebook drawn in peace, and one that was killed on its way.
"""

import contextlib
import json
import os
import signal
import subprocess
import time

import psutil
import pytest
from chaos.campaign import KINDS, Campaign, _kill, _settled

from distill_lib.run.notebooks import artefacts_of

NOTEBOOK = "00_start_here"
(ARTEFACT,) = artefacts_of(NOTEBOOK)


def figures(campaign, place, *more):
    """Run `figures` to its end: status, stderr, and seconds."""
    start = time.monotonic()
    code, message = campaign.to_the_end(place, *campaign.figures(NOTEBOOK), *more)
    return code, message, time.monotonic() - start


def left_of(runs):
    """The processes that belong to a folder of runs."""
    seen = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("DISTILL_OWNER") == str(runs) and process.status() != psutil.STATUS_ZOMBIE:
                seen.append(process)
    return seen


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """A folder in which a notebook was drawn in peace, and shall stay as it is."""
    campaign = Campaign(tmp_path_factory.mktemp("campaign"), (NOTEBOOK,), seed=3)
    campaign.undisturbed()
    return campaign


def kill_in(campaign, stage, kind):
    """Kill a run in a training that has a state and the one before: its exit status, and the seconds until it ended."""
    running = campaign.start("chaos", *campaign.figures(NOTEBOOK))
    while not list((campaign.folder / "chaos" / "runs").glob(f"{stage}-*/state/previous.safetensors")):
        assert running.poll() is None, f"it ended before it could be killed: {running.stderr.read()}"
        time.sleep(0.02)  # leave the processor to what is to be killed
    start = time.monotonic()
    _kill(running, kind)
    running.communicate(timeout=60)
    campaign.counts[kind] += 1
    return running.returncode, time.monotonic() - start


@pytest.fixture(scope="module")
def killed(campaign):
    """The same after a kill of every kind, a flipped byte, a full disk and a second caller; then drawn to its end."""
    kill_in(campaign, "toy-stage-one", "whole tree")
    campaign.flip_a_byte()
    assert kill_in(campaign, "toy-16", "head alone")[0] == -signal.SIGKILL
    for orphan in left_of(campaign.folder / "chaos" / "runs"):
        with contextlib.suppress(psutil.Error):
            orphan.suspend()  # or it trains on while the next head begins, and leaves that nothing to be killed in
    campaign.ended = *kill_in(campaign, "toy-8", "SIGTERM"), left_of(campaign.folder / "chaos" / "runs")
    campaign.fill_the_disk(NOTEBOOK)
    campaign.two_at_once(NOTEBOOK)
    campaign.kill_publish()
    assert not list((campaign.folder / "chaos" / "runs").glob("toy-1-*/done"))
    campaign.compare(NOTEBOOK)
    return campaign


@pytest.mark.notebook
def test_kills_of_every_kind_lose_nothing_and_change_nothing(killed):
    assert killed.lost == [] and killed.different == [] and killed.complaints == []
    assert len(killed.weights[NOTEBOOK]) == 6
    once = {*KINDS, "flipped bytes", "full disks", "two at once", "publish", "drawn to the end"}
    assert once <= set(killed.counts)


@pytest.mark.notebook
def test_a_head_that_is_told_to_end_does_so_within_seconds_and_leaves_no_process(killed):
    code, seconds, left = killed.ended
    assert code == 128 + signal.SIGTERM and left == []
    assert seconds < 5 * (1 + os.getloadavg()[0])  # 5 s on an idle machine is the promise


@pytest.mark.notebook
def test_figures_are_drawn_once(campaign):
    drawn = campaign.folder / "peace" / "figures" / "smoke"
    record = json.loads((drawn / f"{ARTEFACT}.json").read_text())
    assert record["paper"] == "guided" and record["profile"] == "smoke" and record["rows"]
    assert (drawn / "claims.json").exists()
    before = (drawn / f"{ARTEFACT}.json").stat().st_mtime_ns
    code, message, seconds = figures(campaign, "peace")
    assert code == 0 and (drawn / f"{ARTEFACT}.json").stat().st_mtime_ns == before, message
    assert seconds < 10 * (1 + os.getloadavg()[0])  # 10 s on an idle machine is the promise


@pytest.mark.notebook
def test_another_seed_adds_its_rows_and_is_drawn_once(killed):
    result = killed.folder / "chaos" / "figures" / "smoke" / f"{ARTEFACT}.json"
    assert figures(killed, "chaos", "--seed", "1")[0] == 0
    before = result.stat().st_mtime_ns
    assert {row["seed"] for row in json.loads(result.read_text())["rows"]} == {0, 1}
    assert figures(killed, "chaos", "--seed", "1")[0] == 0 and result.stat().st_mtime_ns == before


@pytest.mark.notebook
def test_a_sentence_of_a_notebook_reaches_the_user_alone(campaign):
    wanted = ("figures", "--profile", "smoke", "--id", "g-tab1", "--set", "ws=[9.0]")
    command, environment = campaign.command("refused", *wanted)
    done = subprocess.run(
        command, cwd=campaign.checkout, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: 03_step_halving: w=9.0 lies outside [0, 4.0]")
    log = line.rpartition("(log: ")[2].removesuffix(")")
    assert "check_strengths" in open(log).read()
    assert "Kernel is running over TCP" not in done.stdout


def test_what_is_timed_is_not_compared():
    rows = [{"metric": "seconds", "value": 1.0}, {"metric": "fid", "value": 2.0}]
    assert _settled(rows) == rows[1:]


def test_a_campaign_sees_what_is_lost_and_what_is_different(tmp_path):
    campaign = Campaign(tmp_path, (NOTEBOOK,))
    campaign._note("a", held=False, same=False)
    campaign._note("b", held=True, same=False)
    campaign._note("c", held=True, same=True)
    assert (campaign.lost, campaign.different) == (["a"], ["b"])
