"""Sizes of what notebooks 09 to 14 and 18 train of SDXS, of the shipped teacher or of another one."""

from pydantic import Field

from distill_lib.engine.bounds import Count, NonNegative, Number, Unit
from distill_lib.engine.loop import TrainSettings
from distill_lib.profiles.fields import Look, Strict, Training
from distill_lib.sdxs.critics import PatchCritic
from distill_lib.sdxs.easy_tuning import EasyTuning
from distill_lib.sdxs.scoring import Scoring


class Features(Strict):
    """What feature matching compares, where a choice is not varied: layers of the matcher, finest first.

    With `picture` the picture itself comes before them.
    """

    picture: bool = False
    window: NonNegative | list[NonNegative] = Field(
        default=0, description="side of windows, of all layers or one a layer; 0: the map"
    )
    weights: list[Number] | None = Field(default=None, description="one a layer; all alike unless given")


class Small(Strict):
    """SDXS: how much its notebooks train live and measure, of the shipped text-to-image teacher."""

    pairs: Count = Field(description="of the teacher's shipped pairs, the first ones; the paper makes them as it goes")
    more_prompts: Count = Field(description="drawn for scores beside those of the pairs; of another teacher none are")
    prompts: Count = Field(description="prompts, and pictures behind each metric; the paper takes 5,000 of COCO")
    decoder: TrainSettings = Field(description="of each tiny decoder")
    critic: PatchCritic = Field(description="of the tiny decoder; the paper says nothing of how it is held back")
    unet: Training = Field(description="of each small U-Net")
    matching: Training = Field(description="of a student of one step by a loss on pairs, and of the warm-up")
    features: Features = Features()
    scores: Scoring = Field(description="score distillation; the paper's batches are of 1,024 to 2,048")
    tuning: TrainSettings = Field(description="of the adversarial tuning of an adapter")
    consistency: TrainSettings = Field(description="of the consistency model beside which it stands in Table 3")
    easy_tuning: EasyTuning = Field(description="its pairs of times: more stages where it is trained for longer")
    crossing: TrainSettings = Field(description="of the networks on two-dimensional mixtures")
    plane: TrainSettings = Field(description="of each run of score distillation in the plane; updates of the student")
    alphas: list[Unit] = Field(description="segments of score distillation that are tried, each fixed")
    lambdas: list[Number] = Field(description="weights of feature matching beside scores that are tried, each fixed")
    ratios: list[Count] = Field(description="updates of the online model for one of the student that are tried")
    batches: list[Count] = Field(description="pairs a step that are tried")
    compiled: bool = Field(description="time networks through torch.compile too, a minute or two each")


class Lora(Strict):
    """SDXS's LoRA distillation: how much its notebook trains live and measures, of the shipped one-step student."""

    looks: list[Look] = Field(description="styles; the first is the one that placements and ranks are varied on")
    pairs: Count = Field(description="of the teacher with the style, live; the paper makes them as it goes")
    prompts: Count = Field(description="prompts, and pictures behind each metric")
    rank: Count = Field(description="of the student's LoRA; the paper does not give it")
    ranks: list[Count] = Field(description="others that are tried")
    scales: list[Number] = Field(description="of a LoRA while drawing")
    matching: TrainSettings = Field(description="of a warm-up, where there is one")
    scores: Scoring = Field(description="score distillation; the paper's batches are of 1,024 to 2,048")


class Control(Strict):
    """ControlNets of SDXS: how much 13_controlnet trains live and measures."""

    pairs: Count = Field(description="of the teacher's shipped pairs, the first so many, of which triplets are made")
    scenes: Count = Field(description="held-out scenes whose maps are followed, and pictures behind each metric")
    spread: Count = Field(description="scenes of which several pictures are drawn; Fig. 8 shows two")
    noises: Count = Field(description="pictures of each of those; four in Fig. 8")
    teacher_steps: Count = Field(description="of the teacher with its ControlNet, by UniPC as its pairs were made")
    shrinking: TrainSettings = Field(description="of each ControlNet for the small U-Net")
    matching: TrainSettings = Field(description="of each ControlNet of one step, by feature matching")
    scores: Scoring = Field(description="its score distillation; the paper's batches are of 1,024 to 2,048")
    shares: list[Unit] = Field(description="of the noise that is resampled; the paper names none")
    share: Unit = Field(description="the one that is used elsewhere")
