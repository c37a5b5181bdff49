"""What hypothesis makes up: conditions, facts, waits, calendars and whole documents."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from hypothesis import strategies as st

from domain.conditions import All, Any, Comparison, Condition, Not
from domain.documents import (
    Act,
    Branch,
    ContactCreated,
    CreateTask,
    Email,
    Enroll,
    Exit,
    ExitWhen,
    MoveStage,
    Notify,
    Remind,
    RuleDocument,
    SendEmail,
    SequenceDocument,
    SetField,
    StageChanged,
    Step,
    TakeOut,
    Task,
    WaitStep,
)
from domain.due import WEEKDAYS, Amount, Calendar, Until, Wait
from domain.words import EventType, LeadStatus, Priority

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns")
UNITS = ("minutes", "hours", "days", "weeks", "months", "business_days")
FIELDS = (
    "deal.valueCents", "deal.stage", "deal.title", "deal.customFields.score", "contact.tags", "contact.email",
    "contact.leadScore", "contact.timeZone", "company.name", "event.before.stage", "event.after.stage", "event.type",
)  # fmt: skip

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
numbers = st.one_of(
    st.integers(-(10**18), 10**18), st.floats(-1e15, 1e15), st.sampled_from([0, 1, -1, 0.1, 10**200, 2**63])
)
scalars = st.one_of(texts, numbers, st.booleans())
dates = st.dates(date(1990, 1, 1), date(2100, 1, 1)).map(date.isoformat)
json_values = st.recursive(
    st.none() | scalars | dates,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def comparisons(draw: st.DrawFn, fields: st.SearchStrategy[str] | None = None) -> Comparison:
    """Any comparison that reads as one."""
    field = draw(fields if fields is not None else st.sampled_from(FIELDS))
    op = draw(st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "contains", "not_contains",
                               "is_empty", "is_not_empty"]))  # fmt: skip
    if op in ("is_empty", "is_not_empty"):
        return Comparison(field=field, op=op)
    if op in ("in", "not_in"):
        return Comparison(field=field, op=op, value=draw(st.lists(scalars, max_size=3)))
    if op in ("gt", "gte", "lt", "lte"):
        return Comparison(field=field, op=op, value=draw(numbers | dates))
    return Comparison(field=field, op=op, value=draw(scalars | dates))


def trees(leaves: st.SearchStrategy[Comparison], depth: int = 5) -> st.SearchStrategy[Condition]:
    """Conditions over such leaves, nested no deeper than `depth`."""
    if depth == 1:
        return leaves
    inner = st.deferred(lambda: trees(leaves, depth - 1))
    parts = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        leaves, parts.map(lambda some: All(all=some)), parts.map(lambda some: Any(any=some)),
        inner.map(lambda one: Not(not_=one)),
    )  # fmt: skip


@st.composite
def facts(draw: st.DrawFn) -> dict[str, object]:
    """Some value, of a fitting type or not, for some of the fields that conditions look at."""
    found: dict[str, object] = draw(
        st.dictionaries(st.sampled_from(["deal", "contact", "company", "event", "step"]), json_values, max_size=2)
    )
    for field in draw(st.lists(st.sampled_from(FIELDS), unique=True)):
        *path, name = field.split(".")
        here = found
        for part in path:
            inside = here.get(part)
            if not isinstance(inside, dict):
                inside = here[part] = {}
            here = inside
        here[name] = draw(json_values)
    return found


amounts = st.builds(Amount, amount=st.integers(0, 1000), unit=st.sampled_from(UNITS))
untils = st.builds(
    Until,
    at=st.times().map(lambda clock: clock.strftime("%H:%M")),
    weekdays=st.none() | st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=7),
    zone=st.sampled_from(["organization", "contact", *ZONES]),
)
waits = st.one_of(
    amounts.map(lambda amount: Wait(for_=amount)), untils.map(lambda until: Wait(until=until)),
    st.builds(lambda amount, until: Wait(for_=amount, until=until), amounts, untils),
)  # fmt: skip
calendars = st.builds(
    Calendar,
    zone=st.sampled_from(ZONES),
    workdays=st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=7),
    holidays=st.lists(st.dates(date(2024, 1, 1), date(2027, 12, 31)), max_size=30),
    contact_zone=st.none() | st.sampled_from(ZONES),
)
# Half of the anchors lie within a day of a change of summer time in one of the zones.
_CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
]  # fmt: skip
anchors = st.one_of(
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  (hypothesis adds the zone)
    st.builds(
        lambda change, minutes: change + timedelta(minutes=minutes),
        st.sampled_from(_CHANGES), st.integers(-1440, 1440),
    ),
)  # fmt: skip

_titles = texts.map(lambda text: f"x{text}")
_people = st.one_of(st.sampled_from(["owner", "manager"]), st.uuids())
_set_fields = st.one_of(
    st.builds(lambda value: ("contact.leadStatus", value), st.sampled_from([one.value for one in LeadStatus])),
    st.builds(lambda value: ("deal.valueCents", value), st.integers(0, 10**15)),
    st.builds(lambda value: ("deal.expectedCloseDate", value), dates | st.none()),
    st.builds(lambda value: ("company.name", value), _titles),
)
actions = st.one_of(
    st.builds(
        CreateTask, type=st.just("create_task"), title=_titles, body=texts, assign_to=_people,
        due_in=st.none() | amounts, priority=st.sampled_from(Priority),
    ),
    _set_fields.map(lambda pair: SetField(type="set_field", field=pair[0], value=pair[1])),
    st.builds(MoveStage, type=st.just("move_stage"), to=st.sampled_from(["lead", "proposal", "closed_won"])),
    st.builds(
        Remind, type=st.just("remind"), title=_titles, to=_people, after=amounts,
        escalate_after=st.none() | amounts,
    ),
    st.builds(Notify, type=st.just("notify"), title=_titles, to=_people),
)  # fmt: skip
_moves = st.one_of(
    st.builds(Enroll, type=st.just("enroll"), sequence=st.uuids()),
    st.builds(TakeOut, type=st.just("take_out"), sequence=st.none() | st.uuids()),
)
_stages = st.lists(st.sampled_from(["lead", "proposal", "closed_won"]), max_size=2)
_triggers = st.one_of(
    st.builds(StageChanged, on=st.just(EventType.DEAL_STAGE_CHANGED), from_=_stages, to=_stages),
    st.builds(ContactCreated, on=st.just(EventType.CONTACT_CREATED)),
)


@st.composite
def documents(draw: st.DrawFn, depth: int = 3) -> RuleDocument:
    """A document that may be switched on: every step can be reached, every field exists."""
    trigger, conditions = draw(_triggers), draw(st.none() | trees(comparisons(), 3))
    return RuleDocument(trigger=trigger, conditions=conditions, steps=draw(_steps(depth)))


_OWN_FIELDS = [field for field in FIELDS if not field.startswith("event.")]
_mails = st.one_of(
    st.builds(lambda id_: {"template": id_}, st.uuids()),
    st.builds(
        lambda subject, written: {"subject": subject, **written},
        _titles, st.fixed_dictionaries({"text": _titles}, optional={"html": st.just("<p>Hi {{ contact.email }}</p>")}),
    ),
)  # fmt: skip
_answers = _mails | st.builds(lambda text: {"text": text}, _titles)
_stops = st.one_of(
    st.builds(
        ExitWhen, on=st.just(EventType.DEAL_STAGE_CHANGED), to=_stages,
        condition=st.none() | trees(comparisons(), 3),
    ),
    st.builds(
        ExitWhen, on=st.just(EventType.CONTACT_UPDATED),
        changed=st.lists(st.sampled_from(["ownerId", "email", "leadStatus"]), max_size=2),
        condition=st.none() | trees(comparisons(), 3),
    ),
    st.builds(ExitWhen, on=st.just(EventType.DEAL_UPDATED), changed=st.lists(st.just("valueCents"), max_size=1)),
)  # fmt: skip


@st.composite
def sequences(draw: st.DrawFn, depth: int = 2) -> SequenceDocument:
    """A sequence that may be switched on: as `documents`, and every answer has a mail before it."""
    return SequenceDocument(
        steps=draw(_steps(depth, mails=True)),
        exits=draw(st.lists(_stops, max_size=3)),
        again=draw(st.sampled_from(["never", "always"]) | amounts),
        mailbox=draw(st.none() | st.uuids()),
        stop_on_reply=draw(st.booleans()),
    )


@st.composite
def _steps(draw: st.DrawFn, depth: int, *, mails: bool = False) -> list[Step]:
    ids: list[str] = []
    mailed = False

    def mail(deeper: int) -> dict[str, object]:
        nonlocal mailed
        answers = mailed and draw(st.booleans())
        mailed = mailed or deeper == depth  # on every way, then
        return {**draw(_answers), "thread": "same"} if answers else draw(_mails)

    def step(deeper: int, *, last: bool) -> Step:
        kinds = ["act", "wait", *(["branch"] if deeper else []), *(["exit"] if last else [])]
        kind = draw(st.sampled_from([*kinds, "email", "task", "send"] if mails else kinds))
        fields = _OWN_FIELDS if mails else FIELDS
        earlier = [f"step.{id_}.done" for id_ in ids]
        ids.append(f"s{len(ids)}")
        id_ = ids[-1]
        match kind:
            case "act":
                return Act(kind="act", id=id_, action=draw(actions | _moves if mails else actions))
            case "email":
                return Email(kind="email", id=id_, **mail(deeper))
            case "send":
                return Act(kind="act", id=id_, action=SendEmail(type="send_email", **mail(deeper)))
            case "task":
                return Task(kind="task", id=id_, title=draw(_titles), assign_to=draw(_people), due_in=draw(amounts))
            case "wait":
                return WaitStep(kind="wait", id=id_, wait=draw(waits))
            case "exit":
                return Exit(kind="exit", id=id_)
        tree = draw(trees(comparisons(st.sampled_from([*fields, *earlier])), 3))
        # Only one side may exit, so that what follows can be reached.
        return Branch(
            kind="branch", id=id_, condition=tree,
            then=steps(deeper - 1, 0, exits=True), else_=steps(deeper - 1, 0, exits=last),
        )  # fmt: skip

    def steps(deeper: int, least: int, *, exits: bool) -> list[Step]:
        many = draw(st.integers(least, 3))
        return [step(deeper, last=exits and index == many - 1) for index in range(many)]

    return steps(depth, 1, exits=True)


def ids(number: int) -> UUID:
    """A readable id."""
    return UUID(int=number)
