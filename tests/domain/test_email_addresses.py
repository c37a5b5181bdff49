"""The one rule for email addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.email_addresses import BadEmailError, normalise_email


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (" Jane@X.com ", "jane@x.com"),
        ("JANE.DOE+news@Example.COM", "jane.doe+news@example.com"),
        ("o'brien@example.org", "o'brien@example.org"),
        ("Ünï@example.net", "ünï@example.net"),
        ("u\u0308ni@example.net", "üni@example.net"),
        ("ann@xn--exmple-cua.com", "ann@exämple.com"),
        ("\tann@sub.example.com\r\n", "ann@sub.example.com"),
    ],
)
def test_an_address_is_kept_trimmed_lower_cased_and_composed(written: str, kept: str) -> None:
    assert normalise_email(written) == kept


@pytest.mark.parametrize(
    "written",
    [
        "",
        "a@b",
        "a@localhost",
        "a@example.test",
        "a@example.invalid",
        "no-sign.example.com",
        "two@signs@example.com",
        "spaced out@example.com",
        "Ann <ann@example.com>",
        '"quoted"@example.com',
        "a@[192.0.2.1]",
        "a@example.com.",
        "a@example.com, b@example.com",
        "nul\0@example.com",
        "line\nbreak@example.com",
        "a" * 250 + "@example.com",
    ],
)
def test_what_mail_cannot_be_sent_to_is_refused_with_a_code(written: str) -> None:
    with pytest.raises(BadEmailError) as refused:
        normalise_email(written)
    assert refused.value.code == "bad_email"
    assert str(refused.value)


def test_a_text_too_long_for_an_address_is_not_even_parsed() -> None:
    with pytest.raises(BadEmailError, match="at most 254 characters"):
        normalise_email("a@" + "ü" * 10_000 + ".com")


@given(st.text() | st.emails() | st.tuples(st.text(min_size=1)).map("{0[0]}@example.com".format))
def test_any_text_is_an_address_that_stays_itself_or_is_refused(text: str) -> None:
    try:
        address = normalise_email(text)
    except BadEmailError:
        return
    assert normalise_email(address) == address
    assert address == address.lower() == address.strip()
