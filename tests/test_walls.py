"""The walls of the house: which room may import which, no import circle, and no clock or dice in the pure files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("trial_sdk", "engine", "tuners", "nas", "training_services", "cli", "portal")
ARROWS = {
    "trial_sdk": set[str](),
    "engine": {"trial_sdk"},
    "tuners": {"engine"},
    "nas": {"engine", "trial_sdk"},
    "training_services": {"engine", "trial_sdk"},
    "portal": {"engine"},
    "cli": {"engine", "portal"},
}
PURE = (
    *("events", "state", "reduce", "decide", "placement", "plan", "requests", "recall"),
    *("space", "plugins", "constraints", "objectives"),
)
IMPURE = {
    "time",
    "random",
    "secrets",
    "os",
    "socket",
    "asyncio",
    "anyio",
    "subprocess",
    "threading",
    "sqlite3",
    "pathlib",
}


def files() -> list[Path]:
    return [path for room in ROOMS if (ROOT / room).is_dir() for path in sorted((ROOT / room).rglob("*.py"))]


def imports(path: Path) -> list[str]:
    """The modules that a file imports, inside the package as `room.module`, type-only and late ones too."""
    package = path.relative_to(ROOT).parts[:-1]
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            if node.module:
                base += node.module.split(".")
            whole = ".".join(base)
            for name in node.names:
                inner = ROOT.joinpath(*base, name.name) if node.level else None
                is_module = inner is not None and (inner.with_suffix(".py").exists() or inner.is_dir())
                found.append(f"{whole}.{name.name}".lstrip(".") if is_module else whole)
    return found


def test_rooms_import_only_what_is_below_them() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {target}"
        for path in files()
        for target in imports(path)
        if (room := path.relative_to(ROOT).parts[0]) != (other := target.split(".")[0])
        and other in ROOMS
        and other not in ARROWS[room]
    ]
    assert not wrong


def test_there_is_no_import_circle() -> None:
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files()}
    graph = {name: {target for target in imports(path) if target in modules} for name, path in modules.items()}
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        assert name not in trail, "a circle: " + " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for target in sorted(graph[name]):
            walk(target, [*trail, name])
        done.add(name)

    for name in sorted(graph):
        walk(name, [])
    assert len(done) == len(modules) > 30


@pytest.mark.parametrize("name", PURE)
def test_pure_files_import_no_clock_no_dice_no_io(name: str) -> None:
    path = ROOT / "engine" / f"{name}.py"
    tops = {target.split(".")[0] for target in imports(path)}
    assert not tops & IMPURE


def test_the_trial_sdk_is_light() -> None:
    allowed = {"numpy", "engine", "tuners"}
    for path in (ROOT / "trial_sdk").rglob("*.py"):
        tops = {target.split(".")[0] for target in imports(path)}
        assert not tops & {*allowed, "anyio", "structlog", "scipy", "aiosqlite"}, path


def test_no_pickle_and_no_shell_strings() -> None:
    for path in files():
        tree = ast.parse(path.read_text())
        tops = {target.split(".")[0] for target in imports(path)}
        assert not tops & {"pickle", "dill", "cloudpickle", "marshal", "shelve"}, path
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                raise AssertionError(f"{path}: a process is started through a shell string")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path
            if isinstance(node, ast.Attribute) and node.attr == "system":
                assert not (isinstance(node.value, ast.Name) and node.value.id == "os"), path


SHELLS = ("sh", "bash", "dash", "/bin/sh", "/bin/bash")
RUNS_TEXT = ("create_subprocess_shell", "getoutput", "getstatusoutput", "popen", "subprocess_shell")


def _shell_texts(tree: ast.AST) -> list[ast.expr]:
    """What is handed to a shell as its program: what follows a shell and "-c" in any list, tuple or call."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        items = node.elts if isinstance(node, ast.List | ast.Tuple) else node.args if isinstance(node, ast.Call) else []
        plain = [item.value if isinstance(item, ast.Constant) else None for item in items]
        starts = [at for at in range(len(items) - 2) if plain[at] in SHELLS and plain[at + 1] in ("-c", "-lc")]
        found += [items[at + 2] for at in starts]
    return found


def test_no_program_of_a_shell_is_built_from_data() -> None:
    for path in [*files(), *ROOT.glob("*.py")]:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute | ast.Name):
                name = node.attr if isinstance(node, ast.Attribute) else node.id
                assert name not in RUNS_TEXT, f"{path}:{node.lineno}: {name} runs a text through a shell"
        constants = {
            target.id
            for node in (tree.body if isinstance(tree, ast.Module) else [])
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for text in _shell_texts(tree):
            known = isinstance(text, ast.Constant) or (isinstance(text, ast.Name) and text.id in constants)
            assert known, f"{path}:{text.lineno}: a shell's program is no constant"


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('run(["/bin/sh", "-c", f"echo {x}"])', 1),
        ('run("sh", "-c", "echo " + x)', 1),
        ('run(["bash", "-lc", "echo %s" % x])', 1),
        ('run(["/bin/sh", "-c", CONSTANT, "name", x])', 0),
        ('run(["python", "-c", x])', 0),
    ],
)
def test_a_shell_s_program_is_found(source: str, count: int) -> None:
    built = [text for text in _shell_texts(ast.parse(source)) if not isinstance(text, ast.Constant | ast.Name)]
    assert len(built) == count


def test_nothing_is_loaded_that_can_run_code() -> None:
    """Data are never a program: no pickled arrays, no YAML that makes objects, no whole torch files."""
    for path in [*files(), *ROOT.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            given = {word.arg: word.value for word in node.keywords}
            where = f"{path}:{node.lineno}"
            assert "allow_pickle" not in given, where
            assert node.func.attr not in ("unsafe_load", "full_load"), where
            if node.func.attr == "load" and isinstance(node.func.value, ast.Name):
                if node.func.value.id == "torch":
                    safe = given.get("weights_only")
                    assert isinstance(safe, ast.Constant) and safe.value is True, where
                if node.func.value.id == "yaml":
                    assert "Loader" in given or len(node.args) == 2, where


def test_every_file_opens_with_a_sentence() -> None:
    for path in files():
        opening = ast.get_docstring(ast.parse(path.read_text()))
        assert opening and opening.split("\n\n")[0].strip().endswith((".", ":")), path


def test_the_links_of_src_lead_to_the_rooms() -> None:
    here = ROOT / "src" / "tune"
    for room in ROOMS:
        if (ROOT / room).is_dir():
            assert (here / room).is_symlink() and (here / room).resolve() == ROOT / room
    assert (here / "__init__.py").resolve() == ROOT / "__init__.py"
