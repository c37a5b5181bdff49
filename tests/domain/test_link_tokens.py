# mypy: ignore-errors
"""Tokens: read back by whoever made them, by nobody else, for nothing else."""

from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.link_tokens import Purpose, read, reply_address, subkey, token, token_in

MASTER = bytes(range(32))
ROW = UUID("01890000-0000-7000-8000-000000000001")
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
keys = st.binary(min_size=32, max_size=32)
purposes = st.sampled_from(Purpose)


@pytest.mark.parametrize(
    ("purpose", "text"),
    [
        (Purpose.UNSUBSCRIBE, "ageqaaaaabyabaaaaaaaaaaaaej2unssmzhxlsu62jtvzg4pa6qa"),
        (Purpose.REPLY, "ageqaaaaabyabaaaaaaaaaaaahbipngiqvjxihddkm3xapnm4x5q"),
    ],
)
def test_a_token_mailed_before_this_release_is_still_read(purpose, text):
    assert token(subkey(MASTER), ROW, purpose) == text
    assert read(subkey(MASTER), text, purpose) == ROW


@given(keys, st.uuids(), purposes)
def test_a_token_is_read_in_any_case(key, row, purpose):
    made = token(key, row, purpose)
    assert set(made) <= set(ALPHABET)
    assert len(made) <= 58
    assert read(key, made, purpose) == read(key, made.upper(), purpose) == read(key, made.title(), purpose) == row


@given(keys, keys, st.uuids(), purposes)
def test_another_key_reads_nothing(key, other, row, purpose):
    assume(key != other)
    assert read(other, token(key, row, purpose), purpose) is None


@given(keys, st.uuids())
def test_a_token_is_for_one_purpose(key, row):
    assert read(key, token(key, row, Purpose.REPLY), Purpose.UNSUBSCRIBE) is None
    assert read(key, token(key, row, Purpose.UNSUBSCRIBE), Purpose.REPLY) is None


@given(keys, st.uuids(), purposes, st.integers(0, 51), st.sampled_from(ALPHABET))
def test_a_token_with_another_character_is_none(key, row, purpose, place, character):
    made = token(key, row, purpose)
    assume(made[place] != character)
    assert read(key, made[:place] + character + made[place + 1 :], purpose) is None


@given(keys, st.uuids(), purposes, st.integers(0, 51))
def test_a_token_cut_or_lengthened_is_none(key, row, purpose, place):
    made = token(key, row, purpose)
    for text in (made[:place], made + "a", made + "====", " " + made, made + "\n"):
        assert read(key, text, purpose) is None


@given(st.text() | st.text(alphabet=ALPHABET, min_size=52, max_size=52), purposes)
def test_any_text_is_read_without_failing(text, purpose):
    assert read(MASTER, text, purpose) is None
    assert token_in(text) is None


@pytest.mark.parametrize(
    ("letter", "alike"),
    [("k", "\N{KELVIN SIGN}"), ("s", "\N{LATIN SMALL LETTER LONG S}"), ("i", "\N{LATIN SMALL LETTER DOTLESS I}")],
)
def test_a_letter_that_changing_the_case_makes_ascii_is_none(letter, alike):
    made = next(text for n in range(99) if letter in (text := token(MASTER, UUID(int=n), Purpose.REPLY)))
    assert read(MASTER, made.replace(letter, alike), Purpose.REPLY) is None
    assert token_in(reply_address(made.replace(letter, alike), "example.com")) is None


def test_the_key_of_tokens_is_not_the_master_key():
    assert subkey(MASTER) != MASTER
    assert len(subkey(MASTER)) == 32
    assert subkey(MASTER) != subkey(bytes(32))


@given(keys, st.uuids())
def test_a_reply_address_gives_its_token_back(key, row):
    made = token(key, row, Purpose.REPLY)
    address = reply_address(made, "inbound.example.com")
    assert len(address.split("@")[0]) <= 64
    assert token_in(address) == token_in(address.upper()) == made


@pytest.mark.parametrize("form", ["{}@example.com", "reply-{}@example.com", "reply+{}x@example.com", "reply+{}",
                                  "reply+{}@", "<reply+{}@example.com>", "reply+{}@a@b"])  # fmt: skip
def test_an_address_of_another_form_holds_no_token(form):
    assert token_in(form.format("a" * 52)) is None
