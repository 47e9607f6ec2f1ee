"""A tiny decoder for an autoencoder that somebody brings: what it learns on, and what is refused."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image

from distill_lib.engine.loop import TrainSettings
from distill_lib.shipped import make_decoder as making
from distill_lib.shipped.make_decoder import latents_and_pictures, make_decoder, open_vae, pictures_in

SHORT = TrainSettings(steps=2, batch_size=4, lr=1e-3, warmup=1)


@pytest.fixture
def vae(tmp_path):
    levels = 3
    net = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * levels, norm_num_groups=4, latent_channels=16, scaling_factor=0.4, shift_factor=0.1,
    )  # fmt: skip
    net.save_pretrained(tmp_path / "autoencoder", safe_serialization=True)
    return tmp_path / "autoencoder"


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures" / "deeper").mkdir(parents=True)
    for number in range(10):
        name = f"deeper/{number}.png" if number % 2 else f"{number}.jpg"
        Image.new("RGB", (40 + number, 30), (20 * number, 100, 50)).save(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def test_latents_are_as_a_network_knows_them_and_pictures_the_large_decoders(vae, pictures):
    net, image = open_vae(vae), pictures_in(pictures, 16)
    assert image.shape == (10, 3, 16, 16) and image.dtype == torch.uint8
    z, x = latents_and_pictures(net, image)
    back = net.decode(z.float() / 0.4 + 0.1).sample  # as the pipelines of diffusers decode
    assert z.shape == (10, 16, 4, 4)
    assert ((back / 2 + 0.5).clamp(0, 1) * 255 - x).abs().max() < 2  # bytes of half-precision latents


def test_sixteen_bits_are_scaled_and_what_is_transparent_is_white(pictures):
    Image.fromarray(np.full((20, 20), 257 * 100, np.uint16)).save(pictures / "0.png")
    Image.new("RGBA", (20, 20), (200, 0, 0, 0)).save(pictures / "00.png")
    image = pictures_in(pictures, 16)
    assert image[1].unique().tolist() == [100] and image[2].unique().tolist() == [255]


def test_the_decoder_of_a_folder_opens_in_diffusers(vae, pictures, runs, monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(making, "SETTINGS", SHORT)
    folder = make_decoder(str(vae), str(pictures), 16, 2)
    opened = AutoencoderTiny.from_pretrained(folder)
    assert opened.config.latent_channels == 16
    assert opened.decode(torch.zeros(1, 16, 4, 4)).sample.shape == (1, 3, 16, 16)
    twin = tmp_path / "elsewhere" / vae.name  # another autoencoder in a folder of the same name
    other = AutoencoderKL.from_pretrained(vae)
    other.decoder.conv_out.bias.data += 0.5
    other.save_pretrained(twin)
    names = {place.name for place in (folder, make_decoder(str(twin), str(pictures), 16, 2))}
    assert len(names) == 2 and all(name.startswith(f"{vae.name}-") and name.endswith("-16-2") for name in names)


def test_bad_input_ends_in_a_sentence_before_anything_is_trained(vae, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "decoder_for", None)
    with pytest.raises(ValueError, match="side=18 should be a multiple of 4"):
        make_decoder(str(vae), str(pictures), 18)
    with pytest.raises(ValueError, match="a decoder needs pictures="):
        make_decoder(str(vae), "", 16)
    with pytest.raises(ValueError, match=r"holds 0 pictures \(PNG, JPEG, WebP\); 10 are due"):
        make_decoder(str(vae), str(vae), 16)
    (pictures / "broken.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"broken\.png is no readable picture"):
        make_decoder(str(vae), str(pictures), 16)
    with pytest.raises(ValueError, match=r"no usable AutoencoderKL in .*pictures.*name a folder that save_pretrained"):
        make_decoder(str(pictures), str(pictures), 16)
