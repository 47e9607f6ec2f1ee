"""Judges of other people's pictures: missing ones are named before anything runs, and a poisoned file runs nothing."""

import hashlib
import os
import pickle
from unittest.mock import patch
from urllib.error import URLError

import pytest
import torch
from tiny_pipelines import Poison

from distill_lib import profiles
from distill_lib.experiments.text_to_image import task
from distill_lib.measure import judges
from distill_lib.measure.judges import INCEPTION, JUDGES, foreign_judges, inception, inceptionv3
from distill_lib.measure.metrics import Reader


@pytest.fixture
def away(monkeypatch, tmp_path):
    """No network, and caches that hold nothing."""

    def nobody(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(judges, "urlopen", nobody)
    monkeypatch.setattr(judges.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(judges, "clip_of", lambda source: nobody())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.delenv(JUDGES, raising=False)


def test_without_a_network_files_places_and_the_way_out_are_named_first(away, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n".join(f"a cat with {i} tails" for i in range(100)))
    with pytest.raises(ValueError, match="a teacher of your own is judged by networks that are not to be had") as error:
        task(profiles.load("smoke"), 0, "somebody/model", str(tmp_path / "prompts.txt"))
    message = str(error.value)
    for part in (inceptionv3.URL_INCEPTION_V3, str(tmp_path / "torch"), "openai/clip-vit-base-patch32 of the hub at",
                 f"set judges= or DISTILL_JUDGES to a folder with {INCEPTION} and clip/", "no network"):  # fmt: skip
        assert part in message
    assert "\n" not in message and not (tmp_path / "torch" / "checkpoints" / INCEPTION).exists()


def test_a_folder_is_asked_where_one_is_named(away, tmp_path, monkeypatch):
    monkeypatch.setenv(JUDGES, str(tmp_path / "a"))
    with pytest.raises(ValueError, match=f"{tmp_path}/a/{INCEPTION} cannot be read: No such file.* and CLIP .*/a/clip"):
        foreign_judges()
    with pytest.raises(ValueError, match=f"{tmp_path}/b/{INCEPTION} cannot be read"):
        foreign_judges(str(tmp_path / "b"))


def test_a_poisoned_file_of_weights_is_never_unpickled(tmp_path, monkeypatch):
    path = tmp_path / INCEPTION
    path.write_bytes(pickle.dumps(Poison(tmp_path / "mark")))
    with pytest.raises(ValueError, match=r"its sha256 begins with .* where 6726825d is due"):
        inception(path)
    for write in (pickle.dump, torch.save):
        with path.open("wb") as file:
            write({"fc.weight": Poison(tmp_path / "mark")}, file)
        monkeypatch.setattr(judges, "_SHA", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
        with pytest.raises(ValueError, match="holds no weights of Inception"):
            inception(path)
    assert not os.path.exists(tmp_path / "mark")


def test_inception_is_torch_fidelitys_own_network_with_the_files_weights(tmp_path, monkeypatch):
    with (
        patch.object(inceptionv3, "load_state_dict_from_url"),
        patch.object(inceptionv3.FeatureExtractorInceptionV3, "load_state_dict"),
    ):
        weights = inceptionv3.FeatureExtractorInceptionV3("x", ["64"]).state_dict()
    torch.save(weights, tmp_path / INCEPTION)
    monkeypatch.setattr(judges, "_SHA", hashlib.sha256((tmp_path / INCEPTION).read_bytes()).hexdigest()[:8])
    net = inception(tmp_path / INCEPTION)
    assert all(torch.equal(value.cpu(), weights[name]) for name, value in net.state_dict().items())
    read = Reader(net).read(torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8))
    assert read["2048"].shape == (3, 2048) and read["logits_unbiased"].shape == (3, 1008)
