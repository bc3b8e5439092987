from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import anyio
import pytest

from easynetwork.backends import AsyncBackend, ensure_backend, new_builtin_backend
from easynetwork.backends.asyncio.backend import AsyncIOBackend
from easynetwork.backends.trio.backend import TrioBackend

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())

KINDS = {"asyncio": AsyncIOBackend, "trio": TrioBackend}
each_name = pytest.mark.parametrize("name", KINDS)


@each_name
def test_name(name: str) -> None:
    """A backend is found by its name, which it keeps."""
    for find in (new_builtin_backend, ensure_backend):
        backend = find(name)
        assert type(backend) is KINDS[name]
        assert backend.name == name


@each_name
def test_backend(name: str) -> None:
    """A backend stands for itself."""
    backend = new_builtin_backend(name)
    assert ensure_backend(backend) is backend


@pytest.mark.anyio
async def test_running_backend(anyio_backend_name: str) -> None:
    """None stands for the framework that is running, whichever loop it runs."""
    assert type(ensure_backend(None)) is KINDS[anyio_backend_name]


def test_nothing_is_running() -> None:
    """Where nothing is running, None stands for nothing."""
    with pytest.raises(anyio.NoEventLoopError):
        ensure_backend(None)


@pytest.mark.parametrize("name", ["twisted", "", "Asyncio", "uvloop"])
def test_unknown_name(name: str) -> None:
    """The error of an unknown name tells the known ones."""
    message = f"^{name!r} is not a known backend; there are 'asyncio', 'trio'$"
    with pytest.raises(NotImplementedError, match=message):
        ensure_backend(name)
    with pytest.raises(NotImplementedError, match=message):
        new_builtin_backend(name)


@pytest.mark.parametrize("backend", [1, b"asyncio", AsyncIOBackend])
def test_wrong_type(backend: Any) -> None:
    """Anything else is a mistake."""
    message = "^Expected either a string literal or a backend instance, got (int|bytes|ABCMeta)$"
    with pytest.raises(TypeError, match=message):
        ensure_backend(backend)


def test_trio_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without trio, asking for it tells what to install; asyncio works."""
    for name in list(sys.modules):
        if name.startswith("easynetwork.backends.trio"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "trio", None)

    with pytest.raises(ModuleNotFoundError) as info:
        ensure_backend("trio")

    [requirement] = PYPROJECT["project"]["optional-dependencies"]["trio"]
    assert str(info.value) == f'trio is not installed. To install it: pip install "{requirement}"'
    assert info.value.name == "trio"
    assert isinstance(ensure_backend("asyncio"), AsyncBackend)
