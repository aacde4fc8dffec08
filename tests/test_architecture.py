"""Who may import whom (docs/architecture.md), how long things may be, and how light `--help` is."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
TREES = ("perceiver_ar", "training", "app", "tests", "benchmarks")

LAYERS = (
    {"config", "files", "interrupts", "memory", "registry"},
    {"fills"},
    {"ahead", "positions", "cache", "kernels", "products"},
    {"attention"},
    {"model"},
    {"sampling"},
    {"codecs"},
    {"generate"},
    {"checkpoint"},
    {"continuation", "render", "soundbank", "report"},
    {"cli"},
)
"""Modules of `perceiver_ar`; one imports those of its own line and of the lines above."""

ARROWS = {"perceiver_ar": set(), "training": {"perceiver_ar"}, "app": {"perceiver_ar"}}
"""Which of our packages each may import beside itself."""

OWNERS = {
    "gradio": ("app",),
    "optax": ("training",),
    "orbax": ("training",),
    "grain": ("training",),
    "tensorboardX": ("training",),
    "note_seq": ("perceiver_ar.codecs",),
    "pretty_midi": ("perceiver_ar.codecs",),
    "llvmlite": ("perceiver_ar.kernels",),
    "sentencepiece": ("perceiver_ar.codecs.text", "training.data.text"),
    "apache_beam": ("training.data.beam",),
    "datasets": ("training.data.hub",),
    "fsspec": ("training.data.hub",),
}
"""The only places that may import a package."""

OPTIONAL = {"apache_beam", "datasets", "fsspec", "sentencepiece", "wandb"}
"""Packages that an installation may lack: whoever needs one gets a sentence that says so."""

LAZY = {"note_seq", "pretty_midi"} | OPTIONAL
"""Packages that take seconds to import, or may be missing: inside functions only."""


class Import(NamedTuple):
    """`module` imports `target`: a full dotted name, with what is taken from it where that is a module of ours."""

    module: str
    target: str
    line: int
    top: bool
    """Run when the module is imported, not inside a function or for type checkers alone."""

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


@cache
def sources(tree: str) -> dict[str, tuple[Path, ast.Module]]:
    """Dotted name -> path and syntax tree of every Python file below a top-level folder."""
    found = {}
    for path in sorted((ROOT / tree).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = path, ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: str) -> list[Import]:
    """Every import of a folder's files."""
    modules = set().union(*(sources(tree) for tree in ARROWS))
    found = []
    for name, (_, parsed) in sources(tree).items():
        for target, line, top in _imports(parsed, top=True):
            whole = ".".join(target)
            found.append(Import(name, whole if whole in modules else target[0], line, top))
    return found


def _imports(node: ast.AST, *, top: bool) -> Iterator[tuple[tuple[str, str], int, bool]]:
    """((module, name taken from it), line, runs at import) of every import below `node`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (((alias.name, ""), child.lineno, top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: write imports in full"
            yield from (((child.module or "", alias.name), child.lineno, top) for alias in child.names)
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _imports(child, top=top and not later and not typing)


def rank(module: str) -> int:
    """Line of `LAYERS` that a module of `perceiver_ar` stands on; the package itself may be imported by all."""
    parts = module.split(".")
    if len(parts) == 1:
        return -1
    lines = [number for number, line in enumerate(LAYERS) if parts[1] in line]
    assert lines, f"{module} has no place in LAYERS: give it one, and docs/architecture.md too"
    return lines[0]


@pytest.mark.parametrize("tree", ARROWS)
def test_packages_import_only_what_they_may(tree: str) -> None:
    wrong = [
        found
        for found in imports(tree)
        if (package := found.target.split(".")[0]) in {*ARROWS, "tests", "benchmarks"}
        and package not in {tree, *ARROWS[tree]}
    ]
    assert not wrong, "\n".join(map(str, wrong))


def test_layers_are_the_modules_that_there_are() -> None:
    there = {path.stem for path in (ROOT / "perceiver_ar").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set().union(*LAYERS) == there - {"__init__", "__pycache__", "assets"}


def test_modules_import_downwards() -> None:
    inside = [found for found in imports("perceiver_ar") if found.target.startswith("perceiver_ar")]
    wrong = [found for found in inside if rank(found.target) > max(rank(found.module), 0)]
    assert not wrong, "\n".join(map(str, wrong))


def test_codecs_know_neither_jax_nor_the_model() -> None:
    codecs = [found for found in imports("perceiver_ar") if found.module.startswith("perceiver_ar.codecs")]
    ours = tuple(f"perceiver_ar.{name}" for name in ("codecs", "config", "files"))
    wrong = [
        found
        for found in codecs
        if found.target.split(".")[0] in {"jax", "flax"}
        or (found.target.startswith("perceiver_ar") and not found.target.startswith(ours))
    ]
    assert codecs
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("package", sorted(OWNERS.keys() | LAZY))
def test_packages_stay_with_their_owners(package: str) -> None:
    found = [found for tree in ARROWS for found in imports(tree) if found.target.split(".")[0] == package]
    wrong = [one for one in found if not one.module.startswith(OWNERS.get(package, tuple(ARROWS)))]
    assert not wrong, "\n".join(map(str, wrong))
    if package in LAZY:
        slow = [one for one in found if one.top]
        assert not slow, "import it inside a function:\n" + "\n".join(map(str, slow))


@pytest.mark.parametrize(
    ("tree", "extras"), [("perceiver_ar", ()), ("training", ("train",)), ("app", ("app",))]
)
def test_imports_are_declared(tree: str, extras: tuple[str, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        one for name in extras for one in project["optional-dependencies"][name]
    ]
    declared = {_normal(re.split(r"[^\w.-]", one)[0]) for one in wanted} | {"jaxlib"}
    providers = packages_distributions()
    for found in imports(tree):
        package = found.target.split(".")[0]
        if package in sys.stdlib_module_names or package in ARROWS or package in OPTIONAL:
            continue
        names = {_normal(name) for name in providers.get(package, ())}
        assert names & declared, f"{found}: not in pyproject.toml's dependencies for {tree}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("tree", TREES)
def test_files_and_functions_are_short(tree: str) -> None:
    """At most 400 lines a file, 60 a function; ruff counts the arguments."""
    wrong = []
    for name, (path, parsed) in sources(tree).items():
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400:
            wrong.append(f"{name}: {lines} lines")
        for node in ast.walk(parsed):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > 60:
                    wrong.append(f"{name}.{node.name}: {length} lines")
    assert not wrong, "\n".join(wrong)


def test_help_imports_nothing_slow() -> None:
    script = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from perceiver_ar.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "slow = {'jax', 'flax', 'note_seq', 'pretty_midi', 'gradio', 'numba', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(slow)}' if slow else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "continue" in done.stdout


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/*.md")), ids=lambda path: path.name
)
def test_documents_point_to_what_exists(page: Path) -> None:
    """Relative links, and make targets named in commands."""
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing, f"{page.name} links to {missing}"
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^\s*make ([a-z]+)", text, re.MULTILINE))
    assert named <= targets, f"{page.name} names make targets that do not exist: {named - targets}"
