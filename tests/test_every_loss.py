"""What all losses share: one value per sample, of the type that they are given, and no draw from the global
generator."""

import ast
from functools import partial

import pytest
import torch

from distill_lib.diffusion import errors
from distill_lib.guided import encoder, halving, shortcut, stage_one
from distill_lib.paths import ROOT
from distill_lib.sdxs import consistency, critics, feature_matching, one_step, score_distillation, tiny_unet
from distill_lib.teachers import autoencoder, heads

B, D = 4, (3, 8, 8)
T = torch.tensor([16, 400, 700, 1000])
LABEL = torch.zeros(B, dtype=torch.long)


def calls(dtype):
    """Every public loss by name, on random numbers of a type; the answer of the network requires a gradient."""
    a, b = (torch.randn(B, *D, dtype=dtype) for _ in range(2))
    c = torch.randn(B, *D, dtype=dtype, requires_grad=True)
    layers, wanted = [c, c[:, :2]], [a, a[:, :2]]
    head = partial(heads.head_loss, lambda z, t, label: c * z, x=a, eps=b, t=T, label=LABEL)
    return {
        "consistency_loss": lambda: consistency.consistency_loss(lambda z, t: c * z, a, b, T),
        "v_loss": lambda: errors.v_loss(lambda z, t, label: c * z, a, b, T, LABEL),
        "encoding_loss": lambda: encoder.encoding_loss(lambda z, t: c * z, a, b, T),
        "feature_matching_loss": lambda: feature_matching.feature_matching_loss(layers, wanted, (2.0, 1.0), 3),
        "stage_one_loss": lambda: stage_one.stage_one_loss(c, b, a, torch.ones(B, dtype=dtype)),
        "halving_loss": lambda: halving.halving_loss(lambda z, t: c * z, a, b, T),
        "shortcut_loss": lambda: shortcut.shortcut_loss(lambda z, t, n: c * z, a, b, T, torch.full_like(T, 4)),
        "head_loss": lambda: head(head="v", weighting=next(iter(heads.WEIGHTINGS))),
        "output_loss": lambda: tiny_unet.output_loss(c, a),
        "feature_loss": lambda: tiny_unet.feature_loss(layers, wanted),
        "knowledge_loss": lambda: tiny_unet.knowledge_loss(c, a, layers, wanted),
        "square_loss": lambda: one_step.square_loss(c, a),
        "l1_loss": lambda: autoencoder.l1_loss(a, c),
        "perceptual_loss": lambda: autoencoder.perceptual_loss(wanted, layers),
        "critic_loss": lambda: autoencoder.critic_loss(a[:, :1], c[:, :1]),
        "fooling_loss": lambda: autoencoder.fooling_loss(c[:, :1]),
        "adversarial_loss": lambda: autoencoder.adversarial_loss(a[:, :1], b[:, :1], c[:, :1], 0.5),
        "kl_loss": lambda: autoencoder.kl_loss(a, c),
        "coarse_loss": lambda: autoencoder.coarse_loss(a, c, 4),
        "logistic_critic_loss": lambda: critics.logistic_critic_loss(a[:, :1], c[:, :1]),
        "logistic_fooling_loss": lambda: critics.logistic_fooling_loss(c[:, :1]),
        "score_loss": lambda: score_distillation.score_loss(c, a),
    }


NAMES = sorted(calls(torch.float32))


LEARNING = ("diffusion", "teachers", "guided", "sdxs")
MADE = {"decoder_loss", "one_step_loss"}  # these return a loss
BESIDE = {"flow_loss", "contrastive_loss"}  # of the plane and of the small CLIP, tested with their networks


def test_no_loss_is_forgotten_here():
    trees = [ast.parse(path.read_text()) for name in LEARNING for path in (ROOT / "distill_lib" / name).rglob("*.py")]
    public = {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    result = {name for name in public if name.endswith("_loss") and name[0] != "_"}
    assert result - MADE - BESIDE == set(NAMES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_one_value_a_sample_of_its_type_and_draws_nothing(name, dtype):
    loss = calls(dtype)[name]
    before = torch.get_rng_state()
    result = loss()
    assert result.shape == (B,) and result.dtype == dtype and result.requires_grad and result.isfinite().all()
    assert torch.equal(torch.get_rng_state(), before)
