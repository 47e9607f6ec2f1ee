"""Measuring text-to-image: the same prompts and the same noise for everybody, and judges that no method is trained by.

attribute_accuracy, prompt_accuracy     what an attribute reader finds in the pictures (`attributes`)
clip                                    mean cosine between picture and prompt in a mini CLIP of another training
fid, kid, precision, recall             against pictures of the world, by an extractor for two objects
fid_teacher, paired                     against the many-step teacher at the same strength, from the same noise
sharpness                               variance of the Laplacian
fid_inf, mmd_teacher                    `measure.rulers`, of independent pictures

Of prompts that are no world's, only clip, fid_teacher, paired and sharpness can be measured.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module
from transformers import CLIPModel, CLIPProcessor

from distill_lib.diffusion.pixels import to_bytes, to_unit
from distill_lib.diffusion.samplers import nfe
from distill_lib.engine.precision import default_device
from distill_lib.engine.store import cached
from distill_lib.measure.distances import FEWEST
from distill_lib.measure.draw import pictures_of
from distill_lib.measure.features import Features
from distill_lib.measure.independent import Sampled
from distill_lib.measure.metrics import Reader, fid, laplacian_variance, paired, quality
from distill_lib.measure.readers.attributes import attribute_accuracy, prompt_accuracy, read_attributes
from distill_lib.measure.rows import Row, tidy
from distill_lib.measure.rulers import Rulers
from distill_lib.networks.adapter import Network
from distill_lib.networks.doors import check_loaded, check_tokenizer, load_part, one_line, quiet
from distill_lib.networks.pipeline import TextToImage
from distill_lib.networks.resting import at_hand
from distill_lib.teachers.clip import Clip
from distill_lib.worlds.captions import attributes, drawn_attributes, names_held_out, say, tokenizer
from distill_lib.worlds.pictures import WORLDS, render_pictures
from distill_lib.worlds.scenes import draw_scenes
from distill_lib.worlds.seeds import held_out_seed
from distill_lib.worlds.vocabulary import SCENES, Vocabulary, vocabulary_of

_BATCH = 256


@dataclass(frozen=True)
class Judges:
    """The networks that measure: features, the cosine of picture and prompt, and what two objects show.

    clip takes pictures uint8 (N, 3, R, R) and their prompts, as `alignment` and `clip_of` do once their model is given.
    """

    reader: Reader
    clip: Callable[[Tensor, list[str]], Tensor]
    attributes: Module | None = None


def clip_of(source: str | Path) -> Callable[[Tensor, list[str]], Tensor]:
    """A CLIP of other people, from a folder or hub id, as a judge: the cosine of pictures and prompts, (N,).

    Raises:
        ValueError: nothing usable is there.
    """
    folder = Path(source).expanduser()
    try:
        if folder.is_dir():
            check_tokenizer(folder, folder)
            model = load_part(CLIPModel, folder)
            reads = CLIPProcessor.from_pretrained(folder, local_files_only=True)
        else:
            with quiet():
                model, info = CLIPModel.from_pretrained(source, use_safetensors=True, output_loading_info=True)
            check_loaded(info)
            reads = CLIPProcessor.from_pretrained(source)
    except Exception as error:
        raise ValueError(f"clip={str(source)!r} is no usable CLIP: {one_line(error)}") from error
    model.float().to(default_device()).eval().requires_grad_(False)
    limit = min(reads.tokenizer.model_max_length, model.config.text_config.max_position_embeddings)

    @torch.no_grad()
    def judge(image: Tensor, prompts: list[str]) -> Tensor:
        parts = []
        for index in torch.arange(len(image)).split(_BATCH):
            words = [prompts[i] for i in index.tolist()]
            given = reads(text=words, images=list(image[index]), return_tensors="pt", padding=True)
            if given.input_ids.shape[1] > limit:
                raise ValueError(
                    f"a prompt has {given.input_ids.shape[1]} tokens, and the CLIP that judges reads {limit}: shorten "
                    f"it; it is among those that begin with {words[0][:60]!r}"
                )
            output = model(**given.to(model.device))
            parts.append((output.image_embeds * output.text_embeds).sum(1).cpu())
        return torch.cat(parts)

    return judge


@torch.no_grad()
def alignment(clip: Clip, image: Tensor, prompts: list[str], words: Vocabulary = SCENES) -> Tensor:
    """Cosine between pictures uint8 (N, 3, R, R) and their prompts in the space of a mini CLIP of these words, (N,)."""
    ids = tokenizer(words)(prompts, padding="max_length", return_tensors="pt").input_ids
    device = clip.log_scale.device
    parts = [
        (clip.of_image(to_unit(pictures.to(device))) * clip.of_text(words.to(device))).sum(1).cpu()
        for pictures, words in zip(image.split(_BATCH), ids.split(_BATCH), strict=True)
    ]
    return torch.cat(parts)


def states_of(model: TextToImage, prompts: list[str]) -> Tensor:
    """What the networks are told of prompts, (N, L, D), as `TextToImage.states`."""
    return torch.cat([model.states(prompts[i : i + _BATCH]) for i in range(0, len(prompts), _BATCH)])


@torch.no_grad()
def through(model: TextToImage, image: Tensor, decode: Callable[[Tensor], Tensor]) -> Tensor:
    """Pictures uint8 (N, 3, R, R) after the pipeline's encoder and a decoder of its latents into [-1, 1]."""
    return torch.cat([to_bytes(decode(model.latents(part))).cpu() for part in image.split(64)])


def real_pictures(
    world: str, n: int, part: int = 0, unseen: bool = False, use: str = "measured"
) -> tuple[Tensor, Tensor]:
    """Pictures uint8 (n, 3, R, R) that no training has seen, and their attributes (n, 2, 4), of the content of prompts.

    Those of seed `part` of a use of `worlds.seeds.HELD_OUT_SEEDS` that hold no pair of `worlds.captions.HELD_OUT`, or
    with `unseen` those that do.
    """
    seed = held_out_seed(use, part)
    scenes = draw_scenes(WORLDS[world], seed, torch.arange(8 * n + 64))
    wanted_attributes = attributes(scenes, WORLDS[world])
    index = (names_held_out(wanted_attributes, vocabulary_of(WORLDS[world])) == unseen).nonzero()[:n, 0]
    make = lambda: {"image": render_pictures(WORLDS[world], seed, index)[0]}  # noqa: E731
    spec = {"world": WORLDS[world], "n": n, "seed": seed, "unseen": unseen}
    return cached("real", spec, make, real_pictures)["image"], wanted_attributes[index]


@dataclass(eq=False)
class PromptBenchmark:
    """Prompts of a world of two objects, and what their pictures are compared with.

    Args:
        model: the teacher.
        judges: what measures.
        world: a world of two objects.
        n: prompts, and pictures behind each metric.
        teacher_steps, w: steps of the teacher that stands for the truth, and the strength at which it is shown.
        seed: of prompts and noise.
        unseen: ask for the pairs of colour and shape that no text-to-image training has seen, and for no other.
        prompts: n other prompts, of which nothing else is known; `world` is then empty.
    """

    model: TextToImage
    judges: Judges
    world: str
    n: int
    teacher_steps: int
    w: float
    seed: int = 0
    unseen: bool = False
    prompts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.world:
            self.wanted_attributes = drawn_attributes(self.n, self.seed, self.unseen, self.words)
            self.real, self.shows = real_pictures(self.world, self.n, 0, self.unseen)  # what the world has of that kind
            self.prompts = say(self.wanted_attributes, None, self.words)

    @property
    def words(self) -> Vocabulary:
        """Those of the world; of prompts that are no world's, the first world's."""
        return vocabulary_of(WORLDS[self.world]) if self.world else SCENES

    @cached_property
    def states(self) -> Tensor:
        """The networks' condition, (n, L, D)."""
        return states_of(self.model, self.prompts)

    def pictures(self, net: Network, n_steps: int, w: float, sampler: str = "ddim") -> Tensor:
        """Pictures uint8 (n, 3, R, R) of the prompts, by `draw.pictures_of`."""
        with at_hand(net):
            return pictures_of(net, n_steps, w, self.states, self.seed, sampler)

    def truth(self, w: float | None = None) -> Tensor:
        """The teacher's own pictures at its many steps, at its own strength unless another is named."""
        return self.pictures(self.model.network, self.teacher_steps, self.w if w is None else w)

    def judged(self, image: Tensor, wanted_attributes: Tensor | None = None) -> dict[str, float]:
        """What the judges find in pictures uint8 (n, 3, R, R) of the prompts, or of other attributes (n, 2, 4)."""
        prompts = self.prompts if wanted_attributes is None else say(wanted_attributes, None, self.words)
        values = {"clip": self.judges.clip(image, prompts).mean().item(), "sharpness": laplacian_variance(image)}
        if self.world and self.judges.attributes is not None:
            predicted, wanted_attributes = (
                read_attributes(self.judges.attributes, image, self.words.kinds),
                self.wanted_attributes if wanted_attributes is None else wanted_attributes,
            )
            values["attribute_accuracy"] = attribute_accuracy(predicted, wanted_attributes).mean().item()
            values["prompt_accuracy"] = prompt_accuracy(predicted, wanted_attributes).mean().item()
        return values

    def compared(self, image: Tensor, truth: Tensor) -> dict[str, float]:
        """What the judges find in pictures uint8 (n, 3, R, R), and their distances to true ones and to the world's."""
        values = self.judged(image)
        values |= {"fid_teacher": fid(self.judges.reader, image, truth), "paired": paired(image, truth).mean().item()}
        if self.world:
            values |= quality(self.judges.reader, image, self.real)
            del values["is"]  # classes of one solid say nothing of two
        return values

    def rows(
        self, method: str, net: Network, n_steps: int, w: float, truth_w: float | None = None, *, sampler: str = "ddim"
    ) -> list[Row]:
        """All metrics of a network's pictures, one row each; `method` is their label.

        They are compared with the teacher at the same strength, or at truth_w: a network without w may hold guidance.
        """
        image, truth = self.pictures(net, n_steps, w, sampler), self.truth(w if truth_w is None else truth_w)
        count = nfe(n_steps, w, not net.takes_w)
        columns = {"steps": n_steps, "w": w, "nfe": count, "n": self.n, "seed": self.seed}
        return tidy(self.compared(image, truth), method=method, **columns)

    def floor_rows(self, many: int = 0) -> list[Row]:
        """Real pictures against other real ones, at n and at `many`; what the judges find in them and in their latents.

        A judge that misreads real pictures bounds what any model can reach, and so does the autoencoder. There are no
        real pictures of prompts that are no world's, and no rows.
        """
        if not self.world:
            return []
        rows = []
        for n in sorted({self.n, many} - {0}):
            sets = [real_pictures(self.world, n, part, self.unseen)[0] for part in (0, 1)]
            rows += tidy({"floor_fid": fid(self.judges.reader, *sets)}, method="real", n=n, seed=self.seed)
        back = through(self.model, self.real, self.model.network.decode)
        for method, image in (("real", self.real), ("autoencoder", back)):
            rows += tidy(self.judged(image, self.shows), method=method, n=self.n, seed=self.seed)
        return rows

    def measure(self, method: str, nets: dict[int, Network], ws: Iterable[float], sampler: str = "ddim") -> list[Row]:
        """Rows labelled `method` for the network of each step count, at each strength."""
        return [row for w in ws for n, net in nets.items() for row in self.rows(method, net, n, w, sampler=sampler)]

    def rulers(self, features: Features, samples: int = 0) -> Rulers:
        """Metrics of independent pictures, of a world's prompts, as many as `n` and no fewer than FID_inf takes.

        Prompts are drawn by lot, so that the pictures of this benchmark serve; those of the teacher that others are
        compared with are of prompts and noise of another seed.

        Args:
            features: of the pictures, standardised.
            samples: pictures of a network, if others than this benchmark's.

        Raises:
            ValueError: the prompts are no world's.
        """
        if not self.world:
            raise ValueError("world='': prompts of a file have no world to be compared with; take those of a world")
        n = max(samples or self.n, FEWEST)
        own = {"student": replace(self, n=n), "truth": replace(self, n=n, seed=held_out_seed("truth", self.seed))}

        def draw(sampled: Sampled, stream: str) -> Tensor:
            return own[stream].pictures(sampled.net, sampled.n_steps, sampled.w, sampled.sampler)

        truth = Sampled(self.model.network, self.teacher_steps, self.w)
        return Rulers(features, draw, truth, self.seed, lambda n: real_pictures(self.world, n, 0, self.unseen)[0])
