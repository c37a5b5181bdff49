"""A person's own words in a reply: the quoted history and the signature cut away, line by line.

No expression here looks back or repeats inside a repeat, and no line is read further than a
heading is long, so the work grows with the length of the text whatever it holds.
"""

import re
from collections.abc import Sequence
from typing import Final

LONGEST: Final = 100_000
"""Characters that are read; the rest of a text is dropped."""

_HEADING: Final = 400
"""Characters of the longest heading over a quote, its lines taken together."""

_HEADING_LINES: Final = 3

_ORDINARY: Final = str.maketrans({"\xa0": " ", "\u202f": " ", "\u2019": "'"})

# In this order everywhere: English, German, French, Spanish, Italian.
_OPENERS: Final = ("on ", "am ", "le ", "el ", "il ")
_WROTE: Final = (" wrote", " schrieb", " a écrit", " escribió", " ha scritto")
_WHEN: Final = re.compile(r"[0-9]{4}|[0-9][:.h][0-9]{2}")

_FROM: Final = frozenset({"from", "von", "de", "da"})
_BLOCK: Final = frozenset({
    "sent", "date", "to", "cc", "subject", "gesendet", "datum", "an", "betreff", "envoyé", "à", "objet",
    "enviado", "enviado el", "fecha", "para", "asunto", "inviato", "data", "a", "oggetto",
})  # fmt: skip
_BLOCK_LINES: Final = 6

_HISTORY: Final = frozenset({
    "original message", "ursprüngliche nachricht", "originalnachricht", "message d'origine",
    "mensaje original", "messaggio originale",
    "forwarded message", "weitergeleitete nachricht", "message transféré", "mensaje reenviado", "messaggio inoltrato",
    "begin forwarded message", "anfang der weitergeleiteten nachricht", "début du message transféré",
    "inicio del mensaje reenviado", "inizio messaggio inoltrato",
})  # fmt: skip

_DEVICE: Final = (
    "sent from my ", "sent from outlook", "sent from mail for ", "sent from yahoo mail", "get outlook for ",
    "von meinem iphone", "von meinem ipad", "gesendet von ", "gesendet mit der ", "holen sie sich outlook",
    "outlook für ",
    "envoyé de mon ", "envoyé depuis ", "envoyé à partir de ", "télécharger outlook", "obtenir outlook",
    "enviado desde mi ", "enviado desde outlook", "obtener outlook",
    "inviato da ", "inviato dal mio ", "scarica outlook", "ottieni outlook",
)  # fmt: skip
_DEVICE_LENGTH: Final = 60


def own_words(text: str) -> str:
    """Answers between quotes are kept and the quotes are not; where nothing would be left, all of it is."""
    text = text[:LONGEST].replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    kept: list[str] = []
    at = 0
    while at < len(lines):
        if _ends_the_words(lines, at):
            break
        heading = _heading(lines, at)
        if heading and not _quote_follows(lines, at + heading):
            break
        line = lines[at].rstrip()
        second_blank = not line and kept and not kept[-1]
        if not (heading or second_blank or _quoted(line) or _names_a_device(lines, at)):
            kept.append(line)
        at += heading or 1
    while kept and not kept[-1].strip("_-= "):  # the rule that some programs draw over the history
        kept.pop()
    return "\n".join(kept).strip() or text.strip()


def _ends_the_words(lines: Sequence[str], at: int) -> bool:
    line = _plain(lines[at])
    if line == "--":
        return True
    words = line.strip("-_ :")
    if words != line and words in _HISTORY:
        return True
    if _key(line) not in _FROM:
        return False
    keys = {_key(_plain(below)) for below in lines[at + 1 : at + 1 + _BLOCK_LINES]}
    return len(keys & _BLOCK) > 1


def _heading(lines: Sequence[str], at: int) -> int:
    """How many lines "On … wrote:" takes up from here; 0 where it does not begin here."""
    first = _plain(lines[at])
    begins = "@" in first or _opens(first)
    heading = ""
    for count, line in enumerate(map(_plain, lines[at : at + _HEADING_LINES]), start=1):
        begins_later = count > 1 and _opens(line) and not _says_wrote(heading)
        heading = f"{heading} {line}"
        if not line or _quoted(line) or begins_later or len(heading) > _HEADING:
            return 0
        if heading.endswith(":") and _says_wrote(heading):
            return count if begins or (count == 1 and _quote_follows(lines, at + 1)) else 0
    return 0


def _opens(line: str) -> bool:
    return line.startswith(_OPENERS) and _WHEN.search(line) is not None


def _says_wrote(heading: str) -> bool:
    return any(verb in heading for verb in _WROTE)


def _quote_follows(lines: Sequence[str], at: int) -> bool:
    for below in lines[at : at + _HEADING_LINES]:
        if below.strip():
            return _quoted(below)
    return False


def _quoted(line: str) -> bool:
    return line.lstrip().startswith(">")


def _names_a_device(lines: Sequence[str], at: int) -> bool:
    line = _plain(lines[at])
    below = lines[at + 1].strip() if at + 1 < len(lines) else ""
    return len(line) <= _DEVICE_LENGTH and line.startswith(_DEVICE) and (not below or _quoted(below))


def _key(line: str) -> str:
    name, colon, _ = line.partition(":")
    return name.strip("* ") if colon else ""


def _plain(line: str) -> str:
    """As much of the line as a heading is long, lower-case, unmarked, with ordinary spaces and apostrophes."""
    return line[:_HEADING].translate(_ORDINARY).strip("* \t").lower()
