"""Text encoder and image tower, trained against each other: a CLIP of our own, small enough for some dozen words.

    logits = s u v^T,    u = normalised caption embedding (B, E),  v = normalised picture embedding (B, E)       (1)
    loss   = (cross-entropy over rows + over columns) / 2                                                       (2)

Radford et al. 2021 (arXiv 2103.00020), section 2.3. Each picture also meets its own caption with the two solids'
attributes exchanged, as one more column of (1): without it a bag of words would do (Yuksekgonul et al. 2023, arXiv
2210.01936), and colours would not bind to shapes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from distill_lib.diffusion.pixels import to_unit
from distill_lib.engine.loop import Loop, Progress, TrainSettings
from distill_lib.engine.precision import autocast
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Trainable
from distill_lib.worlds.captions import LENGTH, PHRASINGS, exchanged, names_held_out, say, tokenizer
from distill_lib.worlds.vocabulary import Vocabulary

EMBEDDING = 64
"""Width of the space in which pictures and captions meet."""


def build_text_encoder(tokens: CLIPTokenizer, width: int = 128, layers: int = 4) -> CLIPTextModel:
    """A CLIP text encoder for a tokenizer of `worlds.captions`; diffusers' pipelines take it as it is."""
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=EMBEDDING,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,  # left at its default it would pool the first token
        pad_token_id=tokens.pad_token_id,
    )
    return CLIPTextModel(config)


class _Tower(nn.Module):
    """Pictures (B, 3, R, R) in [-1, 1] -> features (B, C, R/16, R/16) and the embedding of them."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        sizes = (width, 2 * width, 4 * width, 4 * width)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1), nn.SiLU()]
        for a, b in zip((width, *sizes), sizes, strict=False):
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU(), nn.Conv2d(b, b, 3, 1, 1), nn.SiLU()]
        self.body = nn.ModuleList(layers)
        self.project = nn.Linear(sizes[-1] * (side // 16) ** 2, EMBEDDING)

    def layers(self, image: Tensor) -> list[Tensor]:
        """What each level sees, fine to coarse: for a perceptual loss."""
        seen = []
        for layer in self.body:
            image = layer(image)
            if isinstance(layer, nn.SiLU):
                seen.append(image)
        return seen

    def forward(self, image: Tensor) -> Tensor:
        return self.project(self.layers(image)[-1].flatten(1))


class Clip(nn.Module):
    """Both towers, and the logarithm of the scale s of (1)."""

    def __init__(self, text: CLIPTextModel, width: int = 32, side: int = 64) -> None:
        super().__init__()
        self.text, self.tower = text, _Tower(width, side)
        self.project = nn.Linear(text.config.hidden_size, EMBEDDING, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.66))  # s = 14.3, as CLIP starts

    def of_text(self, ids: Tensor) -> Tensor:
        """Normalised embeddings (B, E) of tokens (B, L)."""
        return normalize(self.project(self.text(ids).pooler_output), dim=1)

    def of_image(self, image: Tensor) -> Tensor:
        """Normalised embeddings (B, E) of pictures (B, 3, R, R) in [-1, 1]."""
        return normalize(self.tower(image), dim=1)

    def forward(self, image: Tensor, ids: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.of_image(image), self.of_text(ids), self.of_text(wrong), self.log_scale.exp().clamp(max=100)


def contrastive_loss(image: Tensor, text: Tensor, wrong: Tensor, scale: Tensor, differs: Tensor) -> Tensor:
    """Loss (2), one value a pair, (B,).

    Args:
        image, text: normalised embeddings of pictures and of their captions, (B, E).
        wrong: of each picture's caption with attributes exchanged, (B, E).
        scale: s.
        differs: where the exchange changed the caption, bool (B,); elsewhere `wrong` does not count.
    """
    logits = scale * image @ text.T
    own = torch.arange(len(image), device=image.device)
    hard = (scale * (image * wrong).sum(1)).masked_fill(~differs, -torch.inf)
    by_image = cross_entropy(torch.cat([logits, hard[:, None]], 1), own, reduction="none")
    return (by_image + cross_entropy(logits.T, own, reduction="none")) / 2


def train_clip(
    net: Trainable, words: Vocabulary, image: Tensor, wanted_attributes: Tensor, settings: TrainSettings, run: Run
) -> Iterator[Progress]:
    """Train net.module, a `Clip`, on pictures uint8 (N, 3, R, R) of attributes (N, 2, 4), phrased anew each time."""
    loop, tokens = Loop(net, settings, run), tokenizer(words)

    def ids(described: Tensor, phrasing: Tensor) -> Tensor:
        text = tokens(say(described, phrasing, words), padding="max_length", return_tensors="pt")
        return text.input_ids.to(loop.device)

    for _, draws in loop:
        index = draws.integer("picture", len(image)).cpu()
        phrasing, right = draws.integer("phrasing", len(PHRASINGS)).cpu(), wanted_attributes[index]
        wrong = exchanged(right, draws.uniform("exchange").cpu())
        # a pair held out would be met as a mistake alone, and learned to be one
        unseen = names_held_out(wrong, words) & ~names_held_out(right, words)
        wrong = torch.where(unseen[:, None, None], right, wrong)
        x = to_unit(image[index].to(loop.device))
        with autocast(loop.device, settings.bf16):
            *embeddings, scale = net.forward(x, ids(right, phrasing), ids(wrong, phrasing))
        differs = (wrong != right).flatten(1).any(1).to(loop.device)
        yield loop.update(contrastive_loss(*(part.float() for part in embeddings), scale, differs))
