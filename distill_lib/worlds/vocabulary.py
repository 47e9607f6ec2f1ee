"""The words of the worlds of two objects: what captions can say, in how many ways, and which pairs nobody trains on."""

from dataclasses import dataclass
from functools import cached_property

from distill_lib.worlds import scenes, studio
from distill_lib.worlds.scenes import SceneSpec
from distill_lib.worlds.studio import StudioSpec


@dataclass(frozen=True)
class Vocabulary:
    """Words of one world; attributes (B, 2, 4) of `captions` number them.

    phrasings: ways to say how two solids stand, by relation; {first} and {second} are the left and the right solid, or
        the one in front and the one behind.
    held_out: pairs of colour and shape that no text-to-image training sees: what a model makes of them it has composed.
    sized: the fourth attribute says that a solid is small, and there is one relation; otherwise it is the relation.
    """

    shapes: tuple[str, ...]
    colors: tuple[str, ...]
    textures: tuple[str, ...]
    phrasings: tuple[tuple[str, ...], ...]
    held_out: tuple[tuple[str, str], ...]
    sized: bool

    @property
    def kinds(self) -> tuple[int, int, int, int]:
        """How many values each attribute of a solid has."""
        return len(self.shapes), len(self.colors), len(self.textures), 2

    @property
    def logits(self) -> int:
        """Answers of a reader about one solid."""
        return sum(self.kinds)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All words that a caption may hold."""
        fixed = {"a", "an", *self.textures[1:], *self.colors, *self.shapes, *(("small",) if self.sized else ())}
        texts = [text for relation in self.phrasings for text in relation]
        return tuple(sorted(fixed | {word for text in texts for word in text.split() if not word.startswith("{")}))


_BESIDE = (
    "{first} left of {second}",
    "{second} right of {first}",
    "{first} to the left of {second}",
    "{second} to the right of {first}",
    "on the left {first} and on the right {second}",
    "{first} beside {second} on the right",
)
_BEHIND = (
    "{first} in front of {second}",
    "{second} behind {first}",
    "in front {first} and behind it {second}",
    "{second} to the back of {first}",
    "at the front {first} and at the back {second}",
    "{first} with {second} behind it",
)
SCENES = Vocabulary(
    scenes.SHAPES,
    tuple(scenes.COLORS),
    scenes.TEXTURES,
    (_BESIDE,),
    (("red", "cone"), ("green", "cube"), ("blue", "sphere"), ("yellow", "cylinder")),
    sized=True,
)
STUDIO = Vocabulary(
    studio.SHAPES,
    tuple(studio.COLORS),
    studio.TEXTURES,
    (_BESIDE, _BEHIND),
    (*SCENES.held_out, ("white", "pyramid"), ("orange", "hemisphere")),
    sized=False,
)
VOCABULARIES = SCENES, STUDIO


def vocabulary_of(spec: SceneSpec) -> Vocabulary:
    """The words of a world."""
    return STUDIO if isinstance(spec, StudioSpec) else SCENES
