"""Systems at their true sizes have the counts of the paper, and a part is timed without the others."""

import pytest
import torch
from torch import nn

from distill_lib.true_scale import SYSTEMS, Part, counted, measured

# Tables 1 and 2 of SDXS: billions of weights to two digits; decoders in millions
PAPER = {
    "SD 2.1 base": {"text encoder": 0.33e9, "U-Net": 0.87e9, "decoder": 50e6},
    "SDXS-512": {"text encoder": 0.33e9, "U-Net": 0.32e9, "decoder": 1.2e6},
    "SDXL": {"text encoder": 0.80e9, "U-Net": 2.56e9, "decoder": 50e6},
    "SDXS-1024": {"text encoder": 0.80e9, "U-Net": 0.74e9, "decoder": 1.2e6},
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_module_has_the_size_that_the_paper_prints(system):
    for name, part in SYSTEMS[system].items():
        with torch.device("meta"):
            size = sum(p.numel() for p in part.build().parameters())
        assert size == pytest.approx(PAPER[system][name], rel=0.035), name  # the paper's two digits


def test_evaluations_are_those_of_the_paper():
    for system, text, unet in (("SD 2.1 base", 2, 32), ("SDXS-512", 1, 1), ("SDXL", 2, 32), ("SDXS-1024", 1, 1)):
        parts = SYSTEMS[system]
        assert [parts[name].nfe for name in ("text encoder", "U-Net", "decoder")] == [text, unet, 1]


def test_operations_of_a_known_layer_are_counted():
    part = Part(
        lambda: nn.Conv2d(2, 3, 3, padding=1, bias=False),
        lambda device, dtype: ((torch.zeros(1, 2, 8, 8, device=device, dtype=dtype),), {}),
        1,
    )
    assert counted(part) == {"params": 54, "flops": 2 * 54 * 64}
    assert 0 < measured(part, torch.device("cpu"), repeats=1) < 60


def test_one_step_of_the_small_system_takes_a_fraction_of_the_operations():
    flops = {
        system: sum(counted(part)["flops"] * part.nfe for part in SYSTEMS[system].values())
        for system in ("SD 2.1 base", "SDXS-512")
    }
    assert flops["SD 2.1 base"] / flops["SDXS-512"] == pytest.approx(54, abs=6)
