"""Cursors: where a page of a list ended, opaque to whoever walks it; and what every list may be asked."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from api.shapes import Given
from store.pages import Page, Span


def encode(last: UUID | None) -> str | None:
    return urlsafe_b64encode(last.bytes).decode().rstrip("=") if last else None


def decode(cursor: str) -> UUID:
    """Raises `ValueError` for what `encode` did not make."""
    return UUID(bytes=urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))


def _checked(cursor: str) -> str:
    try:
        decode(cursor)
    except ValueError:
        raise PydanticCustomError("bad_cursor", "This is no cursor of a page.") from None
    return cursor


class Asked(Given):
    """The query of a list; its subclasses add their filters. An unknown one is refused by name."""

    cursor: Annotated[
        str | None, AfterValidator(_checked), Field(max_length=100, description="The `cursor` of the page before.")
    ] = None
    limit: Annotated[int, Field(ge=1, le=100, description="How many at most.")] = 25

    @property
    def span(self) -> Span:
        return Span(decode(self.cursor) if self.cursor else None, self.limit)

    def filters(self) -> dict[str, Any]:
        """The filters that were given, by the names the store's searches have for them."""
        return self.model_dump(exclude={"cursor", "limit"}, exclude_none=True)


def around(page: Page) -> dict[str, Any]:
    """What every list says beside its rows."""
    return {"total": page.total, "cursor": encode(page.last)}
