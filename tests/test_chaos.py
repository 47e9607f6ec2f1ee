"""Ten kills: what they leave equals an undisturbed run to the bit. `make chaos` does two hundred."""

import pytest
from chaos.campaign import Campaign, _settled


@pytest.mark.notebook
def test_ten_kills_lose_nothing_and_change_nothing(tmp_path):
    record = Campaign(tmp_path, ("00_start_here",), seed=3).run(10)
    assert record["kills"] == 10
    assert record["lost"] == [] and record["different"] == [] and record["complaints"] == []
    assert {
        "in a training",
        "flipped bytes",
        "head alone",
        "whole tree",
        "SIGTERM",
        "full disks",
        "two at once",
        "publish",
    } <= set(record["counts"])


def test_what_is_timed_is_not_compared():
    rows = [{"metric": "seconds", "value": 1.0}, {"metric": "fid", "value": 2.0}]
    assert _settled(rows) == rows[1:]


def test_a_campaign_sees_what_is_lost_and_what_is_different(tmp_path):
    campaign = Campaign(tmp_path, ("00_start_here",))
    campaign._note("a", there=False, same=False)
    campaign._note("b", there=True, same=False)
    campaign._note("c", there=True, same=True)
    assert (campaign.lost, campaign.different) == (["a"], ["b"])
