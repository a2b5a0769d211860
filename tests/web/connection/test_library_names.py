"""Private and undocumented names of libraries: each exists with the type relied on, and is used in one place.

After an upgrade of a library, a failure here lists the names that changed.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import textwrap
from abc import ABCMeta
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp.http_exceptions as exceptions
from aiohttp import http_parser, http_writer, streams, web, web_protocol
from aiohttp.test_utils import make_mocked_request
from aiohttplimiter import Limiter
from watchfiles._rust_notify import RustNotify

import jobsvc
from jobsvc.web.app.server import ServiceRunner
from jobsvc.web.connection.closing import ClosingConnection
from jobsvc.web.connection.connection import Connection, ConnectionServer
from jobsvc.web.connection.fast_connection import FastConnection, FastPathServer
from jobsvc.web.connection.request_input import RequestInput
from jobsvc.web.connection.response_stream import SentResponse

PACKAGE: Final = Path(jobsvc.__file__).parent
FENCE: Final = (PACKAGE / "web/connection", PACKAGE / "web/app/server.py")
"""Where private and undocumented names of aiohttp may be used."""

Check = Callable[[Any], bool]


def parameters(*names: str, of: Check = inspect.isfunction) -> Check:
    """Return a check for a function with exactly these parameters."""

    def check(found: Any) -> bool:
        return of(found) and tuple(inspect.signature(found).parameters) == names

    return check


def first_parameters(*names: str) -> Check:
    """Return a check for a function or class whose first parameters are these."""

    def check(found: Any) -> bool:
        return callable(found) and tuple(inspect.signature(found).parameters)[: len(names)] == names

    return check


def is_property(found: Any) -> bool:
    return inspect.isdatadescriptor(found) and not inspect.ismemberdescriptor(found)


slot: Final[Check] = inspect.ismemberdescriptor
method: Final[Check] = inspect.isfunction
coroutine: Final[Check] = inspect.iscoroutinefunction
cython_method: Final[Check] = inspect.isroutine
a_class: Final[Check] = inspect.isclass

NAMES: Final[dict[Any, dict[str, Check]]] = {
    web.RequestHandler: {
        # Read or written by the connection.
        "_buffer_paused": slot,
        "_cache": slot,
        "_close": slot,
        "_current_request": slot,
        "_force_close": slot,
        "_keepalive_handle": slot,
        "_keepalive_timeout": slot,
        "_lingering_time": slot,
        "_loop": slot,
        "_message_tail": slot,
        "_messages": slot,
        "_msg_queue_resume_size": slot,
        "_next_keepalive_close_time": slot,
        "_parser": slot,
        "_paused": slot,
        "_reading_paused": slot,
        "_request_count": slot,
        "_request_factory": slot,
        "_request_handler": slot,
        "_task_handler": slot,
        "_upgraded": slot,
        "_waiter": slot,
        "peername": is_property,
        "transport": slot,
        "writing_paused": is_property,
        # Called by the connection.
        "_pause_transport_reading": parameters("self"),
        "_resume_reading_for_buffer": parameters("self"),
        "_resume_transport_reading": parameters("self"),
        "force_close": parameters("self"),
        # Overridden: aiohttp calls them.
        "_resume_reading_if_drained": parameters("self"),
        "close": parameters("self"),
        "connection_lost": parameters("self", "exc"),
        "connection_made": parameters("self", "transport"),
        "data_received": parameters("self", "data"),
        "eof_received": parameters("self"),
        "finish_response": parameters("self", "request", "resp", "start_time", of=coroutine),
        "handle_error": parameters("self", "request", "status", "exc", "message"),
        "log_exception": parameters("self", "args", "kw"),
        "resume_reading": parameters("self", "resume_parser"),
        "resume_writing": parameters("self"),
        "shutdown": parameters("self", "timeout", of=coroutine),
    },
    web_protocol: {"_ErrInfo": first_parameters("status", "exc", "message")},
    web.AppRunner: {
        "_make_server": parameters("self", of=coroutine),
        "cleanup": parameters("self", of=coroutine),
    },
    web.Server: {
        "__call__": parameters("self"),
        "__init__": first_parameters("self", "handler", "request_factory"),
    },
    web.BaseRequest: {"protocol": is_property, "writer": is_property},
    web.StreamResponse: {
        "keep_alive": is_property,
        "prepared": is_property,
        "prepare": parameters("self", "request", of=coroutine),
        "write_eof": parameters("self", "data", of=coroutine),
    },
    http_writer.StreamWriter: {
        "__init__": first_parameters("self", "protocol", "loop"),
        "drain": coroutine,
        "length": lambda found: not callable(found),
        "output_size": lambda found: not callable(found),
        "send_headers": parameters("self"),
        "write": lambda found: coroutine(found) and "drain" in inspect.signature(found).parameters,
    },
    http_parser.HttpRequestParser: {"message_consumed": cython_method, "set_upgraded": cython_method},
    http_parser.RawRequestMessage: {
        "_replace": cython_method,
        "chunked": is_property,
        "headers": is_property,
        "method": is_property,
        "path": is_property,
        "raw_headers": is_property,
        "should_close": is_property,
        "upgrade": is_property,
        "url": is_property,
        "version": is_property,
    },
    streams: {"EMPTY_PAYLOAD": lambda found: isinstance(found, streams.EmptyStreamReader)},
    streams.StreamReader: {
        "feed_eof": method,
        "is_eof": parameters("self"),
        "readany": coroutine,
        "set_exception": method,
    },
    exceptions: {"BadHttpMethod": a_class, "LineTooLong": a_class},
    exceptions.HttpProcessingError: {"__init__": parameters("self", "code", "message", "headers")},
    Limiter: {
        "__init__": lambda found: {"keyfunc", "error_handler"} <= set(inspect.signature(found).parameters),
        "limit": method,
    },
    RustNotify: {"close": cython_method, "watch": cython_method},
}
"""By their owner: the names relied on, and a check of each name's type."""

INSTANCE_NAMES: Final = {
    "aiohttp.web.BaseRequest": ("_message",),
    "aiohttp.web.Server": (
        "_connections",
        "_kwargs",
        "_loop",
        "request_factory",
        "request_handler",
        "requests_count",
    ),
    "aiohttplimiter.Limiter": ("moving_window",),
}
"""Attributes that exist only on instances."""

UNDOCUMENTED: Final = frozenset(
    {"output_size", "protocol", "requests_count", "send_headers", "writer", "writing_paused"}
)
"""Names that are public by spelling, and are used in the fence only."""
DOCUMENTED_MODULES: Final = frozenset({"aiohttp", "aiohttp.typedefs", "aiohttp.web"})

OVERRIDDEN: Final = {
    ClosingConnection: {"connection_lost", "eof_received", "finish_response", "shutdown"},
    RequestInput: {"resume_reading"},
    Connection: {
        "_resume_reading_if_drained",
        "close",
        "connection_lost",
        "connection_made",
        "data_received",
        "eof_received",
        "finish_response",
        "handle_error",
        "log_exception",
        "resume_writing",
    },
    FastConnection: {"data_received", "eof_received", "shutdown"},
    ServiceRunner: {"_make_server", "cleanup"},
    ConnectionServer: {"__call__"},
    FastPathServer: {"__call__"},
    SentResponse: {"keep_alive", "prepare", "prepared", "write_eof"},
}
"""By class: the names of aiohttp that it overrides on purpose."""


def changed_names() -> Iterator[str]:
    """Name what is missing, or has another type."""
    for owner, names in NAMES.items():
        for name, check in names.items():
            found = inspect.getattr_static(owner, name, changed_names)
            if found is changed_names:
                yield f"{owner.__name__}.{name} is missing"
            elif not check(found):
                yield f"{owner.__name__}.{name} is {found!r}"


async def test_libraries_have_the_names_that_the_service_relies_on() -> None:
    instances = {
        "aiohttp.web.BaseRequest": make_mocked_request("GET", "/"),
        "aiohttp.web.Server": web.Server(lambda _request: None, loop=asyncio.get_running_loop()),  # type: ignore[arg-type, return-value]
        "aiohttplimiter.Limiter": Limiter(keyfunc=str),
    }
    missing = [
        f"{owner}().{name} is missing"
        for owner, names in INSTANCE_NAMES.items()
        for name in names
        if not hasattr(instances[owner], name)
    ]
    assert [*changed_names(), *missing] == []


def modules(*outside: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if not any(path.is_relative_to(each) for each in outside):
            yield path.relative_to(PACKAGE), ast.parse(path.read_text())


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def test_private_names_of_aiohttp_are_used_in_the_fence_only() -> None:
    private = {name for names in NAMES.values() for name in names if name.startswith("_") and name[1] != "_"}
    private |= {name for names in INSTANCE_NAMES.values() for name in names if name.startswith("_")}
    fenced = (private | UNDOCUMENTED) - {"_replace"}  # every NamedTuple has it
    used = []
    for path, tree in modules(*FENCE):
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=value, attr=name) if name in fenced and not is_self(value):
                    used.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
                case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "aiohttp":
                    if module not in DOCUMENTED_MODULES or any(each.name.startswith("_") for each in names):
                        used.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
                case ast.Import(names=names) if any(each.name.startswith("aiohttp.") for each in names):
                    used.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
                case ast.ClassDef(bases=bases) if any(ast.unparse(base).startswith("web.") for base in bases):
                    used.append(f"{path}:{node.lineno}: class {node.name}")
    assert used == []


def test_names_used_in_the_fence_are_on_the_list() -> None:
    known = {name for table in (NAMES, INSTANCE_NAMES) for names in table.values() for name in names}
    ours = {name for cls in OVERRIDDEN for name in names_of(cls)}
    used = set()
    for path, tree in modules():
        if not any((PACKAGE / path).is_relative_to(each) for each in FENCE):
            continue
        for cls in ast.walk(tree):
            if isinstance(cls, ast.ClassDef) and cls.name in {each.__name__ for each in OVERRIDDEN}:
                names = {node.attr for node in ast.walk(cls) if isinstance(node, ast.Attribute)}
                used |= {name for name in names if re.match(r"_(?!_|jobsvc_)", name)}
    assert used - known - ours == set()


def test_private_modules_of_libraries_are_imported_in_one_module_each() -> None:
    imported = [
        (str(path), node.module)
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module is not None
        and node.module != "__future__"
        and any(part.startswith("_") for part in node.module.split("."))
    ]
    assert imported == [("index/watch/inotify_group.py", "watchfiles._rust_notify")]


def names_of(cls: type) -> set[str]:
    """Return the names that a class defines, without those of every class."""
    empty = ABCMeta("Empty", (), {})
    return {*vars(cls), *vars(cls).get("__annotations__", {})} - {*dir(empty), "__annotations__"}


def test_names_of_this_service_do_not_clash_with_those_of_aiohttp() -> None:
    for cls, overridden in OVERRIDDEN.items():
        bases = [base for base in cls.__mro__ if base.__module__.startswith("aiohttp")]
        theirs = {name for base in bases for name in vars(base)}
        assert names_of(cls) & theirs == overridden, cls


def assigned_in(cls: type) -> set[str]:
    """Return the attributes that the constructor of a class sets."""
    if "__init__" not in vars(cls):
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(vars(cls)["__init__"])))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value)
    }


async def test_attributes_of_this_service_do_not_clash_with_those_of_aiohttp() -> None:
    server = web.Server(lambda _request: None, loop=asyncio.get_running_loop())  # type: ignore[arg-type, return-value]
    theirs = {*vars(server), *dir(web.Server), *dir(web.AppRunner)}
    for cls in (ConnectionServer, FastPathServer, ServiceRunner):
        assert assigned_in(cls)
        assert assigned_in(cls) & theirs == set(), cls


def is_data(cls: type, name: str) -> bool:
    value = vars(cls).get(name)
    return not callable(value) and not is_property(value)


def test_private_data_attributes_on_connections_have_a_prefix() -> None:
    for cls in (ClosingConnection, RequestInput, Connection, FastConnection):
        data = {name for name in names_of(cls) if name.startswith("_") and is_data(cls, name)}
        assert {name for name in data if not name.startswith("_jobsvc_")} == set(), cls


def test_connections_have_no_slots_because_class_attributes_hold_the_defaults() -> None:
    assert web.RequestHandler.__dictoffset__ == 0
    assert FastConnection.__dictoffset__ != 0
