"""What becomes of a message: one total table over what it is and what happens to it."""

from collections.abc import Mapping
from enum import StrEnum

from domain.words import MessageStatus

_P, _H, _C, _A, _U, _F, _X, _B, _M = (
    MessageStatus.PENDING,
    MessageStatus.HELD,
    MessageStatus.CLAIMED,
    MessageStatus.ACCEPTED,
    MessageStatus.UNCERTAIN,
    MessageStatus.FAILED,
    MessageStatus.CANCELLED,
    MessageStatus.BOUNCED,
    MessageStatus.COMPLAINED,
)


class Happening(StrEnum):
    """What can happen to a message; late, twice and out of order."""

    HELD = "held"
    RELEASED = "released"
    CANCELLED = "cancelled"
    CLAIMED = "claimed"
    ACCEPTED = "accepted"
    POSTPONED = "postponed"
    """Definitely refused for now: the next attempt is open."""
    FAILED = "failed"
    LOST = "lost"
    """Its claim's deadline passed, or its answer was cut off: it may have left."""
    RESTORED = "restored"
    """The database is an earlier one: what became of it since is not known."""
    SETTLED_SENT = "settled_sent"
    REARMED = "rearmed"
    BOUNCED = "bounced"
    COMPLAINED = "complained"


_TABLE: Mapping[Happening, Mapping[MessageStatus, MessageStatus]] = {
    Happening.HELD: {_P: _H},
    Happening.RELEASED: {_H: _P},
    Happening.CANCELLED: {_P: _X, _H: _X, _F: _X},
    Happening.CLAIMED: {_P: _C},
    # A record that comes after its deadline still tells what happened.
    Happening.ACCEPTED: {_C: _A, _U: _A},
    Happening.POSTPONED: {_C: _P, _U: _P},
    Happening.FAILED: {_P: _F, _C: _F, _U: _F},
    Happening.LOST: {_C: _U},
    Happening.RESTORED: dict.fromkeys((_P, _H, _C, _F), _U),
    Happening.SETTLED_SENT: {_U: _A},
    Happening.REARMED: {_F: _P, _U: _P},
    # Proof that it left, whatever was known before.
    Happening.BOUNCED: dict.fromkeys((_P, _H, _C, _A, _U, _F), _B),
    Happening.COMPLAINED: dict.fromkeys((_P, _H, _C, _A, _U, _F, _B), _M),
}

OVER = frozenset({_A, _X, _B, _M})
"""Nothing more is to come that an execution would wait for."""
LEFT = frozenset({_A, _B, _M})
"""It reached a mail server for certain."""


def after(status: MessageStatus, happening: Happening) -> MessageStatus:
    """Total: what does not apply to a status leaves it as it is."""
    return _TABLE[happening].get(status, status)


def open_to(happening: Happening) -> frozenset[MessageStatus]:
    """The statuses that a happening changes."""
    return frozenset(_TABLE[happening])
