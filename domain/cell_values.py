"""What the text of one cell means: an amount of money, a currency, a day."""

import re
import unicodedata
from collections.abc import Iterable
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, Literal, NamedTuple

from domain.csv_dialect import RowCode

DecimalMark = Literal[".", ",", "unproven", "mixed"]
"""Which mark a column of amounts writes before its decimals, as far as its cells prove it."""

GREATEST_MINOR: Final = 2**53 - 1
"""The greatest amount: what every reader of JSON still holds exactly."""

_THOUSANDTHS: Final = 3
_LONGEST_AMOUNT: Final = 40
_MOST_DIGITS: Final = 28  # what Decimal's default context computes with exactly
# fmt: off
_WITHOUT_DECIMALS: Final = frozenset((
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG",
    "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF",
))
_WITH_THREE_DECIMALS: Final = frozenset(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"))
# fmt: on

# Signs that name one currency. A dollar or yen sign names several, so it decides nothing.
_SIGNS: Final = {"€": "EUR", "£": "GBP", "₹": "INR", "₩": "KRW", "₪": "ILS", "₫": "VND", "₴": "UAH"}

_MONEY: Final = re.compile(
    r"""(?P<minus>[-(\N{MINUS SIGN}])? \s?
        (?P<before>[A-Z]{3} | [$¥€£₹₩₪₫₴])? \s?
        (?P<minus_behind>[-\N{MINUS SIGN}])?
        (?P<number>[0-9.,][0-9.,'\N{RIGHT SINGLE QUOTATION MARK}\ ]*?) \s?
        (?P<after>[A-Z]{3} | [$¥€£₹₩₪₫₴])? \)?""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)

# How a number may be written and the decimal mark that proves; the first that fits is taken.
_SHAPES: Final[tuple[tuple[str, DecimalMark], ...]] = (
    (r"\d+", "unproven"),
    (r"\d{1,3}(?:[ '\u2019]\d{3})+", "unproven"),
    (r"\d{1,3}(?:[ '\u2019]\d{3})+\.\d+", "."),
    (r"\d{1,3}(?:[ '\u2019]\d{3})+,\d+", ","),
    (r"\d{1,3}(?:,\d{2,3})*,\d{3}\.\d+", "."),
    (r"\d{1,3}(?:\.\d{3})+,\d+", ","),
    (r"\d{1,3}(?:,\d{2,3})+,\d{3}", "."),
    (r"\d{1,3}(?:\.\d{3}){2,}", ","),
    (r"[1-9]\d{0,2}[.,]\d{3}", "unproven"),
    (r"\d*\.\d+", "."),
    (r"\d*,\d+", ","),
)


class BadValueError(ValueError):
    """The text of a cell means nothing here, or too many things; `code` is stable."""

    def __init__(self, message: str, code: RowCode) -> None:
        """Keep the code beside the words for a person."""
        super().__init__(message)
        self.code = code


class Money(NamedTuple):
    """An amount in its currency's smallest unit; without a currency where nobody names one."""

    minor: int
    currency: str | None


def read_currency(text: str) -> str:
    """Read a three-letter code, whatever its case; that such a currency exists is not checked."""
    if not re.fullmatch(r"[A-Za-z]{3}", text):
        message = "A currency is three letters, such as USD."
        raise BadValueError(message, "bad_currency")
    return text.upper()


def read_day(text: str) -> date:
    """Read `YYYY-MM-DD` with or without a time of day, whose offset is not applied.

    Exports write the account's local time, so the day as written is the day meant. Days with
    slashes are refused, because 03/04 is two different days.
    """
    try:
        if re.match(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            return datetime.fromisoformat(text).date()
    except ValueError:
        pass
    message = "A date is written YYYY-MM-DD, with or without a time behind it."
    raise BadValueError(message, "bad_date")


def decimal_mark(cells: Iterable[str]) -> DecimalMark:
    """Tell which decimal mark a whole column writes.

    `1,234` alone proves nothing, `1,234.50`, `1,5` and `1,234,567` do. Cells that are no amounts
    prove nothing either; cells that prove both marks make the column mixed.
    """
    proven: set[DecimalMark] = set()
    for cell in cells:
        written = _MONEY.fullmatch(_plain(cell))
        if written:
            proven.add(_shape(written["number"]) or "unproven")
    proven.discard("unproven")
    if len(proven) > 1:
        return "mixed"
    return proven.pop() if proven else "unproven"


def read_money(text: str, mark: DecimalMark, currency: str | None, default: str | None) -> Money:
    """Read an amount such as `1,234.56`, `1.234,56`, `1 234,56`, `$ 117.0` or `EUR 90`.

    `mark` is that of its whole column, and decides only where the cell itself does not, as in
    `1,234`: what the column writes before decimals is a decimal mark, the other groups digits.
    In a column that proves nothing it groups digits, since prices have no thousandths. Refused
    as ambiguous are such cells in a mixed column, those that would have thousandths in a
    currency with fewer decimals, and those of an unproven column in a currency with three.

    `currency` is what the row names in its own column: a cell naming another is refused.
    `default` is taken where neither names one. Decimals beyond the currency's are rounded half
    to even.
    """
    written = _MONEY.fullmatch(_plain(text))
    proven = _shape(written["number"]) if written else None
    if written is None or proven is None:
        message = "An amount is a number such as 1234.56, perhaps with its currency."
        raise BadValueError(message, "bad_amount")
    if written["minus"] or written["minus_behind"]:
        message = "An amount is not negative."
        raise BadValueError(message, "negative_amount")
    currency = _one_currency(currency, written) or default
    exponent = _exponent(currency)
    number = written["number"]
    if proven == "unproven" and ("," in number or "." in number):
        proven = _resolve(number, mark, exponent)
    value = _value(number, "." if proven == "unproven" else proven)
    minor = int(value.scaleb(exponent).to_integral_value(ROUND_HALF_EVEN))
    if minor > GREATEST_MINOR:
        message = "The amount is too large."
        raise BadValueError(message, "bad_amount")
    return Money(minor, currency)


def _plain(text: str) -> str:
    """Fold no-break spaces and wide digits; what is too long for an amount folds to nothing."""
    return "" if len(text) > _LONGEST_AMOUNT else unicodedata.normalize("NFKC", text).strip()


def _shape(number: str) -> DecimalMark | None:
    fits = (mark for shape, mark in _SHAPES if re.fullmatch(shape, number, re.ASCII))
    return next(fits, None)


def _exponent(currency: str | None) -> int:
    if currency in _WITHOUT_DECIMALS:
        return 0
    return _THOUSANDTHS if currency in _WITH_THREE_DECIMALS else 2


def _one_currency(named: str | None, written: re.Match[str]) -> str | None:
    marks = {mark.upper() for mark in (written["before"], written["after"]) if mark}
    found = {_SIGNS.get(mark, mark) for mark in marks if mark in _SIGNS or mark.isalpha()}
    if named:
        found.add(named)
    if len(found) > 1:
        message = f"The row names several currencies: {', '.join(sorted(found))}."
        raise BadValueError(message, "bad_currency")
    return found.pop() if found else None


def _resolve(number: str, mark: DecimalMark, exponent: int) -> DecimalMark:
    """Decide the decimal mark of a number with one mark and three digits behind it."""
    written: DecimalMark = "," if "," in number else "."
    other: DecimalMark = "." if written == "," else ","
    thousandths = exponent == _THOUSANDTHS
    if mark == other or (mark == "unproven" and not thousandths):
        return other
    if mark == written and thousandths:
        return written
    message = f"Whether the mark in {number} groups digits or begins decimals cannot be told."
    raise BadValueError(message, "ambiguous_amount")


def _value(number: str, mark: str) -> Decimal:
    digits = re.sub(rf"[^0-9{mark}]", "", number).replace(mark, ".")
    if len(digits) > _MOST_DIGITS:
        message = "The amount has too many digits."
        raise BadValueError(message, "bad_amount")
    return Decimal(digits)
