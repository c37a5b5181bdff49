# mypy: ignore-errors
"""What becomes of a message: the whole table written out, and what holds of it in any order of happenings."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.delivery import LEFT, OVER, Happening, after, open_to
from domain.words import MessageStatus

ORDER = tuple(MessageStatus)
PROOFS = {Happening.BOUNCED, Happening.COMPLAINED}
# P pending, H held, C claimed, A accepted, U uncertain, F failed, X cancelled, B bounced, M complained
LETTERS = dict(zip("PHCAUFXBM", ORDER, strict=True))
TABLE = {
    #                        PHCAUFXBM
    Happening.HELD:         "HHCAUFXBM",
    Happening.RELEASED:     "PPCAUFXBM",
    Happening.CANCELLED:    "XXCAUXXBM",
    Happening.CLAIMED:      "CHCAUFXBM",
    Happening.ACCEPTED:     "PHAAAFXBM",
    Happening.POSTPONED:    "PHPAPFXBM",
    Happening.FAILED:       "FHFAFFXBM",
    Happening.LOST:         "PHUAUFXBM",
    Happening.RESTORED:     "UUUAUUXBM",
    Happening.SETTLED_SENT: "PHCAAFXBM",
    Happening.REARMED:      "PHCAPPXBM",
    Happening.BOUNCED:      "BBBBBBXBM",
    Happening.COMPLAINED:   "MMMMMMXMM",
}  # fmt: skip
CELLS = [
    (happening, status, LETTERS[letter])
    for happening, row in TABLE.items()
    for status, letter in zip(ORDER, row, strict=True)
]
statuses, happenings = st.sampled_from(MessageStatus), st.lists(st.sampled_from(Happening), max_size=12)


@pytest.mark.parametrize(("happening", "status", "becomes"), CELLS)
def test_each_happening_has_one_answer_for_each_status(happening, status, becomes) -> None:
    assert after(status, happening) is becomes


def test_the_table_is_total() -> None:
    assert {(happening, status) for happening, status, _ in CELLS} == set(itertools.product(Happening, MessageStatus))


@pytest.mark.parametrize("happening", Happening)
def test_what_a_happening_is_open_to_is_what_it_changes(happening) -> None:
    assert open_to(happening) == {status for status in MessageStatus if after(status, happening) is not status}


def test_there_is_one_way_to_be_claimed() -> None:
    ways = [
        (status, happening)
        for status, happening in itertools.product(MessageStatus, Happening)
        if status is not MessageStatus.CLAIMED and after(status, happening) is MessageStatus.CLAIMED
    ]
    assert ways == [(MessageStatus.PENDING, Happening.CLAIMED)]


def test_a_message_is_kept_from_leaving_only_before_it_is_claimed() -> None:
    for happening in (Happening.HELD, Happening.CANCELLED):
        for status in {MessageStatus.CLAIMED, MessageStatus.UNCERTAIN, *LEFT}:
            assert after(status, happening) is status


@given(statuses, happenings)
def test_what_has_left_has_left_whatever_comes_after(status, later) -> None:
    for happening in later:
        was, status = status, after(status, happening)
        if was in LEFT:
            assert status in LEFT
        if was is not MessageStatus.ACCEPTED and status is MessageStatus.ACCEPTED:
            assert was in (MessageStatus.CLAIMED, MessageStatus.UNCERTAIN)


@given(statuses, happenings)
def test_what_is_over_stays_as_it_is_but_for_proofs(status, later) -> None:
    for happening in later:
        was, status = status, after(status, happening)
        if was in OVER:
            assert status in OVER
            assert status is was or (happening in PROOFS and was in LEFT)


@given(statuses, st.sampled_from(Happening))
def test_to_hear_of_it_twice_is_to_hear_of_it_once(status, happening) -> None:
    once = after(status, happening)
    assert after(once, happening) is once


@given(happenings)
def test_a_message_that_is_never_claimed_never_leaves_unless_there_is_proof_that_it_did(later) -> None:
    status = MessageStatus.PENDING
    for happening in later:
        # Rows of a restored backup do not know what was claimed since.
        if happening not in {Happening.CLAIMED, Happening.RESTORED, *PROOFS}:
            status = after(status, happening)
    assert status not in LEFT
    assert status is not MessageStatus.UNCERTAIN


@given(st.permutations([Happening.ACCEPTED, Happening.BOUNCED, Happening.COMPLAINED]), st.booleans())
def test_late_and_out_of_order_the_worst_that_is_known_stands(order, lost) -> None:
    status = MessageStatus.UNCERTAIN if lost else MessageStatus.CLAIMED
    for happening in order:
        status = after(status, happening)
    assert status is MessageStatus.COMPLAINED


def test_a_message_that_waits_for_a_person_is_not_over() -> None:
    for status in (MessageStatus.FAILED, MessageStatus.UNCERTAIN):
        assert status not in OVER
        assert after(status, Happening.REARMED) is MessageStatus.PENDING
    assert LEFT <= OVER
