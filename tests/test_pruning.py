"""What a cut leaves has the sizes that the paper counts, starts as the teacher, and is refused if it does not fit."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from distill_lib.networks.pruning import SDXS_512, SDXS_1024, Cut, counterparts, prune, pruned_config, tapped
from distill_lib.networks.unet import config_of
from distill_lib.run.true_scale import SD_21, SDXL


def size(config):
    with torch.device("meta"):
        return sum(p.numel() for p in UNet2DConditionModel(**config).parameters())


def small(layers=2, seed=0):
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=8,
        block_out_channels=(16, 32, 48, 48),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=layers,
    )


def test_stable_diffusion_shrinks_to_the_counts_of_the_paper():
    assert size(SD_21) == 865_910_724
    without_units = Cut(middle="removed", innermost=True, finest=True)
    assert size(pruned_config(SD_21, without_units)) == 515_401_604
    assert size(pruned_config(SD_21, SDXS_512)) == 318_695_364


def test_the_large_model_shrinks_to_the_count_of_the_paper():
    assert size(SDXL) == 2_567_463_684
    assert size(pruned_config(SDXL, SDXS_1024)) == 745_225_604


def test_nothing_removed_is_the_teacher_to_the_bit():
    teacher = small()
    student = prune(teacher, Cut())
    z, t, tokens = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 5, 16)
    with torch.no_grad():
        assert torch.equal(student(z, t, tokens).sample, teacher(z, t, tokens).sample)


@pytest.mark.parametrize("middle", ["kept", "plain", "removed"])
@pytest.mark.parametrize("innermost", [False, True])
@pytest.mark.parametrize("finest", [False, True])
@pytest.mark.parametrize("layers", [None, 1])
def test_every_cut_runs_and_keeps_the_teacher_s_weights(middle, innermost, finest, layers):
    teacher = small()
    student = prune(teacher, Cut(middle=middle, innermost=innermost, finest=finest, layers=layers))
    out = student(torch.randn(1, 4, 8, 8), torch.tensor([9]), torch.randn(1, 5, 16)).sample
    assert out.shape == (1, 4, 8, 8) and out.isfinite().all()
    kept = [p.data for p in student.parameters()]
    have = {p.data.sum().item() for p in teacher.parameters()}
    assert all(p.sum().item() in have for p in kept)


def test_the_last_unit_of_an_up_stage_copies_the_teacher_s_last():
    teacher = small()
    student = prune(teacher, Cut(layers=1))
    for student_block, teacher_block in zip(student.up_blocks, teacher.up_blocks, strict=True):
        assert torch.equal(student_block.resnets[0].conv1.weight, teacher_block.resnets[0].conv1.weight)
        assert torch.equal(student_block.resnets[1].conv1.weight, teacher_block.resnets[2].conv1.weight)


def test_a_student_need_not_inherit():
    teacher = small()
    assert not torch.equal(prune(teacher, Cut(), inherit=False).conv_in.weight, teacher.conv_in.weight)


def test_a_stage_of_the_student_stands_beside_the_one_it_came_from():
    teacher = small()
    student = prune(teacher, Cut(middle="removed", innermost=True, finest=True, layers=1))
    given = torch.randn(1, 4, 8, 8), torch.tensor([9]), torch.randn(1, 5, 16)
    for down, count in ((True, 6), (False, 3)):
        student_blocks, teacher_blocks = counterparts(student, teacher, down)
        with tapped(student_blocks) as ours, tapped(teacher_blocks) as wanted:
            student(*given)
            teacher(*given)
        assert [f.shape for f in ours] == [f.shape for f in wanted] and len(ours) == count
    student(*given)
    assert len(ours) == 3  # the taps are closed


@pytest.mark.parametrize(
    "cut, message",
    [
        (Cut(layers=3), "layers=3: the network has 2 a stage"),
        (Cut(depths=(1, 1)), r"depths=\(1, 1\): the network has"),
        (Cut(depths=(1, 1, 2, 1)), r"depths=\(1, 1, 2, 1\)"),
    ],
)
def test_what_is_not_there_cannot_be_kept(cut, message):
    with pytest.raises(ValueError, match=message):
        prune(small(), cut)


def test_a_middle_that_is_gone_cannot_be_removed_again():
    once = prune(small(), Cut(middle="removed"))
    with pytest.raises(ValueError, match="has no middle stage"):
        pruned_config(config_of(once), Cut(middle="plain"))


def test_a_cut_whose_layers_have_no_counterpart_is_refused():
    torch.manual_seed(0)
    uneven = UNet2DConditionModel(
        sample_size=8,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=8,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        layers_per_block=1,
    )
    with pytest.raises(ValueError, match="this cut does not fit"):
        prune(uneven, Cut(middle="removed", innermost=True))
