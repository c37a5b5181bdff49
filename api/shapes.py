"""What bodies are made of: camelCase both ways, unknown fields refused by name."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Response
from pydantic import (
    AfterValidator,
    AliasGenerator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    StrictInt,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from domain.email_addresses import BadEmailError, normalise_email

GREATEST_CENTS = 2**53 - 1
"""The greatest amount: what every reader of JSON still holds exactly."""


class Given(BaseModel):
    """Something a client sends."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, str_strip_whitespace=True, use_enum_values=False
    )

    def columns(self) -> dict[str, Any]:
        """What the client named, by column; what it left out is left alone."""
        return self.model_dump(exclude_unset=True)


class Change(Given):
    """What a PATCH brings: a field left out stays, so none has a default to tell."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Without the defaults that a POST has."""
        schema = handler.resolve_ref_schema(handler(core))
        for described in schema["properties"].values():
            described.pop("default", None)
        return schema


class Shown(BaseModel):
    """Something we answer, read from a row's columns of the same names."""

    model_config = ConfigDict(
        # Of what goes out only: a row looks long for a column it does not have.
        alias_generator=AliasGenerator(serialization_alias=to_camel),
        validate_by_name=True,
        from_attributes=True,
        serialize_by_alias=True,
    )


def shown(body: Shown, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    """An answer as it goes out, written once, by the model itself."""
    return Response(body.model_dump_json(by_alias=True), status, headers, "application/json")


class Many(Shown):
    """A page of a list; `cursor` leads to the next, and is null on the last."""

    total: Annotated[int, Field(description="How many there are in all, whatever the page.")]
    cursor: Annotated[str | None, Field(description="Ask again with this for what follows; null at the end.")]


def storable(text: str) -> str:
    """Refuses what PostgreSQL cannot keep in a text."""
    if "\0" in text:
        raise PydanticCustomError("unstorable_text", "Text holds no NUL characters.")
    return text


def _storable_object(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    _walk(value)
    return value


def _walk(value: JsonValue) -> None:
    if isinstance(value, str):
        storable(value)
    elif isinstance(value, float) and (value != value or abs(value) == float("inf")):  # noqa: PLR0124  (not a number)
        raise PydanticCustomError("unstorable_number", "Numbers are finite.")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            storable(name)
            _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            _walk(inner)


def _address(text: str) -> str:
    try:
        return normalise_email(storable(text))
    except BadEmailError as error:
        raise PydanticCustomError("bad_email", "{why}", {"why": str(error)}) from None


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("instant", "is before or after all the years there are") from None


_Storable = AfterValidator(storable)
Line = Annotated[str, Field(min_length=1, max_length=255), _Storable]
Words = Annotated[str, Field(max_length=255), _Storable]
Name = Annotated[str, Field(min_length=1, max_length=100), _Storable]
Title = Annotated[str, Field(min_length=1, max_length=200), _Storable]
Phone = Annotated[str, Field(max_length=50), _Storable]
Note = Annotated[str, Field(max_length=500), _Storable]
Body = Annotated[str, Field(max_length=20_000), _Storable]
Tags = Annotated[list[Name], Field(max_length=100)]
Email = Annotated[str, Field(max_length=320, json_schema_extra={"format": "email"}), AfterValidator(_address)]
Cents = Annotated[StrictInt, Field(ge=0, le=GREATEST_CENTS, description="Money in the currency's smallest unit.")]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217, such as USD.")]
Percent = Annotated[StrictInt, Field(ge=0, le=100)]
Object = Annotated[dict[str, JsonValue], AfterValidator(_storable_object)]
Instant = Annotated[AwareDatetime, AfterValidator(_in_utc), Field(description="RFC 3339 with a zone; answered in UTC.")]
