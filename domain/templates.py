"""Mail templates: a small language, what is wrong with a text written in it, and the mail it makes, pure.

The language is Jinja's syntax for fields, `or`, conditions, loops over given lists and the filters of
`FILTERS`; the syntax tree is held against a list of what is allowed, and what is not on it never runs.
A value of the facts answers nothing but its own fields, so there is no Python to reach from one.
A field that is absent, null or blank has no value: it is false in a condition and equals nothing,
gives way to a default, and anything else that is done with it fails by the field's name.
"""

import html as markup
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar

import css_inline
import inscriptis  # type: ignore[import-untyped]
import jinja2
from inscriptis.model.config import ParserConfig  # type: ignore[import-untyped]
from jinja2 import nodes
from jinja2.filters import do_title
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import to_json

MAX_SOURCE = 256 * 1024
"""Bytes of a template, its parts together."""
MAX_OUTPUT = 512 * 1024
"""Bytes of one part of a mail."""
MAX_TAGS = 5000
"""Of the HTML, opening and closing. The parsers are written in C and Rust, and end the process at some depth beyond."""
MAX_SUBJECT = 255
"""Characters; what is longer is cut."""
_MAX_NODES = 5000
_MAX_DEPTH = 25
_MAX_LOOPS = 2
_MAX_PATH = 8
_MAX_LITERAL = 1000
_MAX_NUMBER = 10**15
_MAX_TRUNCATE = 1000
_MAX_SEPARATOR = 20
_MAX_DATE_FORMAT = 50
_TOLD = 50
"""Problems told at a time."""
_SENTENCE = 300
"""Characters of one; the names in it are the template's and may be of any length."""

_RECORDS = ("contact", "company", "deal")
"""The roots whose fields the caller names, and which have custom fields."""
_FIELDS: Mapping[str, frozenset[str]] = {
    "owner": frozenset({"name", "email"}),
    "sender": frozenset({"name", "email"}),
    "organization": frozenset({"name", "postalAddress"}),
}
_VALUES = frozenset({"unsubscribeUrl"})
"""The roots that are values themselves."""
_ROOTS = frozenset([*_RECORDS, *_FIELDS, *_VALUES])


class Content(BaseModel):
    """The source of a mail; without `text` or without `html` the one is made of the other."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True)

    subject: str
    text: str | None = None
    html: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Content":
        if not (self.text or "").strip() and not (self.html or "").strip():
            msg = "a mail needs 'text', 'html' or both"
            raise ValueError(msg)
        if sum(len(source.encode()) for _, source in _parts(self)) > MAX_SOURCE:
            msg = f"a mail's source is at most {MAX_SOURCE // 1024} KB in all"
            raise ValueError(msg)
        return self


@dataclass(frozen=True)
class Rendered:
    """A mail's parts; the subject is one line, and `text` is empty only where the HTML holds no words."""

    subject: str
    text: str
    html: str


class TemplateError(Exception):
    """No mail can be made of this template and these facts.

    `code` is `field_missing`, `template_broken`, `template_too_big` or `template_too_slow`; `detail`
    is a sentence that may name fields and lines, and never holds a value.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def _parts(content: Content) -> list[tuple[str, str]]:
    """The parts that are written, by name."""
    named = (("subject", content.subject), ("text", content.text), ("html", content.html))
    return [(part, source) for part, source in named if source is not None and (source.strip() or part == "subject")]


# --- the facts, as a template sees them


class _Missing(jinja2.Undefined):
    """A field that has no value: false, equal to nothing but another such; the rest fails."""

    __slots__ = ()
    __str__ = __iter__ = __len__ = jinja2.Undefined._fail_with_undefined_error  # noqa: SLF001  # its own class's way

    @property
    def _undefined_message(self) -> str:
        return f"'{self._undefined_name}' has no value, and the template gives no default for it"

    def field(self, key: object) -> "_Missing":
        return _Missing(name=f"{self._undefined_name}.{key}")


@dataclass(frozen=True, slots=True)
class _Record:
    """Fields under the path they were found at."""

    path: str
    fields: Mapping[str, Any]

    def field(self, key: object) -> object:
        return _fact(self.fields.get(str(key)), f"{self.path}.{key}")


@dataclass(frozen=True, slots=True)
class _Items:
    """A list, and the path it was found at."""

    path: str
    values: Sequence[Any]

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[object]:
        return (self.field(index) for index in range(len(self.values)))

    def field(self, key: object) -> object:
        value = self.values[key] if isinstance(key, int) and 0 <= key < len(self.values) else None
        return _fact(value, f"{self.path}[{key}]")


def _fact(value: object, path: str) -> object:
    if value is None:
        return _Missing(name=path)
    if isinstance(value, str):
        plain = str.__str__(value)  # no subclass: one could call itself safe markup
        return plain if plain.strip() else _Missing(name=path)
    if isinstance(value, Mapping):
        return _Record(path, value)
    if isinstance(value, list | tuple):
        return _Items(path, value)
    return value


def _field(value: object, key: object) -> object:
    if isinstance(value, _Record | _Items | _Missing):
        return value.field(key)
    raise TemplateError("template_broken", f"the field '{key}' is asked of a value that has no fields")


def _printed(value: object) -> str:
    """The text of a value. Raises `TemplateError` for what has no text of its own."""
    if isinstance(value, str | _Missing):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return str(value)
    if isinstance(value, _Items):
        raise TemplateError("template_broken", f"'{value.path}' is a list; write '{value.path} | join' or a loop")
    if isinstance(value, _Record):
        raise TemplateError("template_broken", f"'{value.path}' is a record; name one of its fields")
    raise TemplateError("template_broken", f"a value of type {type(value).__name__} cannot be written")


# --- filters


def _default(value: object, fallback: object) -> object:
    blank = isinstance(value, _Missing) or (isinstance(value, str) and not value.strip())
    return fallback if blank else value


def _truncate(text: str, length: int) -> str:
    """At most `length` characters, cut between words where there is a space, and marked by an ellipsis."""
    if len(text) <= length:
        return text
    words, space, _ = text[:length].rpartition(" ")
    return f"{words if space else text[: length - 1]}…"


def _date(text: str, form: str = "%-d %B %Y") -> str:
    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        raise TemplateError("template_broken", "what is given to 'date' is not a date") from None
    return day.strftime(form)


def _listed(value: object, name: str) -> _Items:
    if isinstance(value, _Items):
        return value
    raise TemplateError("template_broken", f"what is given to '{name}' is not a list")


def _first(value: object) -> object:
    return _listed(value, "first").field(0)


def _join(value: object, separator: str = ", ") -> str:
    return separator.join(_printed(item) for item in _listed(value, "join"))


def _on_text(change: Callable[..., object]) -> Callable[..., object]:
    return lambda value, *arguments: change(_printed(value), *arguments)


def _passing(change: Callable[..., object]) -> Callable[..., object]:
    """What has no value is handed on, so that a default may come last."""
    return lambda value, *arguments: value if isinstance(value, _Missing) else change(value, *arguments)


@dataclass(frozen=True)
class Filter:
    """`takes` says what its arguments must be; `accepts` is told the literals, `...` for what is none."""

    apply: Callable[..., object]
    takes: str = "nothing"
    accepts: Callable[[Sequence[object]], bool] = lambda given: not given


def _is_length(given: Sequence[object]) -> bool:
    return len(given) == 1 and type(given[0]) is int and 1 <= given[0] <= _MAX_TRUNCATE


def _is_separator(given: Sequence[object]) -> bool:
    return not given or (len(given) == 1 and isinstance(given[0], str) and len(given[0]) <= _MAX_SEPARATOR)


_DATE_FORMAT = re.compile(r"(?:[^%\x00-\x1f]|%-?[aAbBdmyYHIMpj]|%%)*")


def _is_date_format(given: Sequence[object]) -> bool:
    if not given:
        return True
    form = given[0]
    return (
        len(given) == 1
        and isinstance(form, str)
        and len(form) <= _MAX_DATE_FORMAT
        and _DATE_FORMAT.fullmatch(form) is not None
    )


FILTERS: Mapping[str, Filter] = {
    "default": Filter(_default, "one value", lambda given: len(given) == 1),
    "upper": Filter(_passing(_on_text(str.upper))),
    "lower": Filter(_passing(_on_text(str.lower))),
    "title": Filter(_passing(_on_text(do_title))),
    "capitalize": Filter(_passing(_on_text(str.capitalize))),
    "trim": Filter(_passing(_on_text(str.strip))),
    "truncate": Filter(_passing(_on_text(_truncate)), f"a length from 1 to {_MAX_TRUNCATE}", _is_length),
    "date": Filter(_passing(_on_text(_date)), "nothing or a format such as '%d %B %Y'", _is_date_format),
    "first": Filter(_passing(_first)),
    "join": Filter(
        _passing(_join), f"nothing or a separator of at most {_MAX_SEPARATOR} characters", _is_separator
    ),
}  # fmt: skip


# --- the language


class _Language(ImmutableSandboxedEnvironment):
    """Jinja without its functions, tests and loaders; the only filters are ours."""

    def __init__(self, *, autoescape: bool) -> None:
        super().__init__(autoescape=autoescape, undefined=_Missing, finalize=_printed, optimized=False)
        self.globals.clear()
        self.tests.clear()
        self.filters = {name: one.apply for name, one in FILTERS.items()}

    def getattr(self, obj: object, attribute: str) -> object:
        return _field(obj, attribute)

    def getitem(self, obj: object, argument: object) -> object:
        return _field(obj, argument)


_PLAIN, _ESCAPING = _Language(autoescape=False), _Language(autoescape=True)


@dataclass(frozen=True, order=True)
class _Finding:
    line: int
    says: str


@dataclass(frozen=True)
class _Use:
    """A field that is looked at, by its path from a root."""

    line: int
    path: tuple[str, ...]


class _Reading:
    """What a source says: its syntax tree, None where it has none, what of it is not allowed, the fields it uses."""

    _OPEN: ClassVar = (
        nodes.Template, nodes.Output, nodes.If, nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand,
        nodes.List, nodes.Tuple,
    )  # fmt: skip
    """What is as good as its parts."""
    _WORDS: ClassVar[dict[type[nodes.Node], str]] = {
        nodes.Call: "functions cannot be called",
        nodes.Concat: "'~' is not allowed; write the texts side by side",
        nodes.BinExpr: "arithmetic is not allowed",
        nodes.Pos: "arithmetic is not allowed",
        nodes.Test: "'is' is not allowed; a field without a value is false, so write '{% if field %}'",
        nodes.Assign: "'set' is not allowed",
        nodes.AssignBlock: "'set' is not allowed",
    }

    def __init__(self, source: str) -> None:
        self.tree: nodes.Template | None = None
        self.refused: list[_Finding] = []
        self.uses: list[_Use] = []
        self._nodes = 0
        try:
            self.tree = _PLAIN.parse(source)
        except jinja2.TemplateSyntaxError as error:
            self.refused.append(_Finding(error.lineno, f"cannot be read: {error.message}"))
        except RecursionError:
            self.refused.append(_Finding(1, "is nested too deeply to be read"))
        except ValueError:  # the lexer's: a number of thousands of digits
            self.refused.append(_Finding(1, "holds a number that is too large"))
        if self.tree is not None:
            self._visit(self.tree, frozenset(), loops=0, depth=0)

    def _refuse(self, node: nodes.Node, says: str) -> None:
        self.refused.append(_Finding(node.lineno, says))

    def _visit(self, node: nodes.Node, items: frozenset[str], *, loops: int, depth: int) -> None:
        """`items` are the names that the loops around it give."""
        self._nodes += 1
        if self._nodes > _MAX_NODES or depth > _MAX_DEPTH:
            if self._nodes <= _MAX_NODES + 1:  # of one that is too long, told once
                self._refuse(node, "is nested too deeply" if depth > _MAX_DEPTH else "the template is too long")
            return
        if isinstance(node, nodes.For):
            self._loop(node, items, loops=loops + 1, depth=depth)
            return
        if isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem):
            self._use(node, items)
            return
        self._look(node)
        for child in node.iter_child_nodes() if self._has_parts(node) else ():
            self._visit(child, items, loops=loops, depth=depth + 1)

    def _has_parts(self, node: nodes.Node) -> bool:
        return isinstance(node, (*self._OPEN, nodes.CondExpr, nodes.Filter, nodes.Neg))

    def _look(self, node: nodes.Node) -> None:
        """At what the node is by itself."""
        if isinstance(node, nodes.TemplateData):
            if re.search(r"\{[{%]", node.data):
                self._refuse(node, "'{{' and '{%' may not be sent as they are")
        elif isinstance(node, nodes.Const):
            self._literal(node)
        elif isinstance(node, nodes.Filter):
            self._filter(node)
        elif isinstance(node, nodes.CondExpr):
            if node.expr2 is None:
                self._refuse(node, "'if' inside '{{ }}' needs an 'else'")
        elif isinstance(node, nodes.Neg):
            if not isinstance(node.node, nodes.Const):
                self._refuse(node, "arithmetic is not allowed")
        elif not isinstance(node, self._OPEN):
            words = next((says for kind, says in self._WORDS.items() if isinstance(node, kind)), None)
            self._refuse(node, words or f"'{type(node).__name__.lower()}' is not part of the template language")

    def _literal(self, node: nodes.Const) -> None:
        value = node.value
        if value is None:
            self._refuse(node, "'none' is not needed: a field without a value is false")
        elif isinstance(value, str) and len(value) > _MAX_LITERAL:
            self._refuse(node, f"a quoted text is at most {_MAX_LITERAL} characters")
        elif isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= _MAX_NUMBER):
            self._refuse(node, "a number is too large")

    def _filter(self, node: nodes.Filter) -> None:
        known = FILTERS.get(node.name)
        if known is None:
            self._refuse(node, f"unknown filter '{node.name}'{_meant(node.name, FILTERS)}")
            return
        given = [one.value if isinstance(one, nodes.Const) else ... for one in node.args]
        plain = node.node is not None and not node.kwargs and node.dyn_args is None and node.dyn_kwargs is None
        if not plain or not known.accepts(given):
            self._refuse(node, f"the filter '{node.name}' takes {known.takes}")

    def _loop(self, node: nodes.For, items: frozenset[str], *, loops: int, depth: int) -> None:
        if loops > _MAX_LOOPS:
            self._refuse(node, f"loops are nested deeper than {_MAX_LOOPS}")
        if node.recursive or node.test is not None:
            self._refuse(node, "a loop is only 'for name in list'")
        if isinstance(node.iter, nodes.Name | nodes.Getattr | nodes.Getitem):
            self._use(node.iter, items)
        else:
            self._refuse(node, "a loop goes over a list field")
        if not isinstance(node.target, nodes.Name):
            self._refuse(node, "a loop gives one name")
            return
        name = node.target.name
        if name in _ROOTS or name in items or name == "loop" or name.startswith("_"):
            self._refuse(node, f"a loop cannot give the name '{name}'")
        for child in node.body:
            self._visit(child, items | {name}, loops=loops, depth=depth + 1)
        for child in node.else_:
            self._visit(child, items, loops=loops, depth=depth + 1)

    def _use(self, node: nodes.Node, items: frozenset[str]) -> None:
        line = node.lineno
        keys: list[str] = []
        while isinstance(node, nodes.Getattr | nodes.Getitem) and len(keys) < _MAX_PATH:
            key = _key(node)
            if key is None:
                self._refuse(node, "between '[' and ']' stands a quoted name or a number")
                return
            keys.append(key)
            node = node.node
        if not isinstance(node, nodes.Name):
            self._refuse(node, "a field is read from a name, as in 'contact.firstName'")
            return
        path = (node.name, *reversed(keys))
        if any(key.startswith("_") for key in path):
            self._refuse(node, f"'{'.'.join(path)}': no field begins with '_'")
        elif node.name not in items:
            self.uses.append(_Use(line, path))


def _key(node: nodes.Getattr | nodes.Getitem) -> str | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    value = node.arg.value if isinstance(node.arg, nodes.Const) else None
    return str(value) if isinstance(value, str) or type(value) is int else None


def _meant(name: str, known: Mapping[str, object] | frozenset[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


# --- what is wrong with a template


_FORBIDDEN = re.compile(r"<(script|form|iframe|object|embed|base)\b", re.IGNORECASE)
_HANDLER = re.compile(r"<[a-z][^<>]*?\s(on[a-z]++)\s*+=", re.IGNORECASE)
_INSECURE = {
    "text": re.compile(r"http://", re.IGNORECASE),
    "html": re.compile(
        r"(?:\b(?:href|src|action|background)\s*+=\s*+[\"']?+\s*+|\burl\(\s*+[\"']?+\s*+)http:", re.IGNORECASE
    ),
}
_SECRET = re.compile(r"\bSG\.[\w-]{16,}|\bwhsec_[\w+/=-]{8,}|\bsk_live_\w{8,}")
_REPLY = re.compile(r"\s*(re|fwd?|aw|wg)\s*:", re.IGNORECASE)


def problems(content: Content, fields: Mapping[str, frozenset[str]], *, first: bool = False) -> list[str]:
    """What is wrong with a template, in sentences that name part and line; empty when it may be used.

    `fields` are the standard fields of contact, company and deal; each of them has custom fields too.
    `first` is a mail that answers no earlier one. At most fifty are told at a time.
    """
    told = [
        f"{part}, line {one.line}: {one.says[:_SENTENCE]}"
        for part, source in _parts(content)
        for found in (_language(source, fields), _content(part, source, first=first))
        for one in sorted(set(islice(found, _TOLD)))
    ]
    return told[:_TOLD]


def _language(source: str, fields: Mapping[str, frozenset[str]]) -> Iterator[_Finding]:
    reading = _Reading(source)
    yield from reading.refused
    known = {**{record: fields.get(record, frozenset[str]()) for record in _RECORDS}, **_FIELDS}
    for use in reading.uses:
        says = _unknown(use.path, known)
        if says:
            yield _Finding(use.line, says)


def _unknown(path: tuple[str, ...], known: Mapping[str, frozenset[str]]) -> str | None:
    root, *names = path
    whole = ".".join(path)
    if root not in _ROOTS:
        return f"unknown variable '{root}'{_meant(root, _ROOTS)}"
    if root in _VALUES:
        return f"'{root}' has no fields" if names else None
    custom = root in _RECORDS
    if not names or names == ["customFields"]:
        return f"'{whole}' is a record; name one of its fields"
    if custom and names[0] == "customFields":
        return None
    if names[0] not in known[root]:
        more = known[root] | {"customFields"} if custom else known[root]
        return f"'{root}' has no field '{names[0]}'{_meant(names[0], more)}"
    return f"'{root}.{names[0]}' has no fields" if len(names) > 1 and not names[1].isdecimal() else None


def _content(part: str, source: str, *, first: bool) -> Iterator[_Finding]:
    if part == "subject":
        yield from _subject(source, first=first)
    if part == "html":
        yield from _tags(source)
    if part in _INSECURE:
        for link in _INSECURE[part].finditer(source):
            yield _Finding(_line(source, link), "a link begins with http:; use https:")
    for secret in _SECRET.finditer(source):
        yield _Finding(_line(source, secret), f"looks like a secret key ('{secret[0][:3]}…')")


def _subject(source: str, *, first: bool) -> Iterator[_Finding]:
    if not source.strip():
        yield _Finding(1, "is empty")
    reply = _REPLY.match(source)
    if first and reply:
        yield _Finding(1, f"a first mail may not begin with '{reply[1]}:', as if it were an answer")


def _tags(source: str) -> Iterator[_Finding]:
    if source.count("<") > MAX_TAGS:
        yield _Finding(1, f"has more than {MAX_TAGS} tags")
    for tag in _FORBIDDEN.finditer(source):
        yield _Finding(_line(source, tag), f"<{tag[1].lower()}> is not allowed in mail")
    for handler in _HANDLER.finditer(source):
        yield _Finding(_line(source, handler, 1), f"the attribute '{handler[1].lower()}' is not allowed in mail")


def _line(source: str, found: re.Match[str], group: int = 0) -> int:
    return source.count("\n", 0, found.start(group)) + 1


# --- the mail


def render(content: Content, facts: Mapping[str, Any]) -> Rendered:
    """The mail for these facts, which are JSON values by root (`contact`, `sender`, `unsubscribeUrl`, …).

    Raises `TemplateError`. Time and memory are not bounded here: what a stranger wrote is rendered confined.
    """
    given = {root: _fact(value, root) for root, value in facts.items()}
    made = {part: _rendered(part, source, given) for part, source in _parts(content)}
    subject = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", made["subject"]).split())[:MAX_SUBJECT].rstrip()
    html = _finished(made["html"] if "html" in made else _html_of(made["text"]))
    text = made["text"] if "text" in made else _text_of(html)
    for part, output in (made | {"subject": subject}).items():
        if not output.strip():
            raise TemplateError("template_broken", f"{part}: nothing is left of it for this contact")
    return Rendered(subject, _capped("text", text), _capped("html", html))


def render_json(request: bytes) -> bytes:
    """`render` for another process: `{"content", "facts"}` to the parts of the mail, or to `{"code", "detail"}`."""
    asked = _Request.model_validate_json(request)
    try:
        return to_json(asdict(render(asked.content, asked.facts)))
    except TemplateError as error:
        return to_json({"code": error.code, "detail": error.detail})


class _Request(BaseModel):
    content: Content
    facts: dict[str, Any]


@lru_cache(maxsize=32)
def _compiled(source: str, *, escaping: bool) -> jinja2.Template:
    reading = _Reading(source)
    if reading.tree is None or reading.refused:
        first = min(reading.refused)
        raise TemplateError("template_broken", f"line {first.line}: {first.says[:_SENTENCE]}")
    return (_ESCAPING if escaping else _PLAIN).from_string(reading.tree)


def _rendered(part: str, source: str, given: Mapping[str, object]) -> str:
    pieces, size = [], 0
    try:
        for piece in _compiled(source, escaping=part == "html").generate(given):
            # A lone half of a pair can stand in a value, and in no mail.
            pieces.append(piece.encode(errors="replace"))
            size += len(pieces[-1])
            if size > MAX_OUTPUT:
                raise _too_big()
    except jinja2.UndefinedError as error:
        raise TemplateError("field_missing", f"{part}: {error.message}") from None
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise TemplateError(
            "template_broken", f"{part}: does not go with these values ({type(error).__name__})"
        ) from error
    except TemplateError as error:
        raise _of(part, error) from None
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "", b"".join(pieces).decode())


def _capped(part: str, output: str) -> str:
    if len(output.encode()) > MAX_OUTPUT:
        raise _of(part, _too_big())
    return output


def _too_big() -> TemplateError:
    return TemplateError("template_too_big", f"is larger than {MAX_OUTPUT // 1024} KB")


def _of(part: str, error: TemplateError) -> TemplateError:
    return TemplateError(error.code, f"{part}: {error.detail}")


_URL = re.compile(r"(https://[^\s<>\"']*[^\s<>\"'.,;:!?)\]])")


def _html_of(text: str) -> str:
    paragraphs = re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip())
    return "".join(f"<p>{_linked(one).replace(chr(10), '<br>')}</p>" for one in paragraphs)


def _linked(text: str) -> str:
    def shown(index: int, piece: str) -> str:
        safe = markup.escape(piece)
        return f'<a href="{safe}">{safe}</a>' if index % 2 else safe

    return "".join(shown(index, piece) for index, piece in enumerate(_URL.split(text)))


def _text_of(html: str) -> str:
    text: str = inscriptis.get_text(html, _LINKS_SHOWN)
    return text.strip() + "\n"


_LINKS_SHOWN = ParserConfig(display_links=True)
# By default it reads what a <link> names, from the network or the disk, and drops @media rules.
_INLINER = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)

# The inliner writes every tag in one form: lower case, attributes in double quotes, none inside the value.
_TAG = re.compile(r"<[a-zA-Z][^\s/>]*+(?: =?[^\s/>=]+=\"[^\"]*\")++")
_ATTRIBUTE = re.compile(r" (=?[^\s/>=]+)=\"([^\"]*)\"")
_ADDRESSES = frozenset({"href", "src", "xlink:href", "action", "formaction", "background", "poster", "data"})
_SCHEMES = frozenset({"http", "https", "mailto", "tel"})


def _finished(html: str) -> str:
    """One document: styles inlined, nothing fetched, no address of a scheme that a mail has no use for."""
    if html.count("<") > MAX_TAGS:
        raise TemplateError("template_too_big", f"html: has more than {MAX_TAGS} tags")
    try:
        whole = _INLINER.inline(html)
    except css_inline.InlineError as error:
        raise TemplateError("template_broken", "html: its styles cannot be read") from error
    return _TAG.sub(lambda tag: _ATTRIBUTE.sub(_harmless, tag[0]), _capped("html", whole))


def _harmless(attribute: re.Match[str]) -> str:
    name, value = attribute[1].lower(), attribute[2]
    if name.startswith("on"):
        return ""
    if name not in _ADDRESSES:
        return attribute[0]
    # As a browser reads it: without the spaces and control characters that would hide the scheme.
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", re.sub(r"[\x00-\x20\x7f]", "", markup.unescape(value)))
    return attribute[0] if scheme is None or scheme[1].lower() in _SCHEMES else f' {name}="#"'
