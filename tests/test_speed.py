"""Costs add up as the paper's do, and a function of ours draws what plain diffusers draws."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from tiny_pipelines import tiny_pipeline

from distill_lib.diffusion.solvers import SAMPLERS
from distill_lib.measure import costs, prompts, systems
from distill_lib.measure.costs import MODULES, module_rows, summed, time_interleaved
from distill_lib.measure.draw import sample_pictures
from distill_lib.measure.rows import select
from distill_lib.measure.systems import (
    System,
    SystemFunction,
    SystemGraph,
    cost_rows,
    first_noise,
    pictures,
    quality_rows,
    seconds_rows,
)
from distill_lib.networks.adapter import Network
from distill_lib.networks.autoencoders import TinyDecode, build_tiny
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.networks.unet import student_of
from distill_lib.report.speed import budget, kind_table, ratio_table, where_time_goes
from distill_lib.run.true_scale import TABLES, reported
from distill_lib.shipped.export import assembled

PROMPT = "a red cube left of a small green sphere"


def value(rows, **wanted):
    (row,) = select(rows, **wanted)
    return row["value"]


@pytest.fixture(params=["v_prediction", "epsilon"])
def plain(request, tmp_path):
    """A tiny random pipeline, and the same behind our adapter."""
    tiny_pipeline(request.param).save_pretrained(tmp_path / "pipe")
    return plain_and_ours(tmp_path / "pipe")


def plain_and_ours(folder):
    """A folder as a pipeline of diffusers and behind our adapter."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe, open_pipeline(folder, bf16=False)


def one_step_of(pipe, model):
    """Its U-Net for one step with a random tiny decoder, as a pipeline of diffusers and as a system."""
    tiny = build_tiny(2, 8, 1).eval().requires_grad_(False)
    net = model.network.like(model.network.module, predicts="v_prediction", decode=TinyDecode(tiny, bf16=False))
    student = assembled(pipe, pipe.unet, tiny)
    student.set_progress_bar_config(disable=True)
    return student, System(model, net, 1, 0.0)


# --- time and sums


def test_all_have_their_turn_in_each_round_and_the_second_of_two_calls_counts(monkeypatch):
    called = []
    clock = iter([0, 1, 0, 10, 0, 3, 0, 30, 0, 2, 0, 999])  # start and end of each counted call
    monkeypatch.setattr(costs, "_now", lambda: next(clock))
    result = time_interleaved({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 3)
    assert "".join(called) == "aabb" * 3
    assert result == {"a": 2, "b": 30}  # medians: one slow round does not count


@pytest.mark.parametrize("artefact", TABLES)
def test_sums_of_the_paper_s_own_milliseconds_are_its_ratios(artefact):
    item, before, after = TABLES[artefact]
    rows = []
    for (system, kind), entry in reported(item).items():
        rows += module_rows(system, kind, int(entry["params"]), 7, entry["latency_ms"] / 1e3, int(entry["nfe"]), 0)
    rows += summed(rows, before, after)
    ratio, pictures_in_time, gain = {"tab-1": (58.5, 30.3, 1.1375), "tab-2": (58.6, 30.5, 1.06)}[item]
    assert value(rows, method=after, metric="sum_ratio") == pytest.approx(ratio, abs=0.1)
    assert value(rows, method=after, metric="gain") == pytest.approx(gain, abs=0.001)
    assert value(rows, method=after, metric="pictures") == pytest.approx(pictures_in_time, abs=0.1)  # "30 pictures"
    for system in (before, after):
        assert sum(row["value"] for row in select(rows, method=system, metric="share")) == pytest.approx(1)
    assert value(rows, method=after, metric="sum_ratio_flops") == 35 / 3  # evaluations alone, at equal operations
    header, lines = ratio_table(rows, before, after, reported(item))
    ours, paper_column = (header.index(name) for name in ("total seconds", "paper: total seconds"))
    assert all(float(line[ours]) == pytest.approx(line[paper_column], rel=0.01) for line in lines)


def test_nfe_of_a_guided_pair_a_student_and_an_unguided_network(plain):
    _, model = plain
    student = model.network.like(student_of(model.network.module), predicts="v_prediction")
    counts = [
        System(model, net, 8, w).evaluations for net, w in ((model.network, 2.0), (model.network, 0.0), (student, 2.0))
    ]
    assert [tuple(objects.values()) for objects in counts] == [(2, 16, 1), (1, 8, 1), (1, 8, 1)]


# --- pictures


@pytest.mark.parametrize("w", [0.0, 2.0])
def test_our_function_draws_the_picture_of_diffusers(plain, w):
    pipe, model = plain
    system = System(model, model.network, 4, w)
    z_T = first_noise(system, 3)
    options = {"num_inference_steps": 4, "guidance_scale": 1 + w, "latents": z_T, "output_type": "pt"}
    reference = pipe(PROMPT, **options).images
    assert reference.std() > 0.05
    assert torch.allclose(SystemFunction(system)(PROMPT, z_T) / 255, reference, atol=0.6 / 255)  # rounded to bytes
    fewer = pipe(PROMPT, **options | {"num_inference_steps": 2}).images
    assert torch.allclose(SystemFunction(system)(PROMPT, z_T, 2) / 255, fewer, atol=0.6 / 255)


def test_a_student_of_one_step_is_drawn_through_its_own_decoder(plain):
    pipe, model = plain
    student, system = one_step_of(pipe, model)
    z_T = first_noise(system, 0)
    reference = student(PROMPT, num_inference_steps=1, guidance_scale=1.0, latents=z_T, output_type="pt").images
    assert torch.allclose(SystemFunction(system)(PROMPT, z_T) / 255, reference, atol=0.6 / 255)


def test_a_graph_by_onnx_runtime_draws_the_picture_of_diffusers(tmp_path):
    tiny_pipeline("epsilon", levels=1).save_pretrained(tmp_path / "pipe")
    pipe, model = plain_and_ours(tmp_path / "pipe")
    z_T = first_noise(System(model, model.network, 4, 2.0), 3)
    guided = SystemGraph(System(model, model.network, 4, 2.0))
    for n in (4, 2):
        options = {"num_inference_steps": n, "guidance_scale": 3.0, "latents": z_T, "output_type": "pt"}
        assert torch.allclose(guided(PROMPT, z_T, n) / 255, pipe(PROMPT, **options).images, atol=0.6 / 255)
    student, system = one_step_of(pipe, model)
    reference = student(PROMPT, num_inference_steps=1, guidance_scale=1.0, latents=z_T, output_type="pt").images
    assert torch.allclose(SystemGraph(system)(PROMPT, z_T) / 255, reference, atol=0.6 / 255)


@pytest.mark.parametrize(("w", "sampler"), [(0.0, "ddim"), (2.0, "dpm++")])
def test_what_no_graph_draws_is_refused(plain, w, sampler):
    _, model = plain
    with pytest.raises(ValueError, match=f"by {sampler.replace('+', '.')} in 4 steps: take the sampler ddim"):
        SystemGraph(System(model, model.network, 4, w, sampler))


def test_half_precision_changes_rounding_and_nothing_of_the_system_itself(plain):
    _, model = plain
    system = System(model, model.network, 2, 1.0)
    z_T = first_noise(system, 0)
    exact, rough = (SystemFunction(system, dtype)(PROMPT, z_T).float() for dtype in (torch.float32, torch.bfloat16))
    assert 0 < (exact - rough).abs().mean() < 4  # of 255; bfloat16 has 8 bits
    assert {p.dtype for p in model.network.module.parameters()} == {torch.float32}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_system_is_timed_by_the_sampler_that_it_is_drawn_by(plain, sampler):
    """What `seconds_rows` times is a `Whole`; what `quality_rows` judges comes from `sample_pictures`."""
    _, model = plain
    system = System(model, model.network, 4, 1.0, sampler)
    judged = sample_pictures(model.network, 4, 1.0, model.states([PROMPT]), 0, sampler)
    timed = SystemFunction(system)(PROMPT, first_noise(system, 0))
    assert (timed.int() - judged.int()).abs().max() <= 1  # of 255
    plainly = sample_pictures(model.network, 4, 1.0, model.states([PROMPT]), 0)
    assert torch.equal(judged, plainly) == (sampler == "ddim")


def test_a_label_of_a_row_is_no_sampler(plain):
    _, model = plain
    with pytest.raises(ValueError, match="sampler='ours-S' is unknown; choose one of ddim, stochastic"):
        System(model, model.network, 4, 1.0, "ours-S")


def test_the_sampler_of_consistency_models_draws_anew_from_the_second_step_on(plain):
    _, model = plain
    student = model.network.like(student_of(model.network.module), predicts="v_prediction")
    net = Network(student.module, bf16=False, null=student.null, schedule=student.schedule, decode=student.decode)
    states = model.states([PROMPT] * 3)

    def drawn(net, n_steps, w, sampler):
        return sample_pictures(net, n_steps, w, states, 1, sampler)

    benchmark = SimpleNamespace(n=3, seed=1, states=states, pictures=drawn)
    for n_steps, alike in ((1, True), (2, False)):
        result = pictures(benchmark, System(model, net, n_steps, 1.0, "consistency"))
        plainly = sample_pictures(net, n_steps, 1.0, benchmark.states, 1)
        assert torch.equal(result, plainly) == alike
    system = System(model, net, 1, 1.0, "consistency")
    assert torch.equal(SystemFunction(system)(PROMPT, first_noise(system, 1))[0], pictures(benchmark, system)[0])


# --- rows


def test_rows_of_a_run_hold_modules_their_sums_and_whole_pictures(plain, monkeypatch):
    pipe, model = plain
    monkeypatch.setattr(systems, "graph_of", SystemFunction)  # an export takes seconds
    student, after = one_step_of(pipe, model)
    both = {"teacher": System(model, model.network, 16, 2.0), "sdxs": after}
    rows = cost_rows(both, {"teacher": pipe, "sdxs": student}, PROMPT, 1, 5, [8])
    assert {row["seed"] for row in rows} == {5}
    for method, system in both.items():
        for kind, (module, _) in system.modules(PROMPT).items():
            assert value(rows, method=method, kind=kind, metric="params") == sum(p.numel() for p in module.parameters())
            item, total = (select(rows, method=method, kind=kind, metric=m)[0] for m in ("seconds", "total"))
            assert (
                total["value"] == item["value"] * system.evaluations[kind] and item["nfe"] == system.evaluations[kind]
            )
    flops = [value(rows, method=name, kind="U-Net", metric="total_flops") for name in both]
    assert flops[0] == 32 * flops[1]  # the same U-Net
    for kind in ("pipeline", "function", "onnx runtime"):
        for steps in (8, 16):
            slow = value(rows, method="teacher", kind=kind, steps=steps, metric="seconds")
            fast = value(rows, method="sdxs", kind=kind, steps=1, metric="seconds")
            assert value(rows, method="sdxs", kind=kind, steps=steps, metric="speedup") == slow / fast
    best = value(rows, method="sdxs", kind="pipeline", steps=16, metric="speedup_best")
    assert best >= value(rows, method="sdxs", kind="pipeline", steps=16, metric="speedup")
    assert {row["kind"] for row in rows if "kind" in row} == {*MODULES, "pipeline", "function", "onnx runtime"}
    header, lines = kind_table(rows)
    assert len(lines) == 9 and all(len(line) == len(header) for line in lines)
    where_time_goes(rows, "teacher", "sdxs", "").savefig("/dev/null", format="png")


def test_compiled_systems_are_timed_as_one_more_way(plain, monkeypatch):
    pipe, model = plain
    student, after = one_step_of(pipe, model)
    calls = []
    monkeypatch.setattr(systems, "graph_of", SystemFunction)
    monkeypatch.setattr(torch, "compile", lambda net, **options: calls.append(type(net).__name__) or net)
    both = {"teacher": System(model, model.network, 16, 2.0), "sdxs": after}
    rows = cost_rows(both, {"teacher": pipe, "sdxs": student}, PROMPT, 1, 5, compiled=True)
    networks = [{type(module).__name__ for module, _ in system.modules(PROMPT).values()} for system in both.values()]
    assert len(calls) == 6 and [set(calls[:3]), set(calls[3:])] == networks
    kinds = {"pipeline", "function", "compiled", "onnx runtime"}
    assert {row["kind"] for row in rows if "kind" in row} == kinds.union(MODULES)
    slow = value(rows, method="teacher", kind="pipeline", metric="seconds")
    fast = min(row["value"] for row in select(rows, method="sdxs", metric="seconds") if row["kind"] not in MODULES)
    assert value(rows, method="sdxs", kind="pipeline", metric="speedup_best") == slow / fast


def test_a_system_is_judged_by_its_own_pictures_and_timed_beside_others(plain, monkeypatch):
    _, model = plain
    monkeypatch.setattr(prompts, "quality", lambda reader, image, real: {"fid": 1.0, "is": 2.0, "recall": 0.5})
    monkeypatch.setattr(prompts, "fid", lambda reader, image, other: (image.float() - other).abs().mean().item())
    states = model.states([PROMPT] * 2)
    teacher = System(model, model.network, 4, 2.0)

    def drawn(net, n_steps, w, sampler="ddim"):
        return sample_pictures(net, n_steps, w, states, 0, sampler)

    benchmark = SimpleNamespace(
        n=2, seed=0, states=states, pictures=drawn, truth=lambda: drawn(model.network, 4, 2.0), real=None,
        judges=SimpleNamespace(reader=None), judged=lambda image: {"clip": 0.25}, world="two",
    )  # fmt: skip
    benchmark.compared = partial(prompts.PromptBenchmark.compared, benchmark)
    same, other = (quality_rows(benchmark, "x", item) for item in (teacher, replace(teacher, sampler="dpm++")))
    assert value(same, metric="fid_teacher") == 0 and value(same, metric="paired") == 0
    assert value(other, metric="fid_teacher") > 0 and value(other, metric="clip") == 0.25
    assert {row["nfe"] for row in same} == {8} and not select(same, metric="is")  # classes say nothing here
    assert value(same, metric="params") == sum(p.numel() for p in model.network.module.parameters())
    timed = seconds_rows([("x", teacher), ("x", replace(teacher, n_steps=2))], PROMPT, 1, 0)
    for n in (4, 2):
        item = [value(timed, steps=n, metric=metric) for metric in ("seconds", "images_per_second")]
        assert item[0] * item[1] == pytest.approx(1)


def test_the_picture_of_a_budget_marks_its_time_and_leaves_out_what_no_logarithm_shows():
    rows = []
    for seed in (0, 1):
        for n in (1, 8, 16):
            columns = {"method": "ddim", "steps": n, "nfe": 2 * n, "seed": seed}
            rows += [
                columns | {"metric": "seconds", "value": 0.1 * n},
                columns | {"metric": "fid_teacher", "value": 16.0 - n},
            ]
        columns = {"method": "sdxs", "steps": 1, "nfe": 1, "seed": seed}
        rows += [columns | {"metric": "seconds", "value": 0.02}, columns | {"metric": "fid_teacher", "value": 5.0}]
    image = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    figure = budget(rows, ["fid_teacher"], "ddim", "sdxs", image, image[:1], "")
    (line, star, limit) = figure.subfigs[0].axes[0].lines
    assert list(line.get_xdata()) == pytest.approx([0.1, 0.8]) and list(star.get_ydata()) == [5]
    assert limit.get_xdata()[0] == pytest.approx(0.8)  # 16 evaluations are 8 guided steps
