"""The house plan, enforced: which room may import which, no cycles, and nothing that runs code out of a data file."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "metalora_jax"
ROOMS = (
    *(
        "fields",
        "types",
        "words",
        "trees",
        "machine",
        "adapters",
        "meta",
        "data",
        "policies",
        "envs",
        "adaptation",
        "training",
        "evaluation",
    ),
    *("serving", "robot", "commands"),
)
STRANGERS = {
    frozenset({"meta", "policies"}),  # a meta-method knows a loss, never a model
    frozenset({"data", "policies"}),  # what a policy asks of its inputs reaches the data as a Preprocessor
}
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec"}

Sources = dict[str, str]  # dotted module name -> source text; a package's own name stands for its __init__


def package_sources() -> Sources:
    sources = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return sources


def imports(module: str, source: str, known: set[str], is_package: bool) -> set[str]:
    """The modules of this package that `module` imports, anywhere in its text (a lazy import is an edge too)."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".")
                here = here[: len(here) - node.level + is_package]
                base = ".".join(here + ([base] if base else []))
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names}
    return {name for name in found if name.split(".")[0] == PACKAGE}


def import_graph(sources: Sources) -> dict[str, set[str]]:
    packages = {name.rpartition(".")[0] for name in sources} | {PACKAGE}
    return {name: imports(name, text, set(sources), name in packages) for name, text in sources.items()}


def room(module: str) -> str | None:
    """The room a module belongs to; None for the package itself."""
    return module.split(".")[1] if "." in module else None


def violations(sources: Sources) -> list[str]:
    """One line for every module outside the rooms, upward edge, edge between strangers, and cycle."""
    found = [f"{m} is in no room of the house plan" for m in sources if room(m) not in (None, *ROOMS)]
    if found:
        return found
    graph = import_graph(sources)
    for module, targets in graph.items():
        for target in sorted(targets):
            above, below = room(module), room(target)
            if above is None or below is None:  # the package's __init__ stays empty of both
                if above is None and below is not None:
                    found.append(f"{module} imports {target}: the package itself imports no room")
                continue
            if below not in ROOMS:
                found.append(f"{module} imports {target}, which is in no room")
            elif frozenset({above, below}) in STRANGERS:
                found.append(f"{module} imports {target}: {above} and {below} never import each other")
            elif ROOMS.index(below) > ROOMS.index(above):
                found.append(f"{module} imports {target}: an upward edge")
    try:
        graphlib.TopologicalSorter({m: targets - {m} for m, targets in graph.items()}).prepare()
    except graphlib.CycleError as error:
        found.append("import cycle: " + " <- ".join(error.args[1]))
    return found


def unsafe(source: str) -> Iterator[str]:
    """What in a source text could run code from a data file, with its line number."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"line {node.lineno}: import {n}" for n in names if n.split(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in UNSAFE_CALLS:
                yield f"line {node.lineno}: {name}()"
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                    yield f"line {node.lineno}: {name}(allow_pickle={ast.unparse(keyword.value)})"


def test_package_follows_the_house_plan():
    assert violations(package_sources()) == []


@pytest.mark.parametrize("folder", [PACKAGE, "experiments", "configs", "tests"])
def test_no_unsafe_deserialisation(folder):
    found = [f"{p.relative_to(ROOT)} {u}" for p in sorted((ROOT / folder).rglob("*.py")) for u in unsafe(p.read_text())]
    assert found == []


@pytest.mark.parametrize(
    ("sources", "complaint"),
    [
        ({"trees": "import metalora_jax.meta.inner", "meta.inner": ""}, "upward edge"),
        ({"trees": "def f():\n  from metalora_jax.data import tasks", "data.tasks": ""}, "upward edge"),
        ({"adapters.lora": "from ..training import loop", "training.loop": ""}, "upward edge"),
        ({"policies.flow": "from metalora_jax import meta", "meta": ""}, "never import each other"),
        ({"meta.inner": "from metalora_jax.policies.flow import loss", "policies.flow": ""}, "never import each"),
        ({"data.a": "from metalora_jax.data import b", "data.b": "from . import a"}, "import cycle"),
        ({"utils": ""}, "in no room"),
    ],
)
def test_the_check_bites(sources, complaint):
    [found] = violations({f"{PACKAGE}.{name}": text for name, text in sources.items()})
    assert complaint in found


def test_downward_edges_pass():
    sources = {"trees": "import jax", "data.a": "from metalora_jax import trees\nfrom .b import c", "data.b": ""}
    assert violations({f"{PACKAGE}.{name}": text for name, text in sources.items()}) == []


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import loads", "np.load(f, allow_pickle=True)", "torch.load(f)"),
        *("yaml.load(f)", "eval(text)", "import cloudpickle as c"),
    ],
)
def test_the_lint_bites(source):
    assert len(list(unsafe(source))) == 1


@pytest.mark.parametrize("source", ["np.load(f, allow_pickle=False)", "yaml.safe_load(f)", "jax.eval_shape(f)"])
def test_the_lint_lets_safe_loaders_pass(source):
    assert list(unsafe(source)) == []
