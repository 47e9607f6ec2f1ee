"""An exported graph draws PyTorch's picture, and the lines of its README do so without PyTorch."""

import json
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_pipelines import tiny_pipeline
from transformers import CLIPTokenizer

from distill_lib.diffusion.pixels import from_patches
from distill_lib.diffusion.samplers import sample
from distill_lib.measure.readers.attributes import prompt_accuracy, read_attributes
from distill_lib.networks.adapter import Network, denoise_student
from distill_lib.networks.graphs import OPERATORS, operators
from distill_lib.networks.pipeline import open_pipeline, tokens_of
from distill_lib.networks.runtime import GraphRun
from distill_lib.networks.unet import build_unet, student_of
from distill_lib.shipped import export_onnx as shipping
from distill_lib.shipped import pretrained
from distill_lib.shipped.export_onnx import export_onnx, ids_of, tokens_table
from distill_lib.worlds.captions import drawn_attributes, say

NO_TORCH = "import sys\nfor name in ('torch', 'diffusers', 'transformers'):\n    sys.modules[name] = None\n"


def reads_w(unet):
    """A student that w matters to."""
    student = student_of(unet)
    torch.nn.init.normal_(student.time_embedding.cond_proj.weight, std=0.1)
    return student.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A student of three classes in pixels, and its exported folder."""
    net = Network(reads_w(build_unet(resolution=8, n_classes=3, channels=(16,))), bf16=False)
    return net, export_onnx(tmp_path_factory.mktemp("classes") / "student", None, net, 4, 3.0, "About.")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """A model of prompts with a student that takes w, and its exported folder."""
    folder = tmp_path_factory.mktemp("prompts")
    tiny_pipeline("v_prediction", levels=1).save_pretrained(folder / "pipe")
    model = open_pipeline(folder / "pipe", bf16=False)
    net = model.network.like(reads_w(model.network.module))
    return model, net, export_onnx(folder / "student", model, net, 4, 3.0, "About.")


def seen(image):
    return (image / 2 + 0.5).clamp(0, 1)


def drawn_by_readme(folder):
    """The picture (1, 3, R, R) in [0, 1] that the lines of a README draw where nothing of PyTorch can be imported."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) <= 10
    subprocess.run([sys.executable, "-c", NO_TORCH + code], cwd=folder, check=True)
    head, pixels = (folder / "picture.ppm").read_bytes().split(b"\n", 1)
    kind, width, height, most = head.split()
    assert (kind, most) == (b"P6", b"255")
    image = np.frombuffer(pixels, np.uint8).reshape(int(height), int(width), 3)
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255


def noise_of_readme(shape):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((1, *shape), np.float32))


@pytest.mark.parametrize("n_steps", [1, 4])
def test_a_graph_of_classes_draws_our_picture_for_any_batch_w_and_steps(classes, n_steps):
    net, folder = classes
    run = GraphRun(onnx.load(folder / "model.onnx"))
    label, w, z_T = torch.tensor([0, 2, 1]), torch.tensor([0.0, 1.0, 3.0]), torch.randn(3, *net.shape)
    wanted = seen(from_patches(sample(denoise_student(net, label, w), z_T, n_steps)))
    assert (wanted[0] - wanted[1]).abs().max() > 0.1
    for part in (slice(3), slice(1, 2)):
        image = run(label=label[part], noise=z_T[part], w=w[part], steps=torch.tensor(n_steps))
        assert torch.allclose(image, wanted[part], atol=1e-4)  # float32


def test_a_graph_of_prompts_draws_our_picture_for_any_batch_and_w(prompts):
    model, net, folder = prompts
    words = say(drawn_attributes(3, 1))
    w, z_T = torch.tensor([0.0, 1.0, 3.0]), torch.randn(3, *net.shape)
    wanted = seen(net.decode(sample(denoise_student(net, model.states(words), w), z_T, 4, net.schedule)))
    run, ids = GraphRun(onnx.load(folder / "model.onnx")), tokens_of(model.pipe, words)
    image = run(ids=ids, noise=z_T, w=w, steps=torch.tensor(4))
    assert wanted.std() > 0.05 and torch.allclose(image, wanted, atol=1e-4)
    assert torch.allclose(run(ids=ids[:1], noise=z_T[:1], w=w[:1], steps=torch.tensor(4)), image[:1], atol=1e-5)


def test_the_lines_of_a_readme_draw_our_picture_without_pytorch(classes, prompts):
    net, folder = classes
    w, z_T = torch.ones(1), noise_of_readme(net.shape)
    wanted = seen(from_patches(sample(denoise_student(net, torch.tensor([0]), w), z_T, 4)))
    assert torch.allclose(drawn_by_readme(folder), wanted, atol=0.6 / 255)  # rounded to bytes
    model, net, folder = prompts
    prompt = re.search(r'in "(.+?)"\.split', (folder / "README.md").read_text())[1]
    z_T = noise_of_readme(net.shape)
    wanted = seen(net.decode(sample(denoise_student(net, model.states([prompt]), w), z_T, 4, net.schedule)))
    assert torch.allclose(drawn_by_readme(folder), wanted, atol=0.6 / 255)


def test_a_program_may_fix_the_batch_as_it_loads_the_file(classes):
    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name("batch", 1)
    session = onnxruntime.InferenceSession(classes[1] / "model.onnx", options)
    assert {x.name: x.shape for x in session.get_inputs()} == {
        "label": [1], "noise": [1, 12, 4, 4], "w": [1], "steps": []
    }  # fmt: skip


@pytest.mark.parametrize("file", ["model.onnx", "model-int8.onnx"])
def test_a_graph_is_one_file_of_operators_that_a_browser_has(classes, prompts, file):
    for *_, folder in (classes, prompts):
        graph = onnx.load(folder / file, load_external_data=False)
        assert operators(graph) <= OPERATORS and not graph.functions
        assert [(x.domain, 17 <= x.version <= 21) for x in graph.opset_import] == [("", True)]
        assert {path.name for path in folder.iterdir()} - {"picture.ppm", "tokens.json"} == {
            "README.md", "model.onnx", "model-int8.onnx"
        }  # fmt: skip


def test_the_table_of_tokens_reads_prompts_as_the_tokenizer_does(prompts):
    model, _, folder = prompts
    tokens = json.loads((folder / "tokens.json").read_text())
    words = say(drawn_attributes(20, 3), torch.arange(20) % 6)
    assert [ids_of(prompt, tokens) for prompt in words] == tokens_of(model.pipe, words).tolist()


def test_a_tokenizer_that_cuts_words_has_no_table(prompts, monkeypatch):
    pipe = prompts[0].pipe
    letters = CLIPTokenizer(vocab=pipe.tokenizer.get_vocab(), merges=[], model_max_length=99)
    monkeypatch.setattr(pipe, "tokenizer", letters)
    with pytest.raises(ValueError, match="this tokenizer, of 120 entries, is no list of the words of captions"):
        tokens_table(prompts[0])


def test_what_has_no_graph_is_refused_in_a_sentence_and_leaves_an_older_folder_whole(prompts, tmp_path):
    model, net, _ = prompts
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "README.md").write_text("old")
    teacher = model.network
    cases = [
        ((model, teacher, 1, 3.0), "this student takes no w, so that none can be given: w_max=3.0"),
        ((model, net, 4, None), "this student takes w, so that its largest is needed"),
        ((model, teacher, 4, None), "a student without w has a graph of one step from a prompt alone, not of steps=4"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            export_onnx(tmp_path / "old", *arguments, "About.")
    with pytest.raises(ValueError, match="teacher-textured is no student with a graph; choose one of onestep-scenes"):
        shipping.export_shipped("teacher-textured", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and (tmp_path / "old" / "README.md").exists()


@pytest.mark.slow
def test_the_shipped_student_of_one_step_draws_as_well_in_8_bits_at_a_quarter_of_the_size(tmp_path):
    folder = shipping.export_shipped("onestep-scenes", tmp_path / "onestep-scenes")
    files = folder / "model.onnx", folder / "model-int8.onnx"
    assert files[1].stat().st_size < 0.27 * files[0].stat().st_size
    model = pretrained.pipeline()
    net = pretrained.one_step("scenes", model).exact()
    wanted_attributes = drawn_attributes(32, 5)
    words, z_T = say(wanted_attributes), torch.randn(32, *net.shape)
    with torch.no_grad():
        x = sample(lambda z_t, t: net(z_t, t, model.states(words)), z_T, 1, net.schedule)
        wanted = seen(net.decode.tiny.decoder(x))
    images = [GraphRun(onnx.load(file))(ids=tokens_of(model.pipe, words), noise=z_T) for file in files]
    assert torch.allclose(images[0], wanted, atol=1e-4)
    reader = pretrained.attribute_reader()
    right = [prompt_accuracy(read_attributes(reader, (255 * x).round().byte()), wanted_attributes) for x in images]
    assert right[0].mean() > 0.8 and (right[0] != right[1]).sum() <= 2
    assert (images[0] - images[1]).abs().mean() < 1 / 255
    prompt = re.search(r'in "(.+?)"\.split', (folder / "README.md").read_text())[1]
    with torch.no_grad():
        x = sample(lambda z_t, t: net(z_t, t, model.states([prompt])), noise_of_readme(net.shape), 1, net.schedule)
        assert torch.allclose(drawn_by_readme(folder), seen(net.decode.tiny.decoder(x)), atol=0.6 / 255)
