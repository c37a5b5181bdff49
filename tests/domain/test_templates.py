# mypy: ignore-errors
"""Mail templates: what the language holds and what it keeps out, and the mail that comes of it."""

import json
import socket
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup
from pydantic import ValidationError

from domain.documents import FIELDS
from domain.templates import (
    FILTERS,
    MAX_OUTPUT,
    MAX_SOURCE,
    Content,
    Rendered,
    TemplateError,
    problems,
    render,
    render_json,
)

FACTS = {
    "contact": {
        "firstName": "ada", "lastName": "Lovelace", "email": "ada@example.com", "title": None,
        "phone": "", "leadScore": 0,
        "tags": ["vip", "early <adopter>"], "customFields": {"site": "https://example.com/?a=1&b=2", "vip": True,
        "Renewal month": "May", "blank": "  "},
    },
    "company": None,
    "deal": {"title": "Engines", "valueCents": 1250000, "expectedCloseDate": "2026-03-05"},
    "owner": {"name": "Rob", "email": "rob@example.com"},
    "sender": {"name": "Rob", "email": "rob@example.com"},
    "organization": {"name": "Acme", "postalAddress": "1 High Street"},
    "unsubscribeUrl": "https://mail.example.com/u/1",
}  # fmt: skip


def mail(text: str | None, **parts: str) -> Content:
    return Content(**{"subject": "Hello", "text": text, **parts})


def mail_with(part: str, source: str) -> Content:
    return Content(**{"subject": "Hello", "text": "x", part: source})


def told(text: str) -> list[str]:
    return problems(mail(text), FIELDS)


def shown(text: str, facts: object = FACTS) -> str:
    return render(mail(text), facts).text


def refused(content: Content, facts: object = FACTS) -> TemplateError:
    with pytest.raises(TemplateError) as error:
        render(content, facts)
    return error.value


def in_html(source: str, facts: object = FACTS) -> str:
    return render(mail(None, html=source), facts).html


# --- the language


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("Hi {{ contact.firstName }}", "Hi ada"),
        ("{{ contact['firstName'] }} {{ contact.customFields['Renewal month'] }}", "ada May"),
        ("{{ contact.tags[0] }} {{ contact.tags.1 }}", "vip early <adopter>"),
        ("{{ contact.leadScore }} {{ deal.valueCents }} {{ contact.customFields.vip }}", "0 1250000 true"),
        # absent, null, blank, and a record that is not there
        ("{{ contact.title or 'there' }}", "there"),
        ("{{ contact.phone or 'there' }}", "there"),
        ("{{ contact.customFields.blank | default('there') }}", "there"),
        ("{{ contact.customFields.nothing | default('there') }}", "there"),
        ("{{ contact.title | default(contact.firstName) }}", "ada"),
        ("{{ contact.title | upper | default('there') }}", "there"),
        ("{{ contact.title | trim | truncate(3) | date | default('there') }}", "there"),
        ("{{ company.name | default('your company') }}", "your company"),
        ("{{ nobody.at.all | default('there') }}", "there"),
        ("{{ contact.leadScore | default('none') }}", "0"),
        ("{{ contact.title or contact.phone or contact.firstName }}", "ada"),
        # conditions
        ("{% if contact.title %}T{% elif contact.firstName %}F{% else %}E{% endif %}", "F"),
        ("{% if contact.title == 'CEO' %}boss{% else %}else{% endif %}", "else"),
        ("{% if contact.title != 'CEO' %}else{% endif %}", "else"),
        ("{% if contact.title in ['CEO', 'CTO'] %}x{% else %}else{% endif %}", "else"),
        ("{% if 'vip' in contact.tags and not contact.title %}yes{% endif %}", "yes"),
        ("{% if deal.valueCents >= 1000000 and deal.valueCents < 2000000 %}big{% endif %}", "big"),
        ("{% if contact.leadScore > -1 %}scored{% endif %}", "scored"),
        ("{{ 'vip' if 'vip' in contact.tags else 'guest' }}", "vip"),
        # loops
        ("{% for tag in contact.tags %}[{{ tag }}]{% endfor %}", "[vip][early <adopter>]"),
        ("{% for a in contact.tags %}{% for b in contact.tags %}x{% endfor %}{% endfor %}", "xxxx"),
        ("{% for a in contact.customFields.tags or contact.tags %}x{% endfor %}", None),
        # filters
        ("{{ contact.firstName | upper }} {{ contact.lastName | lower }}", "ADA lovelace"),
        ("{{ contact.firstName | title }} {{ 'o\\'neil of x' | title }}", "Ada O'neil Of X"),
        ("{{ contact.firstName | capitalize }}{{ ' x ' | trim }}", "Adax"),
        ("{{ 'one two three' | truncate(9) }}|{{ 'unbroken' | truncate(4) }}", "one two…|unb…"),
        ("{{ 'one two three' | truncate(8) }}", "one two…"),
        ("{{ 'one two three' | truncate(7) }}", "one…"),
        ("{{ 'abc' | truncate(3) }}", "abc"),
        ("{{ deal.expectedCloseDate | date }}", "5 March 2026"),
        ("{{ deal.expectedCloseDate | date('%d.%m.%y') }}", "05.03.26"),
        ("{{ contact.tags | first }}; {{ contact.tags | join }}; {{ contact.tags | join(' / ') }}",
         "vip; vip, early <adopter>; vip / early <adopter>"),
        ("{{ contact.customFields.tags | first | default('none') }}", "none"),
        ("{# a note #}x", "x"),
        ("{{ sender.name }}, {{ organization.postalAddress }}, {{ owner.email }}: {{ unsubscribeUrl }}",
         "Rob, 1 High Street, rob@example.com: https://mail.example.com/u/1"),
    ],
)  # fmt: skip
def test_what_the_language_says(source, says) -> None:
    if says is None:
        assert told(source)
        assert refused(mail(source)).code == "template_broken"
    else:
        assert shown(source) == says


@pytest.mark.parametrize(
    ("source", "says"),
    [
        # not readable
        ("{{ contact.firstName", "text, line 1: cannot be read"),
        ("a\nb {% if contact.firstName %}", "text, line 2: cannot be read"),
        ("{% for x in %}", "cannot be read"),
        ("{{ " + "(" * 5000, "nested too deeply"),
        ("{% if contact.email %}" * 60 + "{% endif %}" * 60, "nested too deeply"),
        ("{{ " + "not " * 40 + "contact.email }}", "nested too deeply"),
        ("{{ contact.email " + "or contact.email " * 60 + "}}", "nested too deeply"),
        ("{{ contact.email }}" * 6000, "too long"),
        ("{% frobnicate %}", "unknown tag 'frobnicate'"),
        # names
        ("{{ contcat.firstName }}", "text, line 1: unknown variable 'contcat'; did you mean 'contact'?"),
        ("a\n\n{{ contact.fristName }}", "text, line 3: 'contact' has no field 'fristName'; did you mean 'firstName'?"),
        ("{{ contact.first_name }}", "has no field 'first_name'; did you mean 'firstName'?"),
        ("{{ firstName }}", "unknown variable 'firstName'"),
        ("{{ event.type }}", "unknown variable 'event'"),
        ("{{ sender.phone }}", "'sender' has no field 'phone'"),
        ("{{ owner.customFields.x }}", "'owner' has no field 'customFields'"),
        ("{{ contact }}", "'contact' is a record; name one of its fields"),
        ("{{ contact.customFields }}", "is a record"),
        ("{{ contact.firstName.length }}", "'contact.firstName' has no fields"),
        ("{{ unsubscribeUrl.x }}", "has no fields"),
        ("{% if contact.nope %}x{% endif %}", "has no field 'nope'"),
        ("{% for x in contact.nope %}x{% endfor %}", "has no field 'nope'"),
        ("{{ 'x' | default(contact.nope) }}", "has no field 'nope'"),
        ("{% for tag in contact.tags %}x{% endfor %}{{ tag }}", "unknown variable 'tag'"),
        ("{% for tag in contact.tags %}{{ loop.index }}{% endfor %}", "unknown variable 'loop'"),
        # filters
        ("{{ contact.firstName | uper }}", "unknown filter 'uper'; did you mean 'upper'?"),
        ("{{ contact.firstName | default }}", "the filter 'default' takes one value"),
        ("{{ contact.firstName | default('a', true) }}", "takes one value"),
        ("{{ contact.firstName | default(value='a') }}", "takes one value"),
        ("{{ contact.firstName | truncate }}", "takes a length from 1 to 1000"),
        ("{{ contact.firstName | truncate(100000) }}", "takes a length"),
        ("{{ contact.firstName | truncate(true) }}", "takes a length"),
        ("{{ contact.firstName | truncate(contact.leadScore) }}", "takes a length"),
        ("{{ contact.createdAt | date('%1000000d') }}", "takes nothing or a format"),
        ("{{ contact.createdAt | date('%s') }}", "takes nothing or a format"),
        ("{{ contact.createdAt | date('" + "x" * 51 + "') }}", "takes nothing or a format"),
        ("{{ contact.tags | join('" + "x" * 21 + "') }}", "separator of at most 20"),
        ("{{ contact.tags | join(*contact.tags) }}", "takes nothing or a separator"),
        ("{{ contact.tags | join(**contact.tags) }}", "takes nothing or a separator"),
        ("{% filter upper %}x{% endfilter %}", "not part of the template language"),
        # what Jinja can and this cannot
        ("{{ contact.firstName() }}", "functions cannot be called"),
        ("{{ range(9) }}", "functions cannot be called"),
        ("{{ contact.email ~ contact.email }}", "'~' is not allowed"),
        *((f"{{{{ contact.leadScore {sign} 2 }}}}", "arithmetic") for sign in ("+", "-", "*", "/", "//", "%", "**")),
        ("{{ -contact.leadScore }}", "arithmetic"),
        ("{{ +1 }}", "arithmetic"),
        ("{% set x = 1 %}", "'set' is not allowed"),
        ("{% set x %}1{% endset %}", "'set' is not allowed"),
        ("{% macro x() %}{% endmacro %}", "'macro' is not part of the template language"),
        ("{% call x() %}{% endcall %}", "not part of"),
        ("{% block x %}{% endblock %}", "not part of"),
        ("{% with x = 1 %}{% endwith %}", "not part of"),
        ("{% autoescape false %}{% endautoescape %}", "not part of"),
        ("{% include 'x' %}", "not part of"),
        ("{% import 'x' as y %}", "not part of"),
        ("{% from 'x' import y %}", "not part of"),
        ("{% extends 'x' %}", "not part of"),
        ("{% if contact.title is defined %}x{% endif %}", "'is' is not allowed"),
        ("{% if contact.title == none %}x{% endif %}", "'none' is not needed"),
        ("{{ 'x' if contact.title }}", "needs an 'else'"),
        ("{{ contact.firstName[1:2] }}", "a quoted name or a number"),
        ("{{ contact[contact.email] }}", "a quoted name or a number"),
        ("{{ {'a': 1} }}", "'dict' is not part of"),
        ("{{ ('a' | upper).x }}", "a field is read from a name"),
        ("{{ contact.customFields" + ".a" * 50 + " }}", "a field is read from a name"),
        ("{% raw %}{{ contact.firstName }}{% endraw %}", "may not be sent as they are"),
        ("{{ '" + "x" * 1001 + "' }}", "at most 1000 characters"),
        ("{{ 1" + "0" * 20 + " }}", "a number is too large"),
        ("{{ 1e999 }}", "a number is too large"),
        ("{{ 1" + "0" * 5000 + " }}", "too large"),
        # loops
        ("{% for x in 'abc' %}{% endfor %}", "a loop goes over a list field"),
        ("{% for x in [1, 2] %}{% endfor %}", "a loop goes over a list field"),
        ("{% for x in contact.tags if x %}{% endfor %}", "only 'for name in list'"),
        ("{% for x in contact.tags recursive %}{% endfor %}", "only 'for name in list'"),
        ("{% for x, y in contact.tags %}{% endfor %}", "a loop gives one name"),
        ("{% for contact in contact.tags %}{% endfor %}", "cannot give the name 'contact'"),
        ("{% for _x in contact.tags %}{% endfor %}", "cannot give the name '_x'"),
        ("".join(f"{{% for {x} in contact.tags %}}" for x in "abc") + "{% endfor %}" * 3, "nested deeper than 2"),
    ],
)  # fmt: skip
def test_what_is_not_the_language_is_told_and_never_runs(source, says) -> None:
    found = told(source)
    assert any(says in one for one in found), found
    assert all(one.startswith("text, line ") for one in found)
    names_only = ("unknown variable", "has no field", "is a record", "did you mean")
    if not any(word in says for word in names_only):
        assert refused(mail(source)).code == "template_broken"


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ contact.__class__ }}",
    "{{ contact['__class__'] }}",
    "{{ contact.firstName.__class__.__base__ }}",
    "{{ contact | attr('__class__') }}",
    "{{ '' | attr('format') }}",
    "{{ '{0.__class__}'.format(contact) }}",
    "{{ '{x.__class__}'.format_map(contact) }}",
    "{{ '%s' | format(contact) }}",
    "{{ ''.format.__func__ }}",
    "{{ ('a' | attr('format'))('b') }}",
    "{{ contact | xmlattr }}",
    "{{ {'a onclick=x': 1} | xmlattr }}",
    "{{ contact | map('attr', '__class__') | list }}",
    "{{ contact.tags.append('x') }}",
    "{{ contact.fields }}",
    "{{ contact.path }}",
    "{{ contact.tags.values }}",
    "{{ contact.tags.field }}",
    "{{ contact.firstName.upper }}",
    "{{ self }}",
    "{{ self._TemplateReference__context }}",
    "{{ lipsum.__globals__ }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ namespace(a=1) }}",
    "{{ joiner }}",
    "{{ dict }}",
    "{{ contact.firstName | safe }}",
    "{{ contact.firstName | pprint }}",
    "{{ contact.firstName | tojson }}",
    "{{ contact.firstName | replace('a', 'b') }}",
    "{% print contact.__init__ %}",
    "{% for x in contact.firstName.__class__.__mro__ %}{% endfor %}",
]
BOMBS = [
    "{{ 'x' * 200000000 }}",
    "{{ 10 ** 100000000 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ 'x' | center(200000000) }}",
    "{{ 'x' | indent(200000000) }}",
    "{{ contact.email | wordwrap(1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ contact.tags | batch(200000000, 'x') }}",
    "{{ contact.tags | slice(200000000) }}",
    "{% for a in range(99999999) %}{% for b in range(99999999) %}{% endfor %}{% endfor %}",
    "{% for a in contact.tags %}" + "".join(f"{{% for {x} in a %}}" for x in "bcd") + "{% endfor %}" * 4,
    "{% set x = 'x' %}{% for a in contact.tags %}{% set x = x ~ x %}{% endfor %}",
    "{{ lipsum(n=100000) }}",
]  # fmt: skip


@pytest.mark.parametrize("source", ESCAPES + BOMBS)
def test_escapes_and_bombs_are_told_and_never_run(source) -> None:
    assert told(source)
    assert refused(mail(source)).code in ("template_broken", "field_missing")
    assert refused(mail(None, html=source)).code in ("template_broken", "field_missing")


# --- what is wrong with a mail


GOOD = Content(
    subject="{{ contact.firstName or 'Hello' }}, a question",
    text="Hi {{ contact.firstName or 'there' }},\n\n{{ contact.customFields.hook }}\n\n{{ unsubscribeUrl }}",
    html='<html xmlns="http://www.w3.org/1999/xhtml"><style>p{color:red}</style><p>Hi {{ contact.firstName or "you" }}'
    ' <a href="{{ unsubscribeUrl }}">stop</a> <b>on time = on budget</b> {{ deal.expectedCloseDate | date }}</p>',
)


def test_a_good_template_has_no_problems() -> None:
    assert problems(GOOD, FIELDS, first=True) == []


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"subject": ""}, "subject, line 1: is empty"),
        ({"subject": " \n "}, "subject, line 1: is empty"),
        ({"subject": "Re: our call"}, "subject, line 1: a first mail may not begin with 'Re:'"),
        ({"subject": " fwd : our call"}, "may not begin with 'fwd:'"),
        ({"subject": "{{ contact.nope }}"}, "subject, line 1: 'contact' has no field 'nope'"),
        ({"html": "<p>" * 5001}, "html, line 1: has more than 5000 tags"),
        ({"html": "<p>\n<SCRIPT src=x>"}, "html, line 2: <script> is not allowed"),
        ({"html": "<form action=x>"}, "<form> is not allowed"),
        ({"html": "<iframe src=x>"}, "<iframe> is not allowed"),
        ({"html": "<p>\n\n<img src='x'\n onError = 'y'>"}, "html, line 4: the attribute 'onerror' is not allowed"),
        ({"html": "<a href='http://example.com'>x</a>"}, "html, line 1: a link begins with http:"),
        ({"html": "<a href = HTTP://example.com>x</a>"}, "a link begins with http:"),
        ({"html": "<style>p{background:url( 'http://x')}</style>"}, "a link begins with http:"),
        ({"text": "see\nhttp://example.com"}, "text, line 2: a link begins with http:"),
        ({"text": "SG.abcdefghijklmnopqrstuv.wxyz"}, "text, line 1: looks like a secret key ('SG.…')"),
        ({"text": "whsec_MfKQ9r8GKYqrTwjU"}, "looks like a secret key ('whs…')"),
        ({"html": "<p>sk_live_4eC39HqLyjWD</p>"}, "html, line 1: looks like a secret key ('sk_…')"),
    ],
)
def test_problems_name_part_and_line(parts, says) -> None:
    found = problems(GOOD.model_copy(update=parts), FIELDS, first=True)
    assert len(found) == 1
    assert says in found[0]


def test_an_answer_may_begin_with_re() -> None:
    assert problems(GOOD.model_copy(update={"subject": "Re: our call"}), FIELDS) == []


def test_a_hopeless_template_is_told_at_bounded_length() -> None:
    found = problems(
        mail(f"{{{{ {'x' * 100_000} }}}}" + "{{ nope }}\n{{ 1 + 1 }}\n" * 1000, html="<form>" * 9000), FIELDS
    )
    assert len(found) == 50
    assert all(len(one) < 400 for one in found)


@pytest.mark.parametrize(
    "document",
    [
        {"subject": "x"},
        {"subject": "x", "text": " ", "html": ""},
        {"text": "x"},
        {"subject": "x", "text": "x", "cc": "y"},
        {"subject": "x", "text": "ü" * (MAX_SOURCE // 2)},
        {"subject": "x", "text": "x" * (MAX_SOURCE // 2), "html": "x" * (MAX_SOURCE // 2)},
        {"subject": "x", "text": "\ud800"},
    ],
)
def test_content_that_is_no_mail_is_refused(document) -> None:
    with pytest.raises(ValidationError):
        Content.model_validate(document)


# --- the mail


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("{{ contact.title }}", "contact.title"),
        ("{{ contact.phone }}", "contact.phone"),
        ("{{ contact.customFields.blank }}", "contact.customFields.blank"),
        ("{{ contact.customFields.nothing }}", "contact.customFields.nothing"),
        ("{{ company.name }}", "company.name"),
        ("{{ company.customFields.x.y }}", "company.customFields.x.y"),
        ("{{ contact.title | upper }}", "contact.title"),
        ("{{ contact.tags[7] }}", "contact.tags[7]"),
        ("{{ contact.title or contact.phone }}", "contact.phone"),
        ("{% if contact.title > 1 %}x{% endif %}", "contact.title"),
        ("{% if 'x' in contact.title %}x{% endif %}", "contact.title"),
        ("{% for x in contact.title %}x{% endfor %}", "contact.title"),
        ("{{ contact.customFields.nothing | first }}", "contact.customFields.nothing"),
    ],
)
def test_a_missing_value_fails_by_the_name_of_its_field(source, path) -> None:
    for part in ("subject", "text", "html"):
        error = refused(mail_with(part, source))
        assert error.code == "field_missing"
        assert error.detail == f"{part}: '{path}' has no value, and the template gives no default for it"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ contact.tags }}", "'contact.tags' is a list"),
        ("{{ contact.customFields }}", "'contact.customFields' is a record"),
        ("{{ contact.firstName.x }}", "'x' is asked of a value that has no fields"),
        ("{{ contact.firstName | join }}", "what is given to 'join' is not a list"),
        ("{{ contact.firstName | date }}", "what is given to 'date' is not a date"),
        ("{% if contact.firstName > 3 %}x{% endif %}", "does not go with these values"),
        ("{% for x in deal.valueCents %}x{% endfor %}", "does not go with these values"),
        ("{% for x in contact.customFields %}x{% endfor %}", "does not go with these values"),
        ("{{ ['a'] }}", "a value of type list cannot be written"),
        ("{% if contact.title %}x{% endif %}", "nothing is left of it for this contact"),
    ],
)
def test_a_value_of_the_wrong_kind_breaks_the_template_and_is_not_told(source, says) -> None:
    error = refused(mail(source))
    assert error.code == "template_broken"
    assert error.detail.startswith("text: ")
    assert says in error.detail
    assert "ada" not in error.detail


def test_a_subject_that_comes_to_nothing_is_no_subject() -> None:
    assert refused(mail("x", subject="{% if contact.title %}x{% endif %}")).code == "template_broken"
    assert refused(mail("x", subject=" ")).code == "template_broken"


def test_a_subject_is_one_line_of_at_most_255_characters() -> None:
    facts = {"contact": {"firstName": "A\r\nBcc: x@example.com\x00\u2028\x85\t B"}}
    assert render(mail("x", subject="{{ contact.firstName }}\n!"), facts).subject == "A Bcc: x@example.com B !"
    assert len(render(mail("x", subject="é" * 300), {}).subject) == 255
    assert render(
        mail("x", subject="{{ contact.firstName }}"), {"contact": {"firstName": "<O'Neil> & co"}}
    ).subject == ("<O'Neil> & co")


def test_html_is_made_of_text() -> None:
    made = render(mail("Hi <b>,\nsee https://example.com/?a=1&b=2.\r\n \n\nBye (https://x.example)"), {}).html
    assert made == (
        "<html><head></head><body><p>Hi &lt;b&gt;,<br>see "
        '<a href="https://example.com/?a=1&amp;b=2">https://example.com/?a=1&amp;b=2</a>.</p>'
        '<p>Bye (<a href="https://x.example">https://x.example</a>)</p></body></html>'
    )


def test_text_is_made_of_html_with_its_links() -> None:
    made = render(
        mail(None, html='<h1>Hi &amp; bye</h1><p>See <a href="https://e.com/?a&amp;b">this</a><ul><li>one'), {}
    )
    assert "Hi & bye" in made.text
    assert "[this](https://e.com/?a&b)" in made.text
    assert "* one" in made.text
    assert "<" not in made.text


def test_values_are_escaped_in_html_and_plain_in_text() -> None:
    facts = {"contact": {"firstName": "<img src=x onerror=alert(1)>", "lastName": Markup("<b>bold</b>")}}
    made = render(
        mail("{{ contact.firstName }}", html="<p>{{ contact.firstName | upper }} {{ contact.lastName }}"), facts
    )
    assert made.text == "<img src=x onerror=alert(1)>"
    assert "&lt;IMG SRC=X" in made.html
    assert "&lt;b&gt;bold" in made.html


def test_styles_are_inlined_and_media_rules_kept() -> None:
    made = in_html("<style>p{color:red} @media (max-width:600px){p{color:blue}}</style><p>x")
    assert '<p style="color: red;">' in made
    assert "@media (max-width:600px)" in made


@pytest.mark.parametrize("link", ["file://{path}", "{path}", "{url}"])
def test_a_linked_stylesheet_is_never_fetched(link, tmp_path, unwanted) -> None:
    sheet = tmp_path / "leak.css"
    sheet.write_text("p { color: secret }")
    url, asked = unwanted
    link = link.format(path=sheet, url=url)
    made = in_html(f'<link rel="stylesheet" href="{link}"><style>@import url("{link}"); p{{margin:0}}</style><p>x')
    assert "secret" not in made
    assert asked() == 0


@pytest.fixture
def unwanted():
    """A server that nobody may call: its address, and how many did."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)

        def asked() -> int:
            try:
                connection, _ = server.accept()
            except BlockingIOError:
                return 0
            connection.close()
            return 1

        yield f"http://127.0.0.1:{server.getsockname()[1]}/leak.css", asked


@pytest.mark.parametrize(
    "value",
    ["javascript:alert(1)", "JaVaScRiPt:alert(1)", " javascript:x", "java\tscript:x", "\x01javascript:x", "vbscript:x",
     "data:text/html,x", "file:///etc/passwd", "&#106;avascript:x", "javascript&colon;x", "blob:x"],
)  # fmt: skip
def test_an_address_of_another_scheme_is_neutralised(value) -> None:
    facts = {"contact": {"customFields": {"site": value}}}
    for quote in ('"', "'") if "\t" in value else ('"', "'", ""):
        made = in_html(f"<a title='a>b' href={quote}{{{{ contact.customFields.site }}}}{quote}>x</a>", facts)
        literal = "&" in value  # escaped, so it is a path and no scheme
        assert ('href="#"' in made) != literal, made
    assert 'src="#"' in in_html('<p>x<IMG SRC="javascript:x">')


@pytest.mark.parametrize(
    "value",
    ["https://e.com/?a=1&b=javascript:x", "http://e.com", "mailto:a@e.com", "tel:+1", "#top", "/path", "//e.com"],
)
def test_an_address_that_a_mail_may_have_stays(value) -> None:
    made = in_html('<a href="{{ contact.customFields.site }}">x</a>', {"contact": {"customFields": {"site": value}}})
    assert f'href="{value.replace("&", "&amp;")}"' in made


def test_a_value_brings_no_attribute_that_acts() -> None:
    facts = {"contact": {"firstName": "x onclick=alert(1)"}}
    assert "onclick" not in in_html("<p title={{ contact.firstName }}>Hi</p>", facts)
    words = '<p>She said &lt;a href="javascript:x" onclick="y"&gt;</p>'
    assert words.replace("&gt;", ">") in in_html(words).replace("&gt;", ">")


def test_a_part_is_at_most_512_kilobytes() -> None:
    facts = {"contact": {"firstName": "é" * 10_000, "tags": ["x"] * 100}}
    for part in ("text", "html"):
        error = refused(mail_with(part, "{% for t in contact.tags %}{{ contact.firstName }}{% endfor %}"), facts)
        assert error.code == "template_too_big"
        assert error.detail == f"{part}: is larger than 512 KB"
    assert refused(mail("<" * (MAX_SOURCE - 10))).code == "template_too_big"  # escaping makes it four times as long
    assert refused(mail(None, html="<div>" * 50_000)).detail == "html: has more than 5000 tags"
    assert refused(mail(None, html="<table><td>" * 3000)).code == "template_too_big"
    assert in_html("<div>" * 4900 + "x")
    assert in_html("<table><td>" * 2450 + "x")
    styles = "".join(f"--a{n}:1;" for n in range(200))
    assert refused(mail(None, html=f"<style>p{{{styles}}}</style>" + "<p>x" * 1000)).code == "template_too_big"


def test_values_of_python_are_printed_or_refused_never_reached_into() -> None:
    facts = {"contact": {"email": datetime(2026, 1, 1, tzinfo=UTC), "firstName": "\ud800x\x07"}}
    assert refused(mail("{{ contact.email }}"), facts).code == "template_broken"
    assert refused(mail("{{ contact.email.year }}"), facts).code == "template_broken"
    assert shown("{{ contact.firstName }}", facts) == "?x"


def test_json_in_json_out() -> None:
    def answer(content: Content, facts: object) -> object:
        return json.loads(render_json(json.dumps({"content": content.model_dump(), "facts": facts}).encode()))

    assert Rendered(**answer(GOOD_ENOUGH, FACTS)) == render(GOOD_ENOUGH, FACTS)
    assert answer(mail("{{ company.name }}"), FACTS) == {
        "code": "field_missing",
        "detail": "text: 'company.name' has no value, and the template gives no default for it",
    }


GOOD_ENOUGH = mail("Hi {{ contact.firstName }} ü", html="<p>Hi {{ contact.tags | join }}")

# --- laws

pieces = st.sampled_from(
    ["{{", "}}", "{%", "%}", "{#", "#}", " ", "\n", "contact", ".firstName", ".tags", ".customFields", "deal", "x", "|",
     "'", '"', "(", ")", "[", "]", "0", "1", "-", "or", " if ", " else ", " in ", "for x in contact.tags", "endfor",
     "endif", "if contact.firstName", "raw", "endraw", "default('a')", "upper", "first", "join", "date", "truncate(3)",
     "==", ">", "<p>", "<a href=", "</a>", "<style>", "</style>", "p{", "color:red", ";", "@media", "<!--", "-->", "https://x.y",
     "javascript:", "\\", "\\ud800", "é", "~", "*", ",", ":", "not ", "none", "true", "set x=1"],
)  # fmt: skip
sources = st.lists(pieces, max_size=25).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=40
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.dates() | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
records = st.fixed_dictionaries({}, optional={"firstName": values, "tags": values, "customFields": values})
any_facts = st.fixed_dictionaries({}, optional={"contact": records | values, "deal": values, "x": values})


@given(sources, sources, sources, any_facts)
@example("x", "{{ contact.firstName | truncate(1) }}", "<p>", {"contact": {"firstName": "abc"}})
@example("x", "{{ contact.firstName }}", "<style>p{color:red;;:}</style>", {"contact": {"firstName": 10**5000}})
def test_nothing_but_a_template_error_comes_of_any_template_and_facts(subject, text, html, facts) -> None:
    try:
        content = Content(subject=subject, text=text, html=html)
    except ValidationError:
        return
    assert all(isinstance(one, str) for one in problems(content, FIELDS, first=True))
    try:
        made = render(content, facts)
    except TemplateError:
        return
    assert made.subject == " ".join(made.subject.split())
    assert len(made.text.encode()) <= MAX_OUTPUT
    assert len(made.html.encode()) <= MAX_OUTPUT


@given(st.sampled_from(["firstName", "title", "customFields.x"]), st.sampled_from([*FILTERS, None]),
       st.sampled_from([None, "", " ", ...]))  # fmt: skip
def test_none_is_never_written(field, filtered, nothing) -> None:
    arguments = {"truncate": "(5)", "default": "('there')"}
    piped = f"| {filtered}{arguments.get(filtered, '')}" if filtered else ""
    source = f"{{{{ contact.{field} {piped} }}}}"
    contact = {} if nothing is ... else {"firstName": nothing, "title": nothing, "customFields": {"x": nothing}}
    if filtered == "default":
        assert shown(source, {"contact": contact}) == "there"
    else:
        assert refused(mail(source), {"contact": contact}).code == "field_missing"


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=30).filter(str.strip))
def test_a_value_never_becomes_markup(value) -> None:
    facts = {"contact": {"firstName": value}}
    plain = in_html("<p title='{{ contact.firstName }}'>[{{ contact.firstName }}]</p>", facts)
    assert plain.count("<") - plain.split('title="')[1].split('">[')[0].count("<") == 8
