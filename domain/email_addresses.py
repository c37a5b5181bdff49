"""The one rule for what an email address is, whoever brings it: a file, a person or a webhook."""

import re
from functools import lru_cache
from typing import ClassVar, Final, Literal

from email_validator import EmailNotValidError, validate_email

_LONGEST: Final = 254
_PLAIN: Final = re.compile(r"(?=.{1,64}$)[a-z0-9_+-]+(\.[a-z0-9_+-]+)*", re.ASCII)
"""Local parts that are as they should be, whatever the domain; of others the library decides."""


class BadEmailError(ValueError):
    """The text is no address mail can be sent to; the message says why without repeating it."""

    code: ClassVar[Literal["bad_email"]] = "bad_email"


def normalise_email(text: str) -> str:
    """Return the address as it is stored and compared: trimmed, lower-cased, in Unicode form.

    Only the syntax is judged, nothing is looked up. Names that never receive mail on the public
    internet (`localhost`, `.test`, `.invalid`, `.local`) are refused; `example.com` is not.
    Normalising twice changes nothing.
    """
    address = text.strip().lower()
    # Checked first because the cost of reading an international domain grows with its length.
    if len(address) > _LONGEST:
        message = f"An email address has at most {_LONGEST} characters."
        raise BadEmailError(message)
    local, _, domain = address.rpartition("@")
    if _PLAIN.fullmatch(local) and _is_plain(domain):
        return address
    try:
        checked = validate_email(address, check_deliverability=False)
    except EmailNotValidError as fault:
        raise BadEmailError(str(fault)) from None
    return checked.normalized


@lru_cache(maxsize=4096)
def _is_plain(domain: str) -> bool:
    """Whether a domain is valid and spelled as it is kept. Few domains are most addresses, and reading one is slow."""
    try:
        return domain.isascii() and validate_email(f"a@{domain}", check_deliverability=False).domain == domain
    except EmailNotValidError:
        return False
