"""The files of the page of live models: words are those of the world, the runtime is checked, points are DDIM's."""

import io
import re
import tarfile
from itertools import product

import onnx
import pytest
import torch

from distill_lib.diffusion.mixture import ToyNetwork
from distill_lib.diffusion.samplers import ddim_step
from distill_lib.networks.adapter import denoise_pair, denoise_student
from distill_lib.networks.runtime import GraphRun
from distill_lib.paths import ROOT
from distill_lib.shipped import live, live_points, onnx_web
from distill_lib.worlds.captions import HELD_OUT, PHRASINGS, WORDS
from distill_lib.worlds.scenes import COLORS, SHAPES, TEXTURES

HTML, JS, CSS = ((ROOT / "site" / "live" / f).read_text() for f in ("index.html", "live.js", "live.css"))


def test_the_classes_of_the_page_are_those_of_the_world():
    part = live.words_table()["pixels"]
    assert (part["shapes"], part["textures"]) == (list(SHAPES), list(TEXTURES)) and part["colors"] == list(COLORS)
    number = 0
    for shape, color, texture in product(range(4), range(8), range(3)):  # the order in which the page counts
        assert part["names"][number] == f"{TEXTURES[texture]} {list(COLORS)[color]} {SHAPES[shape]}"
        number += 1
    assert len(part["names"]) == number


def test_the_page_says_the_words_of_captions_and_no_others():
    part = live.words_table()["prompts"]
    assert part["phrasings"] == list(PHRASINGS) and part["unseen"] == [f"{c} {s}" for c, s in HELD_OUT]
    assert set(re.findall(r"\{\w+\}", " ".join(PHRASINGS))) == set(re.findall(r'replace\("(\{\w+\})"', JS))
    phrases = {word for text in part["phrasings"] for word in re.sub(r"\{\w+\}", "", text).split()}
    named = {*part["shapes"], *part["colors"], *part["textures"]} - {"plain"}  # which is not said
    assert phrases | named | {"a", "an", "small"} == set(WORDS)


def test_the_sources_fetch_nothing_from_elsewhere_and_are_short():
    for text in (HTML, JS, CSS):
        assert len(text.splitlines()) <= 300 and "http:" not in text and "https:" not in text
        assert not re.search(r"""(src|href)=["']?(//|data:(?!,))|@import|url\(""", text)


def test_every_control_of_the_page_has_a_label_and_every_name_of_the_script_exists():
    ids = set(re.findall(r'\bid="([\w-]+)"', HTML))
    assert set(re.findall(r'\$\("([\w-]+)"\)', JS)) <= ids
    for name in ("points", "pixels", "prompts"):  # of the script's templates
        assert {f"{name}-load", f"{name}-status", f"{name}-controls"} <= ids
    controls = re.findall(r'<(?:input|select) id="([\w-]+)"', HTML)
    assert len(controls) == 5 and all(f'<label for="{name}">' in HTML for name in controls)
    assert HTML.count("<fieldset") == HTML.count("<legend>")


def test_a_model_that_is_too_large_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setitem(live.LARGEST, "points", 10)
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (float[1] x) => (float[1] y) {y = Neg(x)}'
    )
    with pytest.raises(ValueError, match=r"points-1 takes 0\.0 MB, and a model of points has 1e-05 MB at most"):
        live.write_graph(tmp_path, "points-1", graph, "points")
    assert [*tmp_path.iterdir()] == []


def test_the_sum_of_a_package_is_that_of_npm_and_a_spoiled_package_is_refused(tmp_path, monkeypatch):
    empty = "z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="
    assert onnx_web.integrity(b"") == f"sha512-{empty}"  # of the SHA-512 standard
    assert onnx_web.VERSION in onnx_web.URL
    monkeypatch.setattr(onnx_web.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"spoiled"))
    with pytest.raises(
        ValueError, match=r"onnxruntime-web-1.30.0.tgz is not onnxruntime-web 1.30.0: its sum is sha512-"
    ):
        onnx_web.package(tmp_path / "cache")
    assert [*tmp_path.iterdir()] == []


def test_without_a_network_a_sentence_says_which_file_to_put_where(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(onnx_web.urllib.request, "urlopen", offline)
    with pytest.raises(ValueError, match=r"no route to host.*fetch https://registry.npmjs.org/.*put the file at .*tgz"):
        onnx_web.package(tmp_path)


def packed(*names):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return file.getvalue()


def test_three_files_of_the_package_are_taken():
    assert onnx_web.unpacked(packed("more.js", *onnx_web.FILES)) == {name: name.encode() for name in onnx_web.FILES}
    with pytest.raises(ValueError, match=r"holds no file dist/ort-wasm-simd-threaded.wasm"):
        onnx_web.unpacked(packed(*onnx_web.FILES[:2]))
    assert [name in JS for name in onnx_web.FILES] == [True, False, False]  # the runtime loads the others itself


@pytest.mark.parametrize("teacher", [False, True])
def test_a_graph_of_points_makes_one_step_of_ddim_for_any_batch(teacher):
    net = ToyNetwork(5)
    run = GraphRun(live_points.teacher_graph() if teacher else live_points.student_graph(net))
    label, w, z = torch.arange(7) % 5, torch.linspace(0, 4, 7), torch.randn(7, 2)
    denoise = denoise_pair(live_points.TEACHER, label, w) if teacher else denoise_student(net, label, w)
    for t, s in ((1024, 512), (512, 0)):
        with torch.no_grad():
            wanted = ddim_step(denoise, z, torch.full((7,), t), torch.full((7,), s))
        z_s = run(z=z, t=torch.tensor(t), s=torch.tensor(s), label=label, w=w)
        assert (wanted - z).abs().max() > 0.01 and torch.allclose(z_s, wanted, atol=1e-4)
