"""Networks whose features pictures are matched by: two convolutional ones and a transformer.

SDXS (Song et al. 2024, arXiv 2403.16627), section 3.2, finds a CNN of the kind of VGG, a vision transformer, and the
encoder of a diffusion U-Net equally fit for its feature-matching loss. These two are trained to read attributes from
rendered pictures, as VGG is trained to name photographs; with other forms and seeds than any network that measures.

A loss against blur needs features that blur changes. A network that is trained on blurred pictures learns to overlook
blur, and a normalisation over the map scales up what blur has weakened. `PlainMatcher` has none, as VGG has none, and
is trained on clean pictures (`measure.readers.attributes.train_on_clean`). The picture itself is one layer more where a
view says so (`feature_matching.ByMatcher`), as in DISTS (Ding et al. 2020, arXiv 2004.07728).
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from distill_lib.worlds.vocabulary import SCENES, Vocabulary


class ConvMatcher(nn.Module):
    """Pictures (B, 3, R, R) in [-1, 1] -> logits (B, 2, 17); pairs of convolutions, four levels, as VGG has them."""

    def __init__(self, width: int = 24, side: int = 64, words: Vocabulary = SCENES) -> None:
        super().__init__()
        sizes = (3, width, 2 * width, 3 * width, 4 * width)
        self.levels = nn.ModuleList(self.level(a, b) for a, b in pairwise(sizes))
        self.shrink = nn.AvgPool2d(2)
        self.read = nn.Linear(sizes[-1] * (side // 16) ** 2, 2 * words.logits)

    @staticmethod
    def level(a: int, b: int) -> nn.Sequential:
        """A level from a channels to b."""
        second = nn.Conv2d(b, b, 3, 1, 1), nn.GroupNorm(8, b)
        return nn.Sequential(nn.Conv2d(a, b, 3, 1, 1), nn.ReLU(), *second, nn.ReLU())

    def layers(self, image: Tensor) -> list[Tensor]:
        """Features (B, C_l, R / 2^l, R / 2^l) of each level."""
        features = []
        for level in self.levels:
            image = level(self.shrink(image) if features else image)
            features.append(image)
        return features

    def forward(self, image: Tensor) -> Tensor:
        return self.read(self.shrink(self.layers(image)[-1]).flatten(1)).unflatten(1, (2, -1))


class PlainMatcher(ConvMatcher):
    """The same without normalisation; weights start so that features keep their size (He et al. 2015, 1502.01852)."""

    @staticmethod
    def level(a: int, b: int) -> nn.Sequential:
        """A level from a channels to b."""
        layers = nn.Conv2d(a, b, 3, 1, 1), nn.Conv2d(b, b, 3, 1, 1)
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU())


class TokenMatcher(nn.Module):
    """The same by a transformer on patches, whose features are its tokens after every second block, laid out again."""

    def __init__(self, width: int = 96, side: int = 64, words: Vocabulary = SCENES) -> None:
        super().__init__()
        patch, depth, heads = 8, 6, 4
        self.side = side // patch
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.place = nn.Parameter(0.02 * torch.randn(1, self.side**2, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.read = nn.Sequential(nn.LayerNorm(width), nn.Flatten(), nn.Linear(self.side**2 * width, 2 * words.logits))

    def _tokens(self, image: Tensor) -> list[Tensor]:
        token, features = self.embed(image).flatten(2).mT + self.place, []
        for block in self.blocks:
            token = block(token)
            features.append(token)
        return features

    def layers(self, image: Tensor) -> list[Tensor]:
        """Features (B, C, R / patch, R / patch)."""
        return [token.mT.unflatten(2, (self.side, self.side)) for token in self._tokens(image)[1::2]]

    def forward(self, image: Tensor) -> Tensor:
        return self.read(self._tokens(image)[-1]).unflatten(1, (2, -1))


MATCHERS: dict[str, Callable[..., ConvMatcher | TokenMatcher]] = {
    "cnn": ConvMatcher,
    "vit": TokenMatcher,
    "plain": PlainMatcher,
}
"""By the field `network` of a recipe, or by its name."""
