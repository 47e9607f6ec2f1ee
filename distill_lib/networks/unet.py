"""Building and loading diffusers' U-Net, and making a student of a teacher."""

from pathlib import Path
from typing import Any

from diffusers import ModelMixin, UNet2DConditionModel
from torch import nn

from distill_lib.networks.doors import open_part

W_FEATURES = 64  # width of the Fourier features of w


def build_unet(*, resolution: int, n_classes: int, channels: tuple[int, ...], layers: int = 1) -> UNet2DConditionModel:
    """A class-conditional pixel-space U-Net of convolutions; class `n_classes` stands for "no condition".

    diffusers asks for text tokens even where no block reads them: one zero token serves (see `Network`).
    """
    stages = len(channels)
    return UNet2DConditionModel(
        sample_size=resolution // 2,
        in_channels=12,
        out_channels=12,
        block_out_channels=channels,
        layers_per_block=layers,
        resnet_time_scale_shift="scale_shift",
        down_block_types=("DownBlock2D",) * stages,
        up_block_types=("UpBlock2D",) * stages,
        mid_block_type="UNetMidBlock2D",
        norm_num_groups=16,
        num_class_embeds=n_classes + 1,
        cross_attention_dim=8,
    )


def config_of(net: ModelMixin) -> dict[str, Any]:
    """The arguments that build a network of the same form.

    from_config would put back the defaults that diffusers lists under an underscore key.
    """
    return {key: value for key, value in net.config.items() if not key.startswith("_")}


def student_of(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy of a network that also takes w, and at first ignores it: the new layer `cond_proj` starts at zero.

    Meng et al. 2023, section 3.1: the student starts from the teacher's conditional network. A network that already
    takes w is copied as it is.
    """
    fresh = teacher.config.time_cond_proj_dim is None
    student = UNet2DConditionModel(**config_of(teacher) | {"time_cond_proj_dim": W_FEATURES})
    missing = student.load_state_dict(teacher.state_dict(), strict=False).missing_keys
    expected = ["time_embedding.cond_proj.weight"] if fresh else []
    if missing != expected:
        raise ValueError(f"the teacher lacks weights {missing}; expected to add only {expected}")
    if fresh:
        nn.init.zeros_(student.time_embedding.cond_proj.weight)
    return student.to(next(teacher.parameters()).device)


def load_unet(folder: Path) -> UNet2DConditionModel:
    """A U-Net from a diffusers folder, safetensors only, in float32; raises as `doors.open_part`."""
    return open_part(UNet2DConditionModel, folder, "network", "retrain it with `make teachers`")
