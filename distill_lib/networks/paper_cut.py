"""Which parts SDXS would remove of a U-Net that somebody brings, as far as the U-Net has them.

    Stable Diffusion 1, 2     `pruning.SDXS_512`: middle, innermost stages, attention of the finest, all units but one
    Stable Diffusion XL       `pruning.SDXS_1024`: attention of the middle, transformer blocks but for (1, 1, 2)

SDXS (Song et al. 2024, arXiv 2403.16627), section 3.1 and Fig. 2b.
"""

from dataclasses import replace

from diffusers import UNet2DConditionModel

from distill_lib.networks.pruning import SDXS_512, SDXS_1024, Cut, pruned_config
from distill_lib.networks.unet import config_of


def paper_cut(unet: UNet2DConditionModel) -> Cut:
    """The cut of SDXS for the family of a U-Net, told by what its configuration adds to time and text.

    Raises:
        ValueError: what is left would not read the prompt, or the configuration cannot be cut.
    """
    config = config_of(unet)
    cut = SDXS_512
    if config.get("addition_embed_type") == "text_time":
        had = config["transformer_layers_per_block"]
        had = (had,) * len(config["block_out_channels"]) if isinstance(had, int) else had
        cut = replace(SDXS_1024, depths=tuple(map(min, zip(SDXS_1024.depths, had, strict=False))))
    if config.get("mid_block_type", "UNetMidBlock2DCrossAttn") is None:
        cut = replace(cut, middle="kept")  # gone already, as in the smallest of BK-SDM
    left = pruned_config(config, cut)
    if not any("CrossAttn" in kind for kind in left["down_block_types"]):
        raise ValueError(
            f"unet: of its stages {', '.join(config['down_block_types'])} the cut of the paper leaves none that reads "
            "the prompt; three stages are due at least, the second of them with attention"
        )
    return cut
