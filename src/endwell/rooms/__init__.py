"""Rooms: groups of connections that get the same messages, with history and presence."""

from ..errors import BusUnavailable, RoomLimit
from .blocking import BlockingMembership, BlockingRoom, BlockingRooms
from .history import History
from .members import Receipt
from .membership import Membership
from .options import RoomOptions
from .position import Fresh, Gap, Position, Publication, Resumed
from .present import Present
from .room import Room
from .rooms import Rooms

__all__ = [
    "BlockingMembership",
    "BlockingRoom",
    "BlockingRooms",
    "BusUnavailable",
    "Fresh",
    "Gap",
    "History",
    "Membership",
    "Position",
    "Present",
    "Publication",
    "Receipt",
    "Resumed",
    "Room",
    "RoomLimit",
    "RoomOptions",
    "Rooms",
]
