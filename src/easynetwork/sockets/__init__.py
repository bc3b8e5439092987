"""Plain sockets: names resolved, connected, bound, accepted, before a backend takes them.

Two functions are for services that a supervisor starts: `inherited_sockets()` returns the sockets
that it passes, and `notify_systemd()` tells it that the service is ready.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import lazy_attributes

if TYPE_CHECKING:
    from easynetwork.sockets.systemd import (
        inherited_sockets as inherited_sockets,
        notify_systemd as notify_systemd,
    )
else:
    __getattr__, __dir__, __all__ = lazy_attributes(
        __name__, {"inherited_sockets": "systemd", "notify_systemd": "systemd"}
    )
