"""What a person wrote, without what the mail program put beneath it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.reply_text import LONGEST, own_words

QUOTE = "\n> Would Tuesday suit you?\n>\n> > Earlier still\n"


@pytest.mark.parametrize(
    "heading",
    [
        "On Mon, Mar 1, 2027 at 9:00 AM Sam Seller <sam@seller.example.com> wrote:",
        "On Mon, Mar 1, 2027 at 9:00 AM Sam Seller <sam.with.a.long.name@seller.example.com>\nwrote:",
        "On Mon, Mar 1, 2027 at 9:00 AM\nSam Seller of the Very Long Company <sam@seller.example.com>\nwrote:",
        "On 1 Mar 2027, at 09:00, Sam Seller wrote:",
        "Sam Seller <sam@seller.example.com> wrote on Mon, 1 Mar 2027:",
        "Am 01.03.2027 um 09:00 schrieb Sam Seller <sam@seller.example.com>:",
        "Am Mo., 1. März 2027 um 09:00 Uhr schrieb Sam Seller <\nsam@seller.example.com>:",
        "Sam Seller <sam@seller.example.com> schrieb\nam 01.03.2027 um 09:00:",
        "Le lun. 1 mars 2027 à 09:00, Sam Seller <sam@seller.example.com> a\xa0écrit :",
        "Le lun. 1 mars 2027 à 09:00, Sam Seller <sam@seller.example.com>\na écrit\u202f:",
        "El lun, 1 mar 2027 a las 9:00, Sam Seller (<sam@seller.example.com>)\nescribió:",
        "Il giorno lun 1 mar 2027 alle ore 09:00 Sam Seller <sam@seller.example.com>\nha scritto:",
    ],
)
@pytest.mark.parametrize("below", [QUOTE, "\n\nWould Tuesday suit you?\nSam"], ids=["quoted", "bare"])
def test_a_heading_in_five_languages_ends_the_words_wrapped_or_not(heading: str, below: str) -> None:
    assert own_words(f"Yes, Tuesday.\n\nAnn\n\n{heading}{below}") == "Yes, Tuesday.\n\nAnn"


def test_a_line_before_the_heading_is_not_taken_for_its_beginning() -> None:
    text = "Le prix de 2000 EUR est bon.\nLe lun. 1 mars 2027 à 09:00, Sam <sam@x.com> a écrit :\n> Bonjour"
    assert own_words(text) == "Le prix de 2000 EUR est bon."


@pytest.mark.parametrize(
    "block",
    [
        "-----Original Message-----\nFrom: Sam",
        "----- Ursprüngliche Nachricht -----\nVon: Sam",
        "-----Message d\u2019origine-----\nDe : Sam",
        "-----Mensaje original-----\nDe: Sam",
        "-----Messaggio originale-----\nDa: Sam",
        "---------- Forwarded message ---------\nFrom: Sam",
        "Begin forwarded message:\n\nTo: Ann",
        "From: Sam Seller <sam@x.com>\nSent: Monday, March 1, 2027 9:00 AM\nTo: Ann\nSubject: Tuesday?\n\nHello",
        "*From:* Sam Seller <sam@x.com>\n*Sent:* Monday\n*To:* Ann\n*Subject:* Tuesday?\n\nHello",
        "________________________________\nFrom: Sam\n\nDate: Monday\n\nTo: Ann\n",
        "Von: Sam <sam@x.com>\nGesendet: Montag, 1. März 2027 09:00\nAn: Ann\nBetreff: Dienstag?\n\nHallo",
        "De : Sam <sam@x.com>\nEnvoyé : lundi 1 mars 2027 09:00\nÀ : Ann\nObjet : Mardi ?\n\nBonjour",
        "De: Sam <sam@x.com>\nEnviado el: lunes, 1 de marzo de 2027 9:00\nPara: Ann\nAsunto: ¿Martes?\n\nHola",
        "Da: Sam <sam@x.com>\nInviato: lunedì 1 marzo 2027 09:00\nA: Ann\nOggetto: Martedì?\n\nCiao",
        "-- \nAnn Example\nHead of Things",
        "--\nAnn Example\n\nOn 1 Mar 2027, at 09:00, Sam wrote:\n> Hello",
    ],
)
def test_history_blocks_and_signatures_end_the_words(block: str) -> None:
    assert own_words(f"Fine with me.\r\n\r\n{block}") == "Fine with me."


@pytest.mark.parametrize(
    "line",
    [
        "Sent from my iPhone",
        "Get Outlook for iOS",
        "Von meinem iPhone gesendet",
        "Gesendet von Mail für Windows",
        "Envoyé de mon iPhone",
        "Enviado desde mi iPhone",
        "Inviato da iPhone",
    ],
)
def test_the_name_of_a_device_is_not_the_persons_words(line: str) -> None:
    assert own_words(f"Call me.\n\n{line}\n\n> On 1 Mar 2027, at 09:00, Sam wrote:\n> Hello") == "Call me."
    assert own_words(f"Call me.\n{line}") == "Call me."


def test_answers_between_quotes_are_kept_in_their_order() -> None:
    text = (
        "On 1 Mar 2027, Sam wrote:\n> Does the price suit you?\n\nYes.\n\n> And the date?\nNo, a week later.\n> Sam\n"
    )
    assert own_words(text) == "Yes.\n\nNo, a week later."


def test_an_answer_beneath_the_quote_is_kept() -> None:
    assert own_words("Sam wrote:\n> Would Tuesday suit you?\n\nIt would.\n-- \nAnn") == "It would."


@pytest.mark.parametrize(
    "text",
    [
        "On Monday my colleague wrote: no budget.\nSo no.",
        "On the phone you wrote me down for two:\nplease make it three.",
        "From: Berlin\nwith love",
        "Sent from my desk,\nwhere the heating is off.",
        "The original message\nwas better.",
        "2 > 1\na -- b\n- one\n- two",
        "Wir schrieb man frueher:\nso.",
    ],
)
def test_words_that_only_look_like_history_are_kept(text: str) -> None:
    assert own_words(text) == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        (" \n\t\n", ""),
        ("> only\n> a quote", "> only\n> a quote"),
        ("-- \nAnn", "-- \nAnn"),
        ("On 1 Mar 2027, Sam wrote:\nall of it beneath", "On 1 Mar 2027, Sam wrote:\nall of it beneath"),
        ("one\r\rtwo\r\n\r\n\r\nthree", "one\n\ntwo\n\nthree"),
    ],
)
def test_where_nothing_would_be_left_all_of_it_is(text: str, kept: str) -> None:
    assert own_words(text) == kept


@pytest.mark.parametrize(
    "unit",
    [
        "On x wrote ", "On 1 Mar 2027 x wrote \n", "On 1 Mar 2027\n", "On 1 Mar 2027\n\n", "> ", ">", ">\n", "-",
        "--- ", "From: a\n", "From:\n\n", "\n", " ", "_", "wrote:", "a@b wrote:\n",
        "Sam wrote:\n>\n", "Sent from my \n",
        "*", "\xa0", "\r", "le 2027\nil 2027\n", "On 2027 at 9:00 wrote",
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [LONGEST // 4, LONGEST, LONGEST * 4])
def test_hostile_text_is_read_as_quickly_as_any(unit: str, size: int) -> None:
    text = unit * (size // len(unit))
    began = time.monotonic()
    words = own_words(text)
    assert time.monotonic() - began < 2
    assert len(words) <= LONGEST


pieces = st.lists(
    st.sampled_from(
        ["On 1 Mar 2027, a@b.com", "wrote:", "\n", "> ", "-- ", "From: x", "To: y", "Subject: z", "Hi", " "]
    )
    | st.text(max_size=8)
).map("".join)


@given(pieces)
def test_words_are_lines_of_the_text_and_none_are_lost_altogether(text: str) -> None:
    words = own_words(text)
    lines = {line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")}
    assert {line.strip() for line in words.split("\n")} <= lines | {""}
    assert bool(words) == bool(text.strip())
