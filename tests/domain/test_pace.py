# mypy: ignore-errors
"""Pace: the hours of a mailbox around the awkward days of the year, and no send that a limit forbids."""

import itertools
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.due import WEEKDAYS
from domain.pace import Go, Hours, NotYet, Pace, next_opening, next_send
from tests.domain.strategies import ZONES, anchors

BERLIN, NEW_YORK, HAVANA = "Europe/Berlin", "America/New_York", "America/Havana"
WORKDAYS = list(WEEKDAYS[:5])
MONDAY_NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LENGTHS = {"per_minute": timedelta(minutes=1), "per_hour": timedelta(hours=1), "per_day": timedelta(days=1)}
REAL = datetime(2026, 3, 2, 7, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def wall(at: datetime, zone: str) -> str:
    return at.astimezone(ZoneInfo(zone)).strftime("%a %Y-%m-%d %H:%M")


def local(text: str, zone: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


def hours(opens: str = "09:00", closes: str = "17:00", weekdays: list[str] | None = None) -> Hours:
    return Hours(opens=opens, closes=closes, weekdays=weekdays or WORKDAYS)


def send(pace: Pace, now: datetime = MONDAY_NOON, zone: str = "UTC", *, claims=(), real_now=REAL, scale=1.0):
    """What is said where so many claims were made, as the store counts them."""
    latest = sorted(claims, reverse=True)
    nth = {name: latest[most - 1] if most <= len(latest) else None for name, (most, _) in pace.caps().items()}
    last = latest[0] if latest else None
    return next_send(pace, zone, now=now, real_now=real_now, scale=scale, last=last, nth=nth)


@pytest.mark.parametrize(
    ("zone", "windows", "now", "opens"),
    [
        ("UTC", [hours()], "2026-03-02 08:59", "Mon 2026-03-02 09:00"),
        ("UTC", [hours()], "2026-03-02 09:00", "Mon 2026-03-02 09:00"),
        ("UTC", [hours()], "2026-03-02 16:59", "Mon 2026-03-02 16:59"),
        ("UTC", [hours()], "2026-03-02 17:00", "Tue 2026-03-03 09:00"),
        # weekends, and the ends of months and years
        (BERLIN, [hours()], "2026-03-06 17:00", "Mon 2026-03-09 09:00"),
        (BERLIN, [hours()], "2026-03-07 12:00", "Mon 2026-03-09 09:00"),
        (BERLIN, [hours(weekdays=["mon"])], "2026-03-02 17:00", "Mon 2026-03-09 09:00"),
        (BERLIN, [hours(weekdays=["sun", "wed"])], "2026-12-30 17:00", "Sun 2027-01-03 09:00"),
        # several windows a day, in any order
        ("UTC", [hours("13:00", "17:00"), hours("09:00", "12:00")], "2026-03-02 08:00", "Mon 2026-03-02 09:00"),
        ("UTC", [hours("13:00", "17:00"), hours("09:00", "12:00")], "2026-03-02 12:00", "Mon 2026-03-02 13:00"),
        ("UTC", [hours("13:00", "17:00"), hours("09:00", "12:00")], "2026-03-02 17:00", "Tue 2026-03-03 09:00"),
        ("UTC", [hours("09:00", "14:00"), hours("12:00", "17:00")], "2026-03-02 14:00", "Mon 2026-03-02 14:00"),
        ("UTC", [hours(), hours("10:00", "11:00", ["sat"])], "2026-03-06 17:00", "Sat 2026-03-07 10:00"),
        # up to midnight and on from it
        ("UTC", [hours("22:00", "24:00")], "2026-03-02 23:59", "Mon 2026-03-02 23:59"),
        ("UTC", [hours("22:00", "24:00")], "2026-03-03 00:00", "Tue 2026-03-03 22:00"),
        ("UTC", [hours("22:00", "24:00"), hours("00:00", "02:00", ["sat"])], "2026-03-07 00:00",
         "Sat 2026-03-07 00:00"),
        ("UTC", [hours("00:00", "24:00", ["wed"])], "2026-03-02 09:00", "Wed 2026-03-04 00:00"),
        ("UTC", [hours("00:00", "24:00", list(WEEKDAYS))], "2026-03-07 03:00", "Sat 2026-03-07 03:00"),
        ("UTC", [hours("23:59", "24:00")], "2026-12-31 23:59", "Thu 2026-12-31 23:59"),
        # the nights of the change
        (BERLIN, [hours("09:00", "10:00", ["sun"])], "2026-03-28 12:00", "Sun 2026-03-29 09:00"),
        (NEW_YORK, [hours("22:00", "24:00", ["sun"])], "2026-11-01 12:00", "Sun 2026-11-01 22:00"),
        # a clock time that the day skips moves on by the gap, as that of a wait does
        (BERLIN, [hours("02:30", "05:00", ["sun"])], "2026-03-29 01:00", "Sun 2026-03-29 03:30"),
        (BERLIN, [hours("01:00", "02:30", ["sun"])], "2026-03-29 03:29", "Sun 2026-03-29 03:29"),
        (BERLIN, [hours("01:00", "02:30", ["sun"])], "2026-03-29 03:30", "Sun 2026-04-05 01:00"),
        # and hours that it skips are no hours
        (BERLIN, [hours("02:00", "03:00", ["sun"])], "2026-03-28 12:00", "Sun 2026-04-05 02:00"),
        (BERLIN, [hours("02:00", "03:00", ["sun"])], "2026-03-22 03:00", "Sun 2026-04-05 02:00"),
        (BERLIN, [hours("02:30", "03:00", ["sun", "mon"])], "2026-03-29 00:00", "Mon 2026-03-30 02:30"),
        # midnight itself is skipped
        (HAVANA, [hours("00:00", "08:00", ["sun"])], "2026-03-07 12:00", "Sun 2026-03-08 01:00"),
        (HAVANA, [hours("20:00", "24:00", ["sat"])], "2026-03-07 23:59", "Sat 2026-03-07 23:59"),
    ],
)  # fmt: skip
def test_a_mailbox_opens_at_the_first_instant_of_its_hours(zone, windows, now, opens) -> None:
    assert wall(next_opening(windows, zone, local(now, zone)), zone) == opens


def test_midnight_that_is_skipped_still_ends_the_day_before() -> None:
    late = [hours("20:00", "24:00", ["sat"])]
    assert wall(next_opening(late, HAVANA, local("2026-03-08 01:00", HAVANA)), HAVANA) == "Sat 2026-03-14 20:00"


def test_an_hour_that_comes_twice_is_open_from_its_first_opening_to_its_first_closing() -> None:
    first, second = (local("2026-10-25 02:15", BERLIN, fold) for fold in (0, 1))
    within, across = [hours("02:00", "02:30", ["sun"])], [hours("02:00", "03:00", ["sun"])]
    assert next_opening(within, BERLIN, first) == first
    assert wall(next_opening(within, BERLIN, second), BERLIN) == "Sun 2026-11-01 02:00"
    assert [next_opening(across, BERLIN, at) for at in (first, second)] == [first, second]


@pytest.mark.parametrize(
    ("own", "now", "seconds", "why"),
    [
        (None, datetime(2026, 3, 2, 7, tzinfo=UTC), 3600, "opens mon 09:00 in Europe/Berlin"),
        (NEW_YORK, datetime(2026, 3, 2, 7, tzinfo=UTC), 7 * 3600, "opens mon 09:00 in America/New_York"),
        ("Asia/Kathmandu", datetime(2026, 3, 2, 7, tzinfo=UTC), None, None),
        ("Asia/Kathmandu", datetime(2026, 3, 2, 11, 30, tzinfo=UTC), 15.75 * 3600, "opens tue 09:00 in Asia/Kathmandu"),
        # Saturday in Auckland while it is Friday in Berlin
        ("Pacific/Auckland", datetime(2026, 3, 6, 12, tzinfo=UTC), 56 * 3600, "opens mon 09:00 in Pacific/Auckland"),
    ],
)
def test_hours_are_in_the_mailboxs_zone_else_the_organizations(own, now, seconds, why) -> None:
    expected = Go() if seconds is None else NotYet(seconds, "hours", why)
    assert send(Pace(hours=[hours()], zone=own), now, BERLIN) == expected


def test_the_wait_across_a_change_of_summer_time_is_the_time_that_passes() -> None:
    sunday = Pace(hours=[hours(weekdays=["sun"])])
    for evening, seconds in (("2026-03-28 21:00", 11 * 3600), ("2026-10-24 21:00", 13 * 3600)):
        assert send(sunday, local(evening, BERLIN), BERLIN).seconds == seconds


def test_hours_pass_at_the_scale_of_business_time_and_the_rest_in_real_time() -> None:
    an_hour_early = MONDAY_NOON.replace(hour=8)
    assert send(Pace(hours=[hours()]), an_hour_early, scale=3600).seconds == 1
    spaced = Pace(spacing=30, per_minute=1)
    at_scale = send(spaced, an_hour_early, claims=[REAL - timedelta(seconds=10)], scale=3600)
    assert (at_scale.seconds, at_scale.limit) == (50, "per_minute")


def test_without_limits_a_mailbox_sends_at_once() -> None:
    assert send(Pace(), claims=[REAL] * 10) == Go()
    assert Pace().caps() == {}


@pytest.mark.parametrize(
    ("pace", "ages", "seconds", "limit"),
    [
        (Pace(spacing=30), [], None, None),
        (Pace(spacing=30), [0], 30, "spacing"),
        (Pace(spacing=30), [29.5, 100], 0.5, "spacing"),
        (Pace(spacing=30), [30], None, None),
        (Pace(spacing=0.25), [0.2], 0.05, "spacing"),
        (Pace(per_minute=2), [10], None, None),
        (Pace(per_minute=2), [10, 20], 40, "per_minute"),
        (Pace(per_minute=2), [10, 20, 30], 40, "per_minute"),
        (Pace(per_minute=2), [10, 60], None, None),
        (Pace(per_hour=1), [0], 3600, "per_hour"),
        (Pace(per_day=3), [1, 2, 3], 86397, "per_day"),
        (Pace(per_day=3), [1, 2, 86400], None, None),
        # the longest of all
        (Pace(spacing=30, per_minute=1), [10], 50, "per_minute"),
        (Pace(spacing=120, per_minute=1), [10], 110, "spacing"),
        (Pace(per_minute=1, per_hour=2, per_day=3), [10, 20, 30], 86370, "per_day"),
        (Pace(per_minute=1, per_hour=2, per_day=4), [10, 20, 30], 3580, "per_hour"),
    ],
)
def test_the_limit_that_holds_the_longest_is_the_one_that_is_told(pace, ages, seconds, limit) -> None:
    said = send(pace, claims=[REAL - timedelta(seconds=age) for age in ages])
    assert said == Go() if seconds is None else (said.seconds, said.limit) == (seconds, limit)


def test_the_reason_names_the_limit() -> None:
    claims = [REAL] * 3
    assert send(Pace(spacing=1.5), claims=claims).why == "1.5 s apart"
    assert send(Pace(per_hour=3), claims=claims).why == "3 per hour have left"
    assert send(Pace(hours=[hours(weekdays=["sat"])])).why == "opens sat 09:00 in UTC"


# --- laws

_clocks = st.integers(0, 24 * 60)


def _written(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


windows = st.builds(
    lambda ends, weekdays: hours(_written(min(ends)), _written(max(ends)), weekdays),
    st.lists(_clocks, min_size=2, max_size=2, unique=True),
    st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=7),
)
paces = st.builds(
    Pace,
    per_minute=st.none() | st.integers(1, 4), per_hour=st.none() | st.integers(1, 6),
    per_day=st.none() | st.integers(1, 8), spacing=st.sampled_from([0, 0.5, 7, 90, 3600]),
    hours=st.lists(windows, max_size=3), zone=st.none() | st.sampled_from(ZONES),
)  # fmt: skip
claims = st.lists(
    st.integers(0, 2 * 86400 * 1000).map(lambda ago: REAL - timedelta(milliseconds=ago)) | st.just(REAL), max_size=10
)
scales = st.sampled_from([1.0, 60.0, 21600.0])


def instant(day: date, clock: str, zone: str) -> datetime:
    """The day's clock time; 24:00 is the next day's 00:00."""
    ahead, at = (1, "00:00") if clock == "24:00" else (0, clock)
    return local(f"{day + timedelta(days=ahead)} {at}", zone)


def stretches(windows: list[Hours], zone: str, around: datetime) -> list[tuple[datetime, datetime]]:
    today = around.astimezone(ZoneInfo(zone)).date()
    days = [today + timedelta(days=n) for n in range(-2, 23)]
    return [
        (instant(day, one.opens, zone), instant(day, one.closes, zone))
        for day in days for one in windows if WEEKDAYS[day.weekday()] in one.weekdays
    ]  # fmt: skip


def broken(pace: Pace, zone: str, now: datetime, real_now: datetime, claims: list[datetime]) -> set[str]:
    """The limits that one more send would break, counted claim by claim."""
    found = {
        name
        for name, length in LENGTHS.items()
        if getattr(pace, name) and sum(real_now - one < length for one in claims) >= getattr(pace, name)
    }
    if any(real_now - one < timedelta(seconds=pace.spacing) for one in claims):
        found.add("spacing")
    inside = any(opens <= now < closes for opens, closes in stretches(pace.hours, pace.zone or zone, now))
    return found | ({"hours"} if pace.hours and not inside else set())


@given(paces, st.sampled_from(ZONES), anchors, claims, scales)
def test_it_goes_when_and_only_when_no_limit_is_broken(pace, zone, now, made, scale) -> None:
    said = send(pace, now, zone, claims=made, scale=scale)
    wrong = broken(pace, zone, now, REAL, made)
    assert isinstance(said, Go) is not bool(wrong)
    if isinstance(said, NotYet):
        assert said.limit in wrong
        assert said.seconds > 0
        assert said.why


@given(paces, st.sampled_from(ZONES), anchors, claims, scales)
def test_after_the_seconds_it_says_that_limit_is_over_and_it_goes_or_names_another(
    pace, zone, now, made, scale
) -> None:
    said = send(pace, now, zone, claims=made, scale=scale)
    for _ in range(4):
        if isinstance(said, Go):
            return
        # A clock of microseconds may still be one short of it.
        waited = timedelta(seconds=said.seconds) + TICK
        then, real_then = now + waited * scale, REAL + waited
        assert said.limit not in broken(pace, zone, then, real_then, made)
        held, said = said, send(pace, then, zone, claims=made, real_now=real_then, scale=scale)
        # While it waited for the longest, only hours can have closed.
        assert isinstance(said, Go) or (held.limit != "hours" and said.limit == "hours")
        now, made = then, [one - waited for one in made]
    assert isinstance(said, Go)


@given(paces, st.sampled_from(ZONES), anchors, claims, st.floats(0.01, 0.99))
def test_it_does_not_go_before_the_seconds_it_says(pace, zone, now, made, part) -> None:
    said = send(pace, now, zone, claims=made)
    if isinstance(said, NotYet):
        early = timedelta(seconds=said.seconds * part)
        sooner = send(pace, now + early, zone, claims=made, real_now=REAL + early)
        assert isinstance(sooner, NotYet)
        assert sooner.limit in (said.limit, "hours")


@given(st.lists(windows, min_size=1, max_size=3), st.sampled_from(ZONES), anchors)
def test_no_open_minute_is_passed_over(hours, zone, now) -> None:
    opens = next_opening(hours, zone, now)
    found = stretches(hours, zone, now)
    assert opens.tzinfo is UTC
    assert any(start <= opens < end for start, end in found)
    for minute in itertools.takewhile(lambda at: at < opens, (now + timedelta(minutes=n) for n in itertools.count())):
        assert not any(start <= minute < end for start, end in found)
    assert opens == now or any(start == opens for start, _ in found)


@given(st.lists(st.integers(0, 600_000), min_size=1, max_size=40), paces)
def test_a_mailbox_that_sends_whenever_it_may_never_breaks_a_cap(gaps, pace) -> None:
    """Asked at any instants, real time alone: over any stretch of a cap's length no more leave than it says."""
    pace, at, made = pace.model_copy(update={"hours": []}), REAL, []
    for gap in gaps:
        at += timedelta(milliseconds=gap)
        if send(pace, claims=made, real_now=at) == Go():
            made.append(at)
    for name, (most, length) in pace.caps().items():
        for start in made:
            assert sum(start <= one < start + length for one in made) <= most, name
    apart = [later - sooner for sooner, later in itertools.pairwise(made)]
    assert all(gap >= timedelta(seconds=pace.spacing) for gap in apart)
    assert made


@pytest.mark.parametrize(
    ("given_", "at"),
    [
        ({"perMinute": 0}, "perMinute"),
        ({"perDay": 100_001}, "perDay"),
        ({"spacing": -1}, "spacing"),
        ({"spacing": 3601}, "spacing"),
        ({"spacing": float("nan")}, "spacing"),
        ({"spacing": float("inf")}, "spacing"),
        ({"zone": "Mars"}, "zone"),
        ({"perWeek": 1}, "perWeek"),
        ({"hours": [{"weekdays": ["mon"], "opens": "09:00", "closes": "17:00"}] * 22}, "hours"),
        ({"hours": [{"weekdays": [], "opens": "09:00", "closes": "17:00"}]}, "hours.0.weekdays"),
        ({"hours": [{"weekdays": ["Mon"], "opens": "09:00", "closes": "17:00"}]}, "hours.0.weekdays.0"),
        ({"hours": [{"weekdays": ["mon"], "opens": "24:00", "closes": "24:00"}]}, "hours.0.opens"),
        ({"hours": [{"weekdays": ["mon"], "opens": "9:00", "closes": "17:00"}]}, "hours.0.opens"),
        ({"hours": [{"weekdays": ["mon"], "opens": "09:00", "closes": "24:01"}]}, "hours.0.closes"),
        ({"hours": [{"weekdays": ["mon"], "opens": "09:00", "closes": "09:00"}]}, "hours.0"),
        ({"hours": [{"weekdays": ["mon"], "opens": "22:00", "closes": "06:00"}]}, "hours.0"),
    ],
)
def test_a_pace_that_makes_no_sense_is_refused_where_it_makes_none(given_, at) -> None:
    with pytest.raises(ValidationError) as error:
        Pace.model_validate(given_)
    assert [".".join(map(str, one["loc"])) for one in error.value.errors()] == [at]


@given(paces)
def test_a_pace_is_the_same_after_a_trip_through_storage(pace) -> None:
    stored = pace.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert Pace.model_validate(stored) == pace


def test_the_time_of_day_is_read_to_the_microsecond() -> None:
    nine = datetime.combine(date(2026, 3, 2), time(9), tzinfo=UTC)
    assert next_opening([hours()], "UTC", nine - TICK) == nine
    five = nine.replace(hour=17)
    assert next_opening([hours()], "UTC", five - TICK) == five - TICK
    assert next_opening([hours()], "UTC", five) == nine + timedelta(days=1)
