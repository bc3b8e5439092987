"""For the tests of your own programs: serializers, request handlers, clients.

* `check_serializer()` checks that a serializer keeps its promises.
* `converse()` drives a request handler, packet by packet.
* `serve()` runs a server on a `MemoryNetwork`, without sockets, and connects clients to it. What is
  sent can be cut, delayed and lost: see `Faults`.
* `virtual_time()` is for event loops whose clock jumps, so that nobody waits for a timeout.

`easynetwork.testing.plugin` is a plugin for pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import lazy_attributes

if TYPE_CHECKING:
    from easynetwork.testing._conversation import Conversation as Conversation, converse as converse
    from easynetwork.testing._memory.faults import Faults as Faults
    from easynetwork.testing._memory.network import MemoryNetwork as MemoryNetwork
    from easynetwork.testing._serializers import check_serializer as check_serializer
    from easynetwork.testing._serving import (
        RawConnection as RawConnection,
        RawDatagrams as RawDatagrams,
        ServedDatagrams as ServedDatagrams,
        ServedStreams as ServedStreams,
        serve as serve,
    )
    from easynetwork.testing._virtual_time import virtual_time as virtual_time
else:
    __getattr__, __dir__, __all__ = lazy_attributes(
        __name__,
        {
            "Conversation": "_conversation",
            "Faults": "_memory.faults",
            "MemoryNetwork": "_memory.network",
            "RawConnection": "_serving",
            "RawDatagrams": "_serving",
            "ServedDatagrams": "_serving",
            "ServedStreams": "_serving",
            "check_serializer": "_serializers",
            "converse": "_conversation",
            "serve": "_serving",
            "virtual_time": "_virtual_time",
        },
    )
