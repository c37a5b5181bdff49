"""Rendering mail, confined: whatever a template does, it holds up and brings down nobody."""

import time
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from activities.confined import Confined, Failed, TooBig, TooSlow
from domain.templates import Content, Rendered, TemplateError

SECONDS = 2.0
"""Elapsed time in which a mail must be made, the writing out of its facts included; it takes about a millisecond."""


class Renderer:
    """`domain.templates.render` in a child process, one mail at a time."""

    def __init__(self) -> None:
        self._confined = Confined()

    async def render(self, content: Content, facts: Mapping[str, Any]) -> Rendered:
        """The mail. Raises `TemplateError` where these cannot make one, `confined.Unavailable` where it is unknown."""
        began = time.monotonic()
        try:
            request = to_json({"content": content, "facts": dict(facts)})
        except ValueError as error:
            raise TemplateError("template_broken", "the facts cannot be written as JSON") from error
        left = SECONDS - (time.monotonic() - began)
        try:
            answer = from_json(await self._confined.call("render", request, seconds=left))
        except TooSlow:
            raise TemplateError("template_too_slow", f"the mail was not made within {SECONDS:g} seconds") from None
        except TooBig:
            raise TemplateError("template_too_big", "making the mail takes more memory than there is for it") from None
        except Failed as failure:
            raise TemplateError("template_broken", f"the mail cannot be made ({failure})") from None
        if "code" in answer:
            raise TemplateError(answer["code"], answer["detail"])
        return Rendered(**answer)

    async def close(self) -> None:
        """Ends the child."""
        await self._confined.close()
