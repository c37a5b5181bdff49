"""What was found out lately: enough to presume it still is so, never to let anyone in."""

from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A dictionary of the last thousand; what uses one must have it looked up again by the statement that counts."""

    def __init__(self, most: int = 1000) -> None:
        self._values: dict[Key, Value] = {}
        self._most = most

    def get(self, key: Key) -> Value | None:
        return self._values.get(key)

    def remember(self, key: Key, value: Value) -> None:
        self._values.pop(key, None)
        self._values[key] = value
        if len(self._values) > self._most:
            del self._values[next(iter(self._values))]
