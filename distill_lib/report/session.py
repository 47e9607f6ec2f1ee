"""The set-up of a notebook in a few lines: `lab = session(profile, seed)`.

A session holds the settings of a profile, loads the data and shipped networks of its world, and writes artefacts as a
`Recorder` does. The parents of what it writes are all weights that the process has read until then, shipped folders and
trainings alike (`engine.store.read_keys`): no notebook lists them, and none can forget one.
"""

import gc
from collections.abc import Iterable
from typing import Any, Protocol

from IPython.display import display
from matplotlib.figure import Figure

from distill_lib import profiles
from distill_lib.engine.store import read_keys
from distill_lib.measure.classes import Measured
from distill_lib.measure.draw import check_steps, check_strengths
from distill_lib.measure.features import Features, reference
from distill_lib.measure.independent import Sampled
from distill_lib.measure.metrics import Reader
from distill_lib.measure.rows import Row
from distill_lib.measure.rulers import Rulers
from distill_lib.networks.adapter import Keyed, Network
from distill_lib.networks.pipeline import TextToImage
from distill_lib.profiles import Profile
from distill_lib.report import sentences
from distill_lib.report.cells import Markdown
from distill_lib.report.record import Recorder, load_rows, own_folder
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import Pairs
from distill_lib.worlds.pictures import DatasetSpec, Pictures, load


class Distilled(Protocol):
    """What a notebook distils, as its results name it."""

    @property
    def source(self) -> str:
        """How results call their data."""

    @property
    def suffix(self) -> str:
        """What the names of results end in; empty for what is shipped."""

    @property
    def parents(self) -> list[str]:
        """Keys of what all results rest on, besides weights that are read."""


class Session(Recorder):
    """One run of a notebook: settings, data and networks by name, and the recorder of its artefacts.

    Args:
        settings: the profile.
        seed: of the run.
        own: strengths and steps of the caller's own; their results go to a folder of their own.

    Attributes:
        ws, steps: strengths and step counts to measure, sorted.
        dataset: what the results call their data, the profile's world; assign another name where a notebook has others.
        suffix: what the names of artefacts end in, empty but for real data and for another teacher.

    Raises:
        ValueError: the folder of the artefacts cannot be written to.
    """

    def __init__(self, settings: Profile, seed: int, own: dict[str, list]) -> None:
        folder = own_folder(**own)
        super().__init__(settings.name + folder, settings.data, [], settings.suffix)
        self.settings, self.sizes, self.seed, self.has_own = settings, settings.sizes, seed, bool(folder)
        self.ws = sorted(set(own.get("ws") or settings.ws))
        self.steps = sorted(set(own.get("steps") or settings.steps))

    def rest_on(self, *keys: str) -> None:
        """Name parents that are no weights: a file of prompts, a teacher that is not shipped."""
        self.parents = list(dict.fromkeys([*self.parents, *keys]))

    def take(self, job: Distilled) -> None:
        """Name the data, the artefacts and their parents after what a notebook distils."""
        self.dataset, self.suffix = job.source, job.suffix
        self.rest_on(*job.parents)

    def rows(self, artefact: str, rows: list[Row]) -> list[Row]:
        """As `Recorder.rows`; all weights that were read until now are parents."""
        self.rest_on(*read_keys())
        return super().rows(artefact, rows)

    def table(self, artefact: str, markdown: str) -> Markdown:
        """As `Recorder.table`; a cell that ends in it shows the table."""
        return Markdown(super().table(artefact, markdown))

    def figure(self, artefact: str, figure: Figure) -> Figure:
        """As `Recorder.figure`; what the figure shows in the papers stands above it, and is its text for HTML."""
        words = sentences.caption(artefact)
        display(Markdown(words))
        figure.alt = figure.alt or words.replace("**", "")
        return super().figure(artefact, figure)

    def banner(self, notebook: str) -> Markdown:
        """What the outputs of a notebook are: profile, seeds, commits, minutes, and what a plus-minus means."""
        return Markdown(sentences.banner(notebook, self.settings.name, self.seed))

    def say(self, artefact: str, metric: str, *sides: sentences.Columns, **where: Any) -> Markdown:
        """A sentence that compares two sides of an artefact's rows, or states one; see `sentences.sentence`."""
        return Markdown(sentences.sentence(load_rows(self.profile, artefact + self.suffix), metric, sides, where))

    def verdicts(self, notebook: str) -> Markdown:
        """The verdicts on the claims whose numbers a notebook shows, from the committed figures."""
        return Markdown(sentences.verdicts(notebook))

    @property
    def w_max(self) -> float:
        """The greatest strength that the shipped student of the world was trained for."""
        return pretrained.w_range(self.settings.world)[1]

    def pictures(self, world: str = "") -> Pictures:
        """The training pictures of a world, the profile's if none is named, as many as the profile says."""
        return load(DatasetSpec(name=world or self.settings.world, count=self.sizes.pictures))

    def teacher(self, world: str = "") -> Network:
        """The shipped teacher of a world, frozen."""
        return Network(pretrained.teacher(world or self.settings.world).requires_grad_(False))

    def student(self, world: str = "") -> Keyed:
        """The shipped student of stage one of a world, frozen: one network for the teacher's guided pair."""
        world = world or self.settings.world
        net = Network(pretrained.student(world).requires_grad_(False))
        return Keyed(net, pretrained.made(f"student-{world}")["weights"])

    def pipeline(self) -> TextToImage:
        """The shipped small Stable Diffusion; its world is what results call their data from then on."""
        self.dataset = self.settings.latent.world
        return pretrained.pipeline(self.settings.latent.pipeline)

    def pairs(self, pipeline: TextToImage, count: int | None = None) -> Pairs:
        """The first `count` of the pipeline's shipped pairs of noise and its answer; all of them if it is left out."""
        pairs = pretrained.pairs(self.settings.latent.pipeline, pipeline)
        return pairs if count is None else pairs.part(0, count)

    def reader(self, name: str = "") -> Reader:
        """The shipped network behind the metrics, the profile's if none is named."""
        return Reader(pretrained.extractor(name or self.settings.extractor))

    def measured(self, teacher: Network, world: str = "", samples: int = 0) -> Measured:
        """What samples are compared with: real pictures of a world, and a teacher's own; sizes as in the profile."""
        sizes, world = self.sizes, world or self.settings.world
        return Measured(self.reader(), teacher, world, samples or sizes.samples, sizes.teacher_steps, self.seed)

    def features(self, reader: Reader, world: str = "") -> Features:
        """What a reader finds in pictures, standardised by as many real ones of a world as the profile says."""
        return Features(reader, reference(reader, world or self.settings.world, self.settings.rulers.reference))

    def rulers(self, teacher: Network, world: str = "") -> Rulers:
        """Metrics of independent samples of networks of classes, with a teacher of many steps as the truth."""
        truth = Sampled(teacher, self.sizes.teacher_steps, 0.0)
        features, n = self.features(self.reader(), world), self.settings.rulers.independent
        return Rulers.of_classes(features, truth, n, self.seed)


def session(
    profile: str,
    seed: int,
    dataset: str = "",
    ws: Iterable[float] | None = None,
    steps: Iterable[int] | None = None,
) -> Session:
    """Open the session of a notebook.

    Args:
        profile, seed, dataset: the notebook's parameters; an empty dataset is the profile's world.
        ws, steps: parameters of notebooks that have them; empty ones are those of the profile.

    Raises:
        ValueError: as `profiles.load`; a strength or a step count that no student is distilled for; the folder of the
            artefacts cannot be written to. Said before anything is computed.
    """
    gc.collect()
    gc.freeze()  # what imports have made lives to the end: no collection of garbage looks at a million objects again
    settings = profiles.load(profile, dataset)
    own = {name: list(given) for name, given in (("ws", ws), ("steps", steps)) if given}
    if ws is not None:
        check_strengths(own.get("ws", settings.ws), pretrained.w_range(settings.world)[1])
    if steps is not None:
        check_steps(own.get("steps", settings.steps), settings.halving_start)
    return Session(settings, seed, own)
