"""The claims of both papers as data, in two editions.

v1/*.yaml    as first set; frozen. Judged on the seeds below `first_seed`, by the worst cell of each seed.
v2/*.yaml    second definitions: each cites the sentence or number that it tests, and says where its limits come from.
             Judged on seeds from `first_seed` on, which nobody had seen when they were written, cell by cell.
v2/rules.yaml    `first_seed` and the other numbers of the rule.

What a claim measures is a list of parts; `cells` gives the formulas, `verdicts` both rules.
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from distill_lib.papers.manifest import Strict, read_model

Direction = Literal["at_most", "at_least"]
UNBIASED = ("mmd_teacher", "mmd_world", "mmd_look", "fid_inf")
"""Metrics without bias, which are 0 or less where two distributions are alike: no number is divided by one of them."""
_RELATIVE = ("ratio", "change", "shortfall", "departure")


class Select(Strict):
    """The rows whose fields have these values, all that a list names, and which number of theirs is read.

    artefact: where the rows stand, if not in the artefact of the part.
    steps: a number, a list of them, or `most`, the largest among the rows that fit otherwise (the many-step teacher of
        a profile).
    read: `value`, `nfe`, or `value_per_nfe` (of a row in seconds: seconds a network evaluation).
    """

    metric: str
    artefact: str | None = None
    method: str | list[str] | None = None
    steps: int | list[int] | Literal["most"] | None = None
    w: float | list[float] | None = None
    read: Literal["value", "nfe", "value_per_nfe"] = "value"

    def lists(self) -> dict[str, list[float]]:
        """The fields of which several values are named."""
        return {field: value for field, value in self.pins().items() if isinstance(value, list)}

    def pins(self) -> dict[str, Any]:
        """The fields that are fixed."""
        return self.model_dump(exclude={"read", "artefact"}, exclude_none=True)


class Part(Strict):
    """Formulas (1), (2) and (4) of `cells`.

    A row of the value that lacks a field of `each` is no point. A row of the reference, floor or limit that lacks it
    serves all of its values. A row without a seed counts for every seed.

    floor: the number that is 0 on the scale of `recovered`, where the reference is 1.
    once: a cost: all its rows are measurements of one number, whatever their seeds.
    """

    artefact: str
    value: Select
    reference: Select | None = None
    floor: Select | None = None
    compare: (
        Literal["ratio", "difference", "distance", "change", "departure", "lack", "shortfall", "recovered"] | None
    ) = None
    limit: float | Select = 1.0
    each: list[Literal["t", "w", "steps", "nfe", "method", "kind"]] = Field([])
    reduce: Literal["max", "median", "min"] | None = None
    once: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.reference is None) != (self.compare is None):
            raise ValueError("a reference and how to compare with it go together")
        if (self.floor is not None) != (self.compare == "recovered"):
            raise ValueError("`floor` and `recovered` go together")
        if self.reduce and not self.each:
            raise ValueError("`reduce` needs `each`")
        for field in ("w", "method", "steps"):
            if field in self.value.lists() and not {field, "nfe" if field == "steps" else field} & set(self.each):
                raise ValueError(f"a list of {field} needs it in `each`")
        unbiased = self.reference is not None and self.reference.metric in UNBIASED
        if unbiased and (self.compare in ("distance", "recovered") or self.reduce or isinstance(self.limit, Select)):
            raise ValueError(
                f"{self.value.metric}: an unbiased reference takes no reduction, distance or limit from rows"
            )
        return self

    @property
    def by_difference(self) -> bool:
        """Whether formula (4) of `cells` judges it: its reference may be 0 or less."""
        return self.reference is not None and self.reference.metric in UNBIASED and self.compare in _RELATIVE

    def unsaid(self, expects: dict[str, list[Any]]) -> list[str]:
        """The fields of `each` whose values nothing states; the evaluations, `nfe`, follow from a list of steps."""
        stated = {*self.value.lists(), *expects}
        return [f for f in self.each if f not in stated | ({"nfe"} if "steps" in stated else set())]

    def selects(self) -> list[Select]:
        """All rows that the part reads: value, reference, floor, limit."""
        return [x for x in (self.value, self.reference, self.floor, self.limit) if isinstance(x, Select)]


class First(Strict):
    """One sentence that a paper holds true, and how the first edition judges it or why it does not.

    confidence: V read in the work, S in a secondary source, D derived by arithmetic, M recalled only: our hypothesis.
    one_training: the effect is of shipped weights, trained once, so that its seeds are those of noise alone.
    also: numbers noted beside the verdict, which do not decide it.
    """

    id: str
    sentence: str
    source: str
    confidence: Literal["V", "S", "M", "D"]
    hypothesis: bool = False
    artefacts: list[str] = Field([])
    effect: list[Part] = Field([])
    direction: Direction | None = None
    margin: float | None = None
    one_training: bool = False
    also: dict[str, Part] = Field({})
    not_judged: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.hypothesis != (self.confidence == "M"):
            raise ValueError(f"{self.id}: a claim marked M, and no other, is a hypothesis")
        given = [bool(self.artefacts), bool(self.effect), self.direction is not None, self.margin is not None]
        if given != [self.not_judged is None] * 4:
            raise ValueError(f"{self.id}: needs artefacts, effect, direction and margin, or only not_judged")
        if {part.artefact for part in [*self.effect, *self.also.values()]} != set(self.artefacts):
            raise ValueError(f"{self.id}: artefacts differ from those that its effect reads")
        if any(bool(part.each) != bool(part.reduce) for part in self.effect):
            raise ValueError(f"{self.id}: `each` and `reduce` go together in the first edition")
        return self


class Cause(Strict):
    """Why a claim may fail here, told only beside a verdict that is not `supported`."""

    kind: Literal["scale", "world", "metric", "under-specified", "finding"]
    reason: str


class Source(Strict):
    """The rows that replace those of another method: of this method, at the same kind, t, metric and seed.

    steps: a number, `most`, `same`, or `nfe`: those that cost as many evaluations.
    w: the same, unless given.
    but: metrics whose rows are not replaced.
    """

    method: str
    artefact: str | None = None
    steps: int | Literal["most", "same", "nfe"] = "same"
    w: float | None = None
    but: list[str] = Field([])


class Stand(Strict):
    """Rows on which the verdict on a claim is known, for a test of the claim.

    rows: where they start: `committed`, from the rows of figures/laptop, or `made`, from none.
    made: rows to add, by method and metric; a value may depend on one field, as {steps: {1: 9, 4: 1}}.
    swap: by method, the rows that replace its own.
    """

    rows: Literal["committed", "made"] = "committed"
    made: dict[str, dict[str, float | dict[str, dict[float | str, float]]]] = Field({})
    swap: dict[str, Source] = Field({})

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.made and not self.swap:
            raise ValueError("an oracle or baseline is made, or swaps rows, or both")
        return self


class Judged(Strict):
    """What the rule of the second edition judges: a claim or a gate.

    expects: the values of fields of `each` that no list of the value states. A seed without all of them is incomplete.
    one_training: methods whose rows are of shipped weights, trained once. A column `training` numbers their trainings,
        and what reads one of them counts trainings in place of seeds; without the column all seeds are one training.
    """

    id: str
    sentence: str
    effect: list[Part] = Field([])
    direction: Direction = "at_most"
    margin: float = 1.0
    expects: dict[str, list[float | str]] = Field({})
    one_training: list[str] = Field([])

    @model_validator(mode="after")
    def _expected(self) -> Self:
        for part in self.effect:
            if unsaid := part.unsaid(self.expects):
                raise ValueError(f"{self.id}: state in `expects` the values of {', '.join(unsaid)} in {part.artefact}")
            if part.by_difference and part.compare == "departure" and self.direction == "at_least":
                raise ValueError(f"{self.id}: a departure by differences has two sides, both of which are at_most")
        return self


class Gate(Judged):
    """What has to be so here for a claim to be assessable, judged from rows by the rule of the claims."""


class Second(Judged):
    """A claim of the second edition.

    tests: the sentence or number of the paper that is tested.
    first: the claim of the first edition that it replaces; that of the same id unless given.
    limits: where its limits come from, if they are not those first set.
    training: the verdict rests on a training, so that it needs the rows of one of half the length.
    premises: claims and gates without which it is not assessable here.
    oracle, baseline: rows that have to give `supported` and `contradicted`; else the claim is no test.
    no_oracle: why no student can be put in another's place, so that both are made by hand.
    """

    tests: str
    source: str
    confidence: Literal["V", "S", "M", "D"]
    first: str = ""
    limits: str = "as first set"
    training: bool = True
    premises: list[str] = Field([])
    also: dict[str, Part] = Field({})
    cause: Cause | None = None
    oracle: Stand | None = None
    baseline: Stand | None = None
    no_oracle: str | None = None
    not_judged: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = [bool(self.effect), self.oracle is not None, self.baseline is not None]
        if given != [self.not_judged is None] * 3:
            raise ValueError(f"{self.id}: needs effect, oracle and baseline, or only not_judged")
        if self.oracle and (self.no_oracle is None) == (self.oracle.rows == "made"):
            raise ValueError(f"{self.id}: an oracle is made by hand where no_oracle says why, and only there")
        return self

    @property
    def replaces(self) -> str:
        """Id of the claim of the first edition."""
        return self.first or self.id

    @property
    def once(self) -> bool:
        """Whether all that it measures are costs, which need no seeds."""
        return bool(self.effect) and all(part.once for part in self.effect)


class Rules(Strict):
    """The numbers of the second edition's rule, each in one place.

    first_seed: rows of seeds below it were in view when the second edition was written, and never count for it.
    seeds: as many a verdict needs.
    confidence: of the interval of a cell.
    moved, beyond_noise: how far an effect moves that is still learning, in distances to the margin and in deviations.
    power: the chance of telling the smallest effect that counts as detectable.
    stand_in: metrics that older rows lack, and what stands for them in tests and dry runs, never in a verdict.
    """

    first_seed: int
    seeds: int
    confidence: float
    moved: float
    beyond_noise: float
    power: float
    stand_in: dict[str, str]


class FirstEdition(Strict):
    """v1/*.yaml."""

    claims: list[First]


class SecondEdition(Strict):
    """v2/*.yaml."""

    gates: list[Gate] = Field([])
    claims: list[Second]


def first_edition(paper: str) -> list[First]:
    """The claims of a paper as first set."""
    return read_model(FirstEdition, f"v1/{paper}.yaml").claims


def second_edition(paper: str) -> SecondEdition:
    """The claims of a paper in their second edition, with their gates."""
    return read_model(SecondEdition, f"v2/{paper}.yaml")


def rules() -> Rules:
    """The numbers of the second edition's rule."""
    return read_model(Rules, "v2/rules.yaml")
