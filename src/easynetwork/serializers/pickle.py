"""To accept a pickle is to run the program that is in it.

A pickle is a list of instructions: import this, call that with these arguments. A peer that can
send one to a program can make that program do anything, and no option of this module, no limit and
no check of the result changes this: it is too late when there is a result. Use it between processes
that you start yourself, over connections that no other program can open, or inside a wrapper that
proves who sent it (`Base64EncoderSerializer` with a signing key). For all else there are other
formats.

Pickles are for datagrams, and for what puts a frame around whole packets: the end of a pickle can
only be found by executing it.
"""

from __future__ import annotations

import dataclasses
import pickle
import pickletools
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import IO, Any, final

from easynetwork.exceptions import DeserializeError
from easynetwork.serializers.abc import AbstractPacketSerializer
from easynetwork.serializers.tools import config_options

__all__ = ["PickleSerializer", "PicklerConfig", "UnpicklerConfig"]


@dataclasses.dataclass(kw_only=True, slots=True, weakref_slot=True)
class PicklerConfig:
    """How to write pickles: the options of `pickle.Pickler` of the same names."""

    protocol: int = pickle.DEFAULT_PROTOCOL
    fix_imports: bool = False


@dataclasses.dataclass(kw_only=True, slots=True, weakref_slot=True)
class UnpicklerConfig:
    """How to read pickles: the options of `pickle.Unpickler` of the same names."""

    fix_imports: bool = False
    encoding: str = "utf-8"
    errors: str = "strict"


class PickleSerializer(AbstractPacketSerializer[Any, Any]):
    """To accept a pickle is to run the program that is in it: only for peers that you trust fully.

    See the top of this page. Packets are whatever `pickle` can handle.

    Args:
        pickler_config: How to write pickles.
        unpickler_config: How to read pickles.
        pickler_cls: What to use instead of `pickle.Pickler`. It is called with a file and, by name,
            the options of `pickler_config` and ``buffer_callback=None``.
        unpickler_cls: What to use instead of `pickle.Unpickler`. It is called with a file and, by
            name, the options of `unpickler_config` and ``buffers=None``. One whose ``find_class()``
            knows a few harmless classes narrows what a pickle can do; see
            https://docs.python.org/3/library/pickle.html#restricting-globals.
        pickler_optimize: Whether to send pickles through `pickletools.optimize()`: they become
            smaller, which takes time.
        debug: Whether errors carry ``error_info``, a dictionary: the ``data`` that is not a pickle,
            or the ``packet`` and the ``extra`` bytes after it.

    Raises:
        TypeError: A configuration is of the wrong class.
    """

    __slots__ = ("_debug", "_new_pickler", "_new_unpickler", "_optimize")

    def __init__(
        self,
        pickler_config: PicklerConfig | None = None,
        unpickler_config: UnpicklerConfig | None = None,
        *,
        pickler_cls: type[pickle.Pickler] | None = None,
        unpickler_cls: type[pickle.Unpickler] | None = None,
        pickler_optimize: bool = False,
        debug: bool = False,
    ) -> None:
        super().__init__()
        pickler_options = config_options("pickler", pickler_config, PicklerConfig)
        unpickler_options = config_options("unpickler", unpickler_config, UnpicklerConfig)
        self._new_pickler: Callable[[IO[bytes]], pickle.Pickler] = partial(
            pickler_cls or pickle.Pickler, **pickler_options, buffer_callback=None
        )
        self._new_unpickler: Callable[[IO[bytes]], pickle.Unpickler] = partial(
            unpickler_cls or pickle.Unpickler, **unpickler_options, buffers=None
        )
        self._optimize = bool(pickler_optimize)
        self._debug = bool(debug)

    @property
    @final
    def debug(self) -> bool:
        """Whether errors carry ``error_info``."""
        return self._debug

    def serialize(self, packet: Any) -> bytes:
        """Return the pickle of `packet`."""
        file = BytesIO()
        self._new_pickler(file).dump(packet)
        data = file.getvalue()
        return pickletools.optimize(data) if self._optimize else data

    def deserialize(self, data: bytes) -> Any:
        """Run the program that `data` is, and return what it makes.

        Raises:
            DeserializeError: `data` is not a pickle, there is something after it, or it raised an
                exception.
        """
        file = BytesIO(data)
        try:
            packet = self._new_unpickler(file).load()
        except Exception as exc:
            info = {"data": data} if self._debug else None
            raise DeserializeError(str(exc) or "Invalid token", info) from exc
        if extra := file.read():
            raise DeserializeError(
                "Extra data caught", {"packet": packet, "extra": extra} if self._debug else None
            )
        return packet
