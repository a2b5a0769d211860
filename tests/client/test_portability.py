"""The client runs in the Python of other programs, and on other systems than Linux."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).parents[2]
CLIENT: Final = PROJECT / "jobsvc" / "client"
COMMANDS: Final = PROJECT / "jobsvc" / "cli" / "client"
MODULES: Final = sorted([*CLIENT.rglob("*.py"), *COMMANDS.rglob("*.py")])

OWN: Final = ("jobsvc.client", "jobsvc.domain", "jobsvc.__version__")
"""What modules of the client import at once, besides the standard library."""
COMMANDS_OWN: Final = (*OWN, "jobsvc.cli", "click")
LAZY_MODULES: Final = {
    CLIENT / "transport" / "aiohttp_transport.py": ("aiohttp", "yarl"),
    COMMANDS / "progress" / "bar.py": ("rich",),
}
"""Modules that are imported only when a function needs them, and what they import at once."""

POSIX_MODULES: Final = frozenset({"fcntl", "grp", "posix", "pwd", "pty", "resource", "termios", "tty"})
POSIX_NAMES: Final = frozenset(
    {
        *(
            "os.chown",
            "os.fchmod",
            "os.fchown",
            "os.fork",
            "os.geteuid",
            "os.getuid",
            "os.mkfifo",
            "os.killpg",
        ),
        *("os.posix_fadvise", "os.posix_fallocate", "os.pread", "os.preadv", "os.pwrite", "os.pwritev"),
        *("os.sendfile", "os.statvfs", "os.copy_file_range", "os.O_CLOEXEC", "os.O_DIRECTORY"),
        *("os.O_NOFOLLOW", "os.O_NONBLOCK", "signal.SIGALRM", "signal.SIGHUP", "signal.SIGWINCH"),
        *("signal.SIGKILL", "signal.SIGPIPE", "signal.SIGUSR1", "signal.pause", "signal.setitimer"),
        *("socket.AF_UNIX", "socket.MSG_DONTWAIT", "select.epoll", "select.poll"),
    }
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_module_imports_only_what_every_python_has(path: Path) -> None:
    allowed: tuple[str, ...] = COMMANDS_OWN if path.is_relative_to(COMMANDS) else OWN
    allowed += LAZY_MODULES.get(path, ())
    unexpected = {name for name in imports_at_once(parse(path).body) if not is_allowed(name, allowed)}
    assert not unexpected


@pytest.mark.parametrize("path", LAZY_MODULES, ids=lambda path: path.name)
def test_lazy_module_is_imported_only_by_functions(path: Path) -> None:
    name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    importers = [each for each in MODULES if name in set(imports_at_once(parse(each).body))]
    assert all(importer == CLIENT / "async_client.py" for importer in importers), importers


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_calls_that_windows_lacks_are_in_branches_for_other_systems(path: Path) -> None:
    assert not set(posix_uses(parse(path)))


def test_client_is_imported_without_installed_packages() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n"
        "import jobsvc.client\n"
        "from jobsvc.client.transport.http_transport import HttpTransport\n"
        "client = jobsvc.client.Client('http://127.0.0.1:1', 'token', retries=0)\n"
        "try:\n    client.job('a')\n"
        "except jobsvc.client.ConnectionFailed as exc:\n    print(exc)\n"
        "outside = [name for name in sys.modules if name.split('.')[0] not in sys.stdlib_module_names]\n"
        "print(sorted({'.'.join(name.split('.')[:2]) for name in outside} - {'__main__'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert not done.stderr
    assert done.stdout.splitlines() == [
        "127.0.0.1:1 refused the connection: is the service running?",
        "['jobsvc', 'jobsvc.client', 'jobsvc.domain']",
    ]


def test_packages_that_are_imported_lazily_are_those_of_the_project() -> None:
    """A name that is misspelt in a list of this file would permit nothing, unnoticed."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    required = {line.partition(">=")[0] for line in project["dependencies"]}
    assert {name for names in LAZY_MODULES.values() for name in names} <= required
    assert all(path.exists() for path in LAZY_MODULES)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports_at_once(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the modules that importing a module imports; not those of functions or of type checking."""
    for statement in body:
        match statement:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{alias.name}" if module == "jobsvc" else module for alias in names)
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=orelse):
                yield from imports_at_once(orelse)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                pass
            case _:
                for name in ("body", "orelse", "finalbody"):
                    yield from imports_at_once(getattr(statement, name, []))
                for handler in getattr(statement, "handlers", []):
                    yield from imports_at_once(handler.body)


def is_allowed(name: str, allowed: tuple[str, ...]) -> bool:
    if name.partition(".")[0] in sys.stdlib_module_names:
        return True
    return any(name == each or name.startswith(f"{each}.") for each in allowed)


def posix_uses(node: ast.AST) -> Iterator[str]:
    """Yield modules and names that Windows lacks, outside of `if` statements that check the platform."""
    match node:
        case ast.If(test=test) if "sys.platform" in ast.unparse(test):
            return
        case ast.Import(names=names):
            yield from (alias.name for alias in names if alias.name in POSIX_MODULES)
        case ast.ImportFrom(module=str(module)) if module in POSIX_MODULES:
            yield module
        case ast.Attribute() if (name := ast.unparse(node)) in POSIX_NAMES:
            yield name
        case ast.Constant(value=str(text)) if text.startswith(("/proc/", "/dev/", "/sys/")):
            yield text
    for child in ast.iter_child_nodes(node):
        yield from posix_uses(child)
