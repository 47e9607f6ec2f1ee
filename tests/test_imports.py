"""The library is read from top to bottom: imports point up this list only, and what is public says what it is."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "distill_lib"

READING_ORDER = """
    paths reach messages bounds noise specs files store precision schedules samplers solvers guidance
    doors folders models
    worlds.seeds worlds.sketch worlds.clay worlds.scenes worlds.captions worlds.files worlds.folders worlds.datasets
    canny worlds.controls
    losses.denoising losses.guided losses.halving losses.heads encoding losses.encoding
    losses.reconstruction losses.one_step losses.knowledge losses.feature_matching losses.score losses.consistency
    pruning
    interrupts trainable training
    methods.teacher methods.guidance_distillation methods.step_halving methods.encoder_halving methods.head_teacher
    methods.autoencoder methods.tiny_decoder methods.unet_distillation methods.consistency text
    toy extractor geometry layout attributes matchers metrics nearest pipelines
    methods.pair_regression crossing methods.score_distillation methods.adversarial_tuning seeing sdxs lora_files lora
    small_diffusion inpainting evaluation prompting judging editing export artefacts
    controlnet methods.control_distillation control
    profiles.reading profiles
    pretrained shipping making_sdxs making_lora making_control text_to_image one_step_trials rivals
    making students hardness ablations transfer shrinking looks lora_trials costs speed steering control_trials
    figures figures_small figures_one_step figures_speed
    papers.manifest papers.claims true_scale readme bench
    run.notebooks run.settings run.stale run.guard run.processes run.executing run.drawing run.comparing run.publishing
    run.__main__ run.chaos
""".split()


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__").removesuffix("__init__")


def has_code(path):
    """Packages with nothing but a docstring are no chapter of their own."""
    return path.name != "__init__.py" or len(ast.parse(path.read_text()).body) > 1


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py")) if has_code(path)}


def imports(path):
    """Modules of the library that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full; the keys of runs follow only those"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.removeprefix("distill_lib.") in FILES and name.startswith("distill_lib."):
                yield name.removeprefix("distill_lib.")


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_imported_by_a_name_made_at_run_time(name):
    tree = ast.parse(FILES[name].read_text())
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    named |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named |= {alias.name for alias in node.names} | {getattr(node, "module", None)}
    # `importlib.metadata` reads versions and `importlib.resources` files: neither imports
    assert named.isdisjoint({"__import__", "importlib", "import_module", "runpy", "run_module", "pkgutil"})


def test_samplers_are_called_by_name_in_one_place_alone():
    """A second dispatch would draw by one sampler and time by another."""
    drawn = {"sample_stochastic", "sample_ancestral", "sample_consistency"}
    for name, path in FILES.items():
        nodes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom))
        found = {alias.name for node in nodes for alias in node.names}
        assert name == "solvers" or found.isdisjoint(drawn), name


def test_the_reading_order_names_every_module_once():
    assert len(set(READING_ORDER)) == len(READING_ORDER)
    assert set(FILES) == set(READING_ORDER)


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_from_modules_above_it(name):
    above = READING_ORDER[: READING_ORDER.index(name)]
    below = sorted(set(imports(FILES[name])) - set(above))
    assert below == []


def public(path):
    """Public functions and classes of a module with their qualified names, and the public methods of those classes."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            for part in node.body if isinstance(node, ast.ClassDef) else []:
                # what `forward` takes and gives stands in the docstring of its class
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_") and part.name != "forward":
                    yield f"{node.name}.{part.name}", part


@pytest.mark.parametrize("name", FILES)
def test_everything_public_has_a_docstring(name):
    tree = ast.parse(FILES[name].read_text())
    assert ast.get_docstring(tree)
    assert [found for found, node in public(FILES[name]) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("name", FILES)
def test_all_lists_names_that_exist(name):
    tree = ast.parse(FILES[name].read_text())
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]
    bound = {node.name for node in tree.body if hasattr(node, "name")}
    for node in tree.body:
        for target in [*getattr(node, "targets", []), getattr(node, "target", None)]:
            bound |= {leaf.id for leaf in ast.walk(target) if isinstance(leaf, ast.Name)} if target else set()
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
    assert listed, f"{name} does not say what is public"
    assert set(listed[0]) <= bound
