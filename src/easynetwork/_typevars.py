"""The type variables that several modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

# Of what only takes packets to send, and only hands out those received: interfaces and serializers.
Sent = TypeVar("Sent", contravariant=True)
Received = TypeVar("Received", covariant=True)
Buffer = TypeVar("Buffer", bound="WriteableBuffer")

# Of clients and servers, which are classes with an implementation.
_T_Sent = TypeVar("_T_Sent")
_T_Received = TypeVar("_T_Received")
_T_Request = TypeVar("_T_Request")
_T_Response = TypeVar("_T_Response")
_T_Address = TypeVar("_T_Address")
_T_Handler = TypeVar("_T_Handler")
_T_Protocol = TypeVar("_T_Protocol")
