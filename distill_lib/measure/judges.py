"""What judges the pictures of other people's teachers: Inception and a CLIP, found or fetched before anything is drawn.

Inception's weights are a PyTorch file, which torch-fidelity would unpickle whatever it holds; here its checksum is
compared and nothing but tensors is read. Both networks come over the network once, or from a folder of one's own, which
DISTILL_JUDGES names.
"""

import hashlib
import io
import os
from pathlib import Path
from unittest.mock import patch
from urllib.request import urlopen

import torch
from huggingface_hub import constants
from torch_fidelity import feature_extractor_inceptionv3 as inceptionv3

from distill_lib.engine.files import atomic
from distill_lib.engine.precision import default_device
from distill_lib.measure.metrics import Reader
from distill_lib.measure.prompts import Judges, clip_of
from distill_lib.networks.doors import one_line

JUDGES = "DISTILL_JUDGES"
"""The variable that names a folder with both networks."""
INCEPTION = inceptionv3.URL_INCEPTION_V3.rsplit("/", 1)[1]
"""The file of Inception's weights, as torch-fidelity names it."""
_SHA = "6726825d"  # the start of its checksum, which its name holds
_CLIP = "openai/clip-vit-base-patch32"
_LAYERS = ["2048", "logits_unbiased"]
_SECONDS = 30  # without a byte


def inception(path: Path) -> inceptionv3.FeatureExtractorInceptionV3:
    """The Inception network of the papers from torch-fidelity's file, on the device where networks live.

    Raises:
        ValueError: the file is missing, or is another one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(_SHA):
        raise ValueError(f"{path} is not torch-fidelity's: its sha256 begins with {digest[:8]} where {_SHA} is due")
    try:
        weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        with patch.object(inceptionv3, "load_state_dict_from_url", lambda *_, **__: weights):
            return inceptionv3.FeatureExtractorInceptionV3("inception-v3-compat", _LAYERS).to(default_device())
    except Exception as error:
        raise ValueError(f"{path} holds no weights of Inception: {one_line(error)}") from error


def _fetched() -> Path:
    """Inception's file in the cache of torch.hub, fetched if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION
    if not path.exists():
        if constants.HF_HUB_OFFLINE:
            raise ValueError(f"{path} is missing, and HF_HUB_OFFLINE is set")
        with urlopen(inceptionv3.URL_INCEPTION_V3, timeout=_SECONDS) as reply, atomic(path) as part:
            part.write_bytes(reply.read())
    return path


def foreign_judges(judges_from: str = "") -> Judges:
    """What measures other people's pictures: the Inception network, and a CLIP.

    Args:
        judges_from: a folder with Inception's file and `clip/`; without it that of DISTILL_JUDGES, and without either
            the caches of torch.hub and of the hub, to which they are fetched.

    Raises:
        ValueError: one of them is not to be had; says what is due where.
    """
    named = judges_from or os.environ.get(JUDGES, "")
    folder, networks, lacking = Path(named).expanduser(), [], []
    hub = f"{inceptionv3.URL_INCEPTION_V3} at {Path(torch.hub.get_dir()) / 'checkpoints'}"
    for name, get in {
        f"Inception ({folder / INCEPTION if named else hub})": lambda: inception(
            folder / INCEPTION if named else _fetched()
        ),
        f"CLIP ({folder / 'clip' if named else f'{_CLIP} of the hub at {constants.HF_HUB_CACHE}'})": lambda: clip_of(
            folder / "clip" if named else _CLIP
        ),
    }.items():
        try:
            networks.append(get())
        except Exception as error:
            lacking.append(f"{name}: {one_line(error)}")
    if lacking:
        raise ValueError(
            f"a teacher of your own is judged by networks that are not to be had: {'; and '.join(lacking)}. Fetch them "
            f"where there is a network, or set judges= or {JUDGES} to a folder with {INCEPTION} and clip/ (config.json"
            ", model.safetensors, preprocessor_config.json and the tokenizer's files)"
        )
    return Judges(Reader(networks[0]), networks[1])
