"""The design's rules, read off the syntax trees: who may import whom, how long things may be, and what may stand nowhere."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = [*sorted((ROOT / "cmp").rglob("*.py")), ROOT / "app.py"]
LONGEST_MODULE = 300
LONGEST_FUNCTION = 40


@dataclass(frozen=True)
class Layer:
    """What a folder of `cmp/` may import: of ours, of others, and of ours only within functions, so that it costs nothing until used.

    `ours` names layers, or single modules of one.
    """

    ours: str
    others: str = ""
    inside: str = ""


# "version" is cmp/__init__.py, which holds the version and nothing else
LAYERS = {
    "version": Layer(""),
    "errors": Layer(""),
    "settings": Layer("errors", "platformdirs"),
    "core": Layer("errors core", "numpy"),
    "disk": Layer("version errors core disk", "numpy safetensors tensorboard google yaml filelock huggingface_hub fsspec"),
    "pictures": Layer("errors core pictures", "PIL numpy matplotlib"),
    "engine": Layer("version errors core disk pictures engine", "torch diffusers peft transformers safetensors PIL numpy ray"),
    "viewer": Layer("errors core viewer", "plotly"),
    "jobs": Layer("errors core disk jobs"),
    "workbench": Layer("version errors settings core disk jobs workbench", inside="pictures viewer engine"),
    # a page and a command name what a verb takes and gives: Answers, Job
    "ui": Layer("version errors core disk.ready jobs workbench viewer ui", "gradio plotly pandas matplotlib numpy"),
    "rest": Layer("version errors core disk.ready workbench viewer guard rest", "fastapi pydantic starlette"),
    "exports": Layer("errors core workbench guard", "starlette", inside="ui"),
    "ballots": Layer("errors core workbench viewer guard", "starlette"),
    "guard": Layer("errors core workbench rules", "starlette"),
    # whom a server lets in, and the bounds of connections
    "rules": Layer("errors core"),
    "connections": Layer("core"),
    "notices": Layer("workbench", "starlette"),
    # what is told of events, and how a server ends
    "journal": Layer("errors"),
    "ending": Layer("workbench"),
    "server": Layer(
        "errors settings core workbench viewer guard connections journal ending",
        "fastapi starlette gradio",
        inside="rest ui exports ballots notices",
    ),
    "tools": Layer("errors settings core workbench", "mcp"),
    "cli": Layer("errors settings core disk.ready disk.converted workbench cli", "typer", inside="server tools pictures viewer"),
    "__main__": Layer("cli"),
    "zero_gpu": Layer("errors core workbench", "spaces gradio httpx"),
    "app": Layer("errors settings server workbench zero_gpu"),
}

# Signatures and layouts that are read from top to bottom, and which splitting would only scatter: (module, function, why)
EXEMPT: dict[tuple[str, str], str] = {}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def layer_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "app" if parts == ("app",) else "version" if parts == ("cmp", "__init__") else parts[1]


def imports(node: ast.AST, within: bool = False) -> Iterator[tuple[str, bool, int]]:
    """Every imported module's full name, whether it is imported within a function only, and the line; what only types see counts not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, within, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are written in full"
            names = [f"{child.module}.{alias.name}" for alias in child.names] if child.module == "cmp" else [str(child.module)]
            yield from ((name, within, child.lineno) for name in names)
        else:
            yield from imports(child, within or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


def breaches(path: Path) -> Iterator[str]:
    layer = LAYERS[layer_of(path)]
    for module, within, line in imports(tree_of(path)):
        first, *rest = module.split(".")
        if first == "cmp":
            wanted = rest[0] if rest and rest[0] != "__version__" else "version"
            allowed = bool({wanted, ".".join(rest[:2])} & set(layer.ours.split())) or (within and wanted in layer.inside.split())
        else:
            allowed = first in sys.stdlib_module_names or first in layer.others.split()
        if not allowed:
            yield f"{name_of(path)}:{line} imports {module}"


def test_every_module_belongs_to_a_layer() -> None:
    assert {layer_of(path) for path in MODULES} <= set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    assert list(breaches(path)) == []


def test_ray_is_imported_in_one_module_only_and_not_before_it_is_asked_for() -> None:
    found = {(name_of(path), within) for path in MODULES for module, within, _ in imports(tree_of(path)) if module.split(".")[0] == "ray"}
    assert found == {("cmp/engine/ray_cluster.py", True)}


def test_no_module_is_longer_than_a_page_or_two() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: n for name, n in lengths.items() if n >= LONGEST_MODULE} == {}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """typer takes a command's options from its signature, one a line."""
    return any(ast.unparse(mark).startswith(("app.command", "app.callback")) for mark in function.decorator_list)


def test_no_function_is_longer_than_a_screen_but_commands_and_those_with_a_reason() -> None:
    long = {
        (name_of(path), function.name)
        for path in MODULES
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno >= LONGEST_FUNCTION and not (layer_of(path) == "cli" and is_command(function))
    }
    assert long - set(EXEMPT) == set()
    assert set(EXEMPT) - long == set(), "these are short now: take them out of EXEMPT"


def handlers(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            kinds = [
                ast.unparse(kind) for kind in (node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type else [])
            ]
            if not kinds or set(kinds) & {"Exception", "BaseException"}:
                yield f"{name_of(path)}:{node.lineno}"


def test_everything_is_caught_only_by_the_two_loops_that_must_survive_it() -> None:
    found = [place for path in MODULES for place in handlers(path)]
    assert [place.split(":")[0] for place in found] == ["cmp/engine/draw.py", "cmp/workbench/alerting.py"], found


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_executes_what_it_reads(path: Path) -> None:
    executing = {"pickle", "dill", "cloudpickle", "shelve", "marshal"}
    assert [module for module, _, _ in imports(tree_of(path)) if module.split(".")[0] in executing] == []
    for call in calls(path):
        called = ast.unparse(call.func)
        told = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert called not in ("eval", "exec", "compile", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system"), called
        assert called != "torch.load" or told.get("weights_only") == "True", f"{name_of(path)}:{call.lineno}"
        assert told.get("trust_remote_code", "False") == "False" and told.get("allow_pickle", "False") == "False"
        assert told.get("shell", "False") == "False"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_environment_is_read_at_the_entrances_only(path: Path) -> None:
    used = [node.lineno for node in ast.walk(tree_of(path)) if ast.unparse(node) in ("os.environ", "os.getenv", "os.environb", "os.putenv")]
    # the server sets what gradio reads when it is imported
    assert not used or name_of(path) in ("app.py", "cmp/settings.py", "cmp/cli/__init__.py", "cmp/server.py")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_has_state_that_changes(path: Path) -> None:
    tree = tree_of(path)
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Global)]
    made = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None]
    empty = [node.lineno for node in made if ast.unparse(node.value) in ("[]", "{}", "set()", "dict()", "list()")]  # type: ignore[arg-type]
    assert empty == [], "it can only be meant to be filled"


def test_listing_runs_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    code = (
        "import sys, json, atexit\n"
        "heavy = 'torch gradio pandas matplotlib diffusers transformers peft plotly fastapi PIL pydantic tarfile'.split()\n"
        "heavy += ['cmp.cli.' + verb for verb in ('making', 'drawing', 'serving')] + ['cmp.core.grids', 'cmp.disk.planning']\n"
        "atexit.register(lambda: print('LOADED', json.dumps([m for m in heavy if m in sys.modules])))\n"
        f"sys.argv = ['cmp', '--runs', {str(tmp_path / 'runs')!r}, 'list', '--json']\n"
        "from cmp.cli import main\nmain()\n"
    )
    around = {"PATH": "/usr/bin:/bin", "CMP_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=around, capture_output=True, text=True, timeout=60, check=False)
    told, _, loaded = ended.stdout.partition("LOADED")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(told)["runs"] == [] and json.loads(loaded) == []
