# mypy: ignore-errors
"""When a wait is over: tables around the awkward hours of the year, and laws that hold everywhere."""

import itertools
import time as stopwatch
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.due import LATEST, WEEKDAYS, Amount, Calendar, Until, Wait, due, kept_still
from tests.domain.strategies import ZONES, amounts, anchors, calendars, untils, waits

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def wall(at: datetime, zone: str) -> str:
    return at.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M")


def local(text: str, zone: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


def after(anchor: datetime, amount: int, unit: str, zone: str = "UTC", **calendar: object) -> datetime:
    return due(anchor, Wait(for_=Amount(amount=amount, unit=unit)), Calendar(zone=zone, **calendar)).at


def until(anchor: datetime, at: str, zone: str = "UTC", **more: object) -> datetime:
    return due(anchor, Wait(until=Until(at=at, **more)), Calendar(zone=zone)).at


@pytest.mark.parametrize(
    ("zone", "anchor", "amount", "unit", "at"),
    [
        ("UTC", "2026-03-02 09:00", 0, "minutes", "2026-03-02 09:00"),
        ("UTC", "2026-03-02 09:00", 90, "minutes", "2026-03-02 10:30"),
        ("UTC", "2026-03-02 23:00", 2, "hours", "2026-03-03 01:00"),
        ("UTC", "2026-03-02 09:00", 0, "days", "2026-03-02 09:00"),
        (BERLIN, "2026-03-02 09:00", 3, "days", "2026-03-05 09:00"),
        (BERLIN, "2026-03-02 09:00", 2, "weeks", "2026-03-16 09:00"),
        # the day of the month, or the month's last
        (BERLIN, "2026-01-31 09:00", 1, "months", "2026-02-28 09:00"),
        (BERLIN, "2028-01-31 09:00", 1, "months", "2028-02-29 09:00"),
        (BERLIN, "2026-01-31 09:00", 3, "months", "2026-04-30 09:00"),
        (BERLIN, "2026-01-31 09:00", 2, "months", "2026-03-31 09:00"),
        (BERLIN, "2026-11-30 09:00", 1, "months", "2026-12-30 09:00"),
        (BERLIN, "2026-12-31 09:00", 1, "months", "2027-01-31 09:00"),
        (BERLIN, "2026-12-31 09:00", 2, "months", "2027-02-28 09:00"),
        (BERLIN, "2026-06-30 09:00", 0, "months", "2026-06-30 09:00"),
        (BERLIN, "2028-02-29 09:00", 12, "months", "2029-02-28 09:00"),
        (BERLIN, "2028-02-29 09:00", 48, "months", "2032-02-29 09:00"),
        (BERLIN, "2026-05-15 09:00", 1000, "months", "2109-09-15 09:00"),
        (BERLIN, "2028-02-28 09:00", 1, "days", "2028-02-29 09:00"),
        (BERLIN, "2026-02-28 09:00", 1, "days", "2026-03-01 09:00"),
        # hours are elapsed time, days keep the clock time: the nights of the change
        (BERLIN, "2026-03-28 09:00", 24, "hours", "2026-03-29 10:00"),
        (BERLIN, "2026-03-28 09:00", 1, "days", "2026-03-29 09:00"),
        (BERLIN, "2026-10-24 09:00", 24, "hours", "2026-10-25 08:00"),
        (BERLIN, "2026-10-24 09:00", 1, "days", "2026-10-25 09:00"),
        (NEW_YORK, "2026-03-07 09:00", 24, "hours", "2026-03-08 10:00"),
        (NEW_YORK, "2026-03-01 09:00", 1, "weeks", "2026-03-08 09:00"),
        (NEW_YORK, "2026-10-01 09:00", 1, "months", "2026-11-01 09:00"),
        (LORD_HOWE, "2026-10-03 09:00", 24, "hours", "2026-10-04 09:30"),
        (LORD_HOWE, "2026-10-03 09:00", 1, "days", "2026-10-04 09:00"),
        (LORD_HOWE, "2026-04-04 09:00", 24, "hours", "2026-04-05 08:30"),
        # a clock time that the day skips moves on by the gap
        (BERLIN, "2026-03-28 02:30", 1, "days", "2026-03-29 03:30"),
        (BERLIN, "2026-02-28 02:00", 1, "months", "2026-03-28 02:00"),
        (NEW_YORK, "2026-03-01 02:59", 1, "weeks", "2026-03-08 03:59"),
        (LORD_HOWE, "2026-10-03 02:10", 1, "days", "2026-10-04 02:40"),
        # and is itself again the day after
        (BERLIN, "2026-03-28 02:30", 2, "days", "2026-03-30 02:30"),
    ],
)
def test_an_amount_moves_the_anchor(zone, anchor, amount, unit, at) -> None:
    assert wall(after(local(anchor, zone), amount, unit, zone), zone) == at


def test_a_clock_time_that_comes_twice_is_the_first_of_the_two() -> None:
    assert after(local("2026-10-24 02:30", BERLIN), 1, "days", BERLIN) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert after(local("2026-04-04 01:45", LORD_HOWE), 1, "days", LORD_HOWE) == local("2026-04-05 01:45", LORD_HOWE)


def test_an_anchor_in_the_second_of_two_hours_stays_there_and_is_never_early() -> None:
    second = local("2026-10-25 02:30", BERLIN, fold=1)
    assert after(second, 0, "days", BERLIN) == second
    assert after(second, 0, "business_days", BERLIN, workdays=list(WEEKDAYS)) == second
    assert wall(after(second, 1, "days", BERLIN), BERLIN) == "2026-10-26 02:30"
    into_the_gap = (date(2027, 3, 28) - date(2026, 10, 25)).days
    assert wall(after(second, into_the_gap, "days", BERLIN), BERLIN) == "2027-03-28 03:30"


@pytest.mark.parametrize(
    ("anchor", "amount", "at"),
    [
        # 2026: Thursday 1 January; Good Friday 3 April, Easter Monday 6 April
        ("2026-03-02 09:00", 0, "2026-03-02 09:00"),
        ("2026-03-02 09:00", 1, "2026-03-03 09:00"),
        ("2026-03-06 09:00", 1, "2026-03-09 09:00"),
        ("2026-03-05 17:30", 3, "2026-03-10 17:30"),
        ("2026-03-07 09:00", 0, "2026-03-09 09:00"),
        ("2026-03-07 09:00", 1, "2026-03-09 09:00"),
        ("2026-03-08 09:00", 1, "2026-03-09 09:00"),
        ("2026-03-08 09:00", 2, "2026-03-10 09:00"),
        ("2026-04-02 09:00", 1, "2026-04-07 09:00"),
        ("2026-04-02 09:00", 3, "2026-04-09 09:00"),
        ("2026-04-03 09:00", 0, "2026-04-07 09:00"),
        ("2026-04-05 09:00", 1, "2026-04-07 09:00"),
        ("2026-03-27 09:00", 1, "2026-03-30 09:00"),
        ("2026-12-31 09:00", 1, "2027-01-01 09:00"),
        ("2026-03-02 00:00", 5, "2026-03-09 00:00"),
        ("2026-03-02 23:59", 5, "2026-03-09 23:59"),
    ],
)
def test_business_days_pass_over_weekends_and_holidays(anchor, amount, at) -> None:
    holidays = [date(2026, 4, 3), date(2026, 4, 6)]
    assert wall(after(local(anchor, BERLIN), amount, "business_days", BERLIN, holidays=holidays), BERLIN) == at


def test_a_business_day_is_a_day_of_the_calendars_zone_not_of_utc() -> None:
    friday_evening = datetime(2026, 3, 7, 1, tzinfo=UTC)  # Friday 20:00 in New York
    assert wall(after(friday_evening, 1, "business_days", NEW_YORK), NEW_YORK) == "2026-03-09 20:00"
    assert wall(after(friday_evening, 0, "business_days", NEW_YORK), NEW_YORK) == "2026-03-06 20:00"


def test_a_reason_names_the_days_passed_over_but_not_hundreds_of_them() -> None:
    few = due(
        local("2026-03-06 09:00", BERLIN), Wait(for_=Amount(amount=1, unit="business_days")), Calendar(zone=BERLIN)
    )
    assert few.chain[0].why == "1 business days, passing over 2026-03-07, 2026-03-08, same clock time in Europe/Berlin"
    many = due(local("2026-03-06 09:00", BERLIN), Wait(for_=Amount(amount=999, unit="business_days")), Calendar())
    assert "and 390 more" in many.chain[0].why
    assert len(many.chain[0].why) < 250


TEN_YEARS = [date(2026, 1, 1) + timedelta(days=n) for n in range(3653)]


def test_a_calendar_without_a_working_day_for_ten_years_waits_for_the_first_after_them() -> None:
    began = stopwatch.perf_counter()
    at = after(local("2026-03-02 09:00", BERLIN), 1, "business_days", BERLIN, holidays=TEN_YEARS)
    assert wall(at, BERLIN) == "2036-01-02 09:00"
    assert stopwatch.perf_counter() - began < 1


def test_a_thousand_mondays_are_a_thousand_mondays() -> None:
    at = after(local("2026-03-02 09:00", BERLIN), 1000, "business_days", BERLIN, workdays=["mon"])
    assert wall(at, BERLIN) == wall(after(local("2026-03-02 09:00", BERLIN), 1000, "weeks", BERLIN), BERLIN)


@pytest.mark.parametrize(
    ("zone", "anchor", "at", "weekdays", "answer"),
    [
        (BERLIN, "2026-03-02 08:00", "09:00", None, "2026-03-02 09:00"),
        (BERLIN, "2026-03-02 09:00", "09:00", None, "2026-03-02 09:00"),
        (BERLIN, "2026-03-02 09:01", "09:00", None, "2026-03-03 09:00"),
        (BERLIN, "2026-03-02 09:01", "09:00", ["mon"], "2026-03-09 09:00"),
        (BERLIN, "2026-03-02 09:00", "09:00", ["mon"], "2026-03-02 09:00"),
        (BERLIN, "2026-03-03 09:00", "09:00", ["mon"], "2026-03-09 09:00"),
        (BERLIN, "2026-03-06 18:00", "09:00", ["mon", "tue", "wed", "thu", "fri"], "2026-03-09 09:00"),
        (BERLIN, "2026-03-06 18:00", "09:00", ["sun", "fri"], "2026-03-08 09:00"),
        (BERLIN, "2026-02-28 18:00", "00:00", None, "2026-03-01 00:00"),
        (BERLIN, "2026-12-31 23:59", "00:00", None, "2027-01-01 00:00"),
        (BERLIN, "2026-03-28 12:00", "09:00", None, "2026-03-29 09:00"),
        (BERLIN, "2026-03-28 12:00", "02:30", None, "2026-03-29 03:30"),
        (BERLIN, "2026-03-29 04:00", "02:30", None, "2026-03-30 02:30"),
        (NEW_YORK, "2026-03-07 12:00", "02:00", None, "2026-03-08 03:00"),
        (LORD_HOWE, "2026-10-03 12:00", "02:15", None, "2026-10-04 02:45"),
    ],
)
def test_until_is_the_first_such_clock_time_at_or_after(zone, anchor, at, weekdays, answer) -> None:
    assert wall(until(local(anchor, zone), at, zone, weekdays=weekdays), zone) == answer


def test_until_takes_the_second_of_two_clock_times_where_the_first_is_over() -> None:
    first, second = local("2026-10-25 02:30", BERLIN), local("2026-10-25 02:30", BERLIN, fold=1)
    assert until(first - timedelta(minutes=1), "02:30", BERLIN) == first
    assert until(first + timedelta(minutes=1), "02:30", BERLIN) == second
    assert wall(until(second + timedelta(minutes=1), "02:30", BERLIN), BERLIN) == "2026-10-26 02:30"


MONDAY_NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "contact_zone", "answer", "source"),
    [
        ("organization", NEW_YORK, datetime(2026, 3, 3, 8, tzinfo=UTC), "the organization's zone"),
        ("contact", NEW_YORK, datetime(2026, 3, 2, 14, tzinfo=UTC), "the contact's zone"),
        ("contact", None, datetime(2026, 3, 3, 8, tzinfo=UTC), "the organization's zone, the contact's is not known"),
        ("Asia/Tokyo", NEW_YORK, datetime(2026, 3, 3, 0, tzinfo=UTC), "the zone named by the step"),
    ],
)
def test_until_counts_in_the_zone_the_step_asks_for_and_says_which_rule_chose_it(
    zone, contact_zone, answer, source
) -> None:
    calendar = Calendar(zone=BERLIN, contact_zone=contact_zone)
    found = due(MONDAY_NOON, Wait(until=Until(at="09:00", zone=zone)), calendar)
    assert found.at == answer
    assert found.chain[-1].why.endswith(f"({source})")


def test_for_moves_first_and_until_moves_on_from_there() -> None:
    wait = Wait(for_=Amount(amount=3, unit="days"), until=Until(at="09:00", weekdays=["mon"]))
    found = due(local("2026-03-02 10:00", BERLIN), wait, Calendar(zone=BERLIN))
    assert [(shift.rule, wall(shift.at, BERLIN)) for shift in found.chain] == [
        ("days", "2026-03-05 10:00"), ("until", "2026-03-09 09:00"),
    ]  # fmt: skip


def test_an_anchor_of_any_zone_counts_elapsed_hours() -> None:
    in_berlin = datetime(2026, 3, 28, 9, tzinfo=ZoneInfo(BERLIN))
    assert after(in_berlin, 24, "hours", BERLIN) == after(in_berlin.astimezone(UTC), 24, "hours", BERLIN)
    assert after(in_berlin, 0, "hours", BERLIN).tzinfo is UTC


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("unit", ["minutes", "hours", "days", "weeks", "months", "business_days"])
def test_a_wait_past_the_end_of_the_calendar_waits_and_never_fails(zone: str, unit: str) -> None:
    last = datetime.max.replace(tzinfo=UTC)
    wait = Wait(for_=Amount(amount=1000, unit=unit), until=Until(at="09:00"))
    for anchor in (last, last - timedelta(days=1), last - timedelta(hours=20), LATEST):
        found = due(anchor, wait, Calendar(zone=zone))
        assert found.at >= anchor
        assert found.at >= LATEST
        assert found.chain[-1].at == found.at
    assert due(LATEST, Wait(for_=Amount(amount=0, unit="months")), Calendar(zone=zone)).at == LATEST


@given(anchors, waits, calendars)
@settings(max_examples=100)
def test_due_is_utc_never_before_its_anchor_and_the_end_of_its_chain(anchor, wait, calendar) -> None:
    found = due(anchor, wait, calendar)
    assert found.at.tzinfo is UTC
    instants = [anchor, *(shift.at for shift in found.chain)]
    assert instants == sorted(instants)
    assert found.at == instants[-1]
    assert found.anchor == anchor
    assert len(found.chain) == (wait.for_ is not None) + (wait.until is not None)
    assert due(anchor, wait, calendar) == found


@given(anchors, st.integers(0, 999), amounts, calendars)
def test_a_greater_amount_is_never_sooner(anchor, amount, other, calendar) -> None:
    pair = [Wait(for_=Amount(amount=amount + more, unit=other.unit)) for more in (0, 1)]
    less, greater = [due(anchor, wait, calendar).at for wait in pair]
    assert less <= greater


@given(anchors, st.timedeltas(timedelta(0), timedelta(days=3)), untils, calendars)
def test_a_later_anchor_is_never_sooner_until(anchor, later, wait, calendar) -> None:
    waits_until = Wait(until=wait)
    assert due(anchor, waits_until, calendar).at <= due(anchor + later, waits_until, calendar).at


def exists(day: date, clock: time, zone: ZoneInfo) -> bool:
    there = datetime.combine(day, clock.replace(fold=0), tzinfo=zone)
    return there.astimezone(UTC).astimezone(zone).time() == clock.replace(fold=0)


@given(anchors, st.integers(0, 400), st.sampled_from(["days", "weeks", "months", "business_days"]), calendars)
@settings(max_examples=100)
def test_day_units_keep_the_local_clock_time_except_in_gaps(anchor, amount, unit, calendar) -> None:
    zone = ZoneInfo(calendar.zone)
    began = anchor.astimezone(zone)
    ended = due(anchor, Wait(for_=Amount(amount=amount, unit=unit)), calendar).at.astimezone(zone)
    clock = began.time().replace(fold=0)
    if exists(ended.date(), clock, zone):
        assert ended.time().replace(fold=0) == clock
    else:
        assert timedelta(0) < ended.replace(tzinfo=None) - datetime.combine(ended.date(), clock) <= timedelta(hours=1)


@given(anchors, st.integers(0, 60), calendars)
@settings(max_examples=100)
def test_business_days_end_on_the_nth_working_day(anchor, amount, calendar) -> None:
    def works(day: date) -> bool:
        return WEEKDAYS[day.weekday()] in calendar.workdays and day not in calendar.holidays

    zone = ZoneInfo(calendar.zone)
    first = anchor.astimezone(zone).date()
    last = due(anchor, Wait(for_=Amount(amount=amount, unit="business_days")), calendar).at.astimezone(zone).date()
    assert works(last)
    later = [first + timedelta(days=n) for n in range(1, (last - first).days + 1)]
    if amount:
        assert sum(map(works, later)) == amount
    else:
        assert not any(map(works, [first, *later][:-1]))


@given(anchors, untils, calendars)
@settings(max_examples=30)
def test_until_skips_no_such_clock_time(anchor, wait, calendar) -> None:
    """Minute by minute: no earlier one shows this clock time on such a day."""
    found = due(anchor, Wait(until=wait), calendar).at
    named = {"organization": calendar.zone, "contact": calendar.contact_zone or calendar.zone}
    zone = ZoneInfo(named.get(wait.zone, wait.zone))
    clock, days = time.fromisoformat(wait.at), wait.weekdays or WEEKDAYS
    minute = anchor.replace(second=0, microsecond=0) + timedelta(
        minutes=anchor.replace(second=0, microsecond=0) < anchor
    )
    for passed in itertools.takewhile(
        lambda one: one < found, (minute + timedelta(minutes=n) for n in itertools.count())
    ):
        there = passed.astimezone(zone)
        assert there.time().replace(fold=0) != clock or WEEKDAYS[there.weekday()] not in days
    there = found.astimezone(zone)
    assert WEEKDAYS[there.weekday()] in days
    assert there.time().replace(fold=0) == clock or not exists(there.date(), clock, zone)
    assert found - anchor <= timedelta(days=7, hours=2)


@pytest.mark.parametrize(
    ("wait", "says"),
    [
        ({}, "a wait needs 'for', 'until' or both"),
        ({"for": {"amount": -1, "unit": "days"}}, "for.amount"),
        ({"for": {"amount": 1001, "unit": "days"}}, "for.amount"),
        ({"for": {"amount": 1.5, "unit": "days"}}, "for.amount"),
        ({"for": {"amount": 10**400, "unit": "days"}}, "for.amount"),
        ({"for": {"amount": 1, "unit": "years"}}, "for.unit"),
        ({"for": {"amount": 1}}, "for.unit"),
        ({"until": {"at": "9:00"}}, "until.at"),
        ({"until": {"at": "24:00"}}, "until.at"),
        ({"until": {"at": "09:60"}}, "until.at"),
        ({"until": {"at": "09:00\n"}}, "until.at"),
        ({"until": {"at": "0٣:00"}}, "until.at"),
        ({"until": {"at": "09:0٣"}}, "until.at"),
        ({"until": {"at": "09:00", "weekdays": []}}, "until.weekdays"),
        ({"until": {"at": "09:00", "weekdays": ["monday"]}}, "until.weekdays"),
        ({"until": {"at": "09:00", "zone": "Berlin"}}, "'Berlin' is not a time zone"),
        ({"until": {"at": "09:00", "zone": "../../etc/passwd"}}, "is not a time zone"),
        ({"until": {"at": "09:00", "zone": "localtime"}}, "is not a time zone"),
        ({"until": {"at": "09:00", "zone": "europe/berlin"}}, "is not a time zone"),
        ({"until": {"at": "09:00"}, "then": 1}, "then"),
    ],
)
def test_a_wait_that_makes_no_sense_is_refused_by_name(wait, says) -> None:
    with pytest.raises(ValidationError) as error:
        Wait.model_validate(wait)
    assert says in str(error.value)


@pytest.mark.parametrize("calendar", [{"workdays": []}, {"zone": "Mars"}, {"contactZone": "Mars"}, {"holidays": ["x"]}])
def test_a_calendar_without_working_days_or_with_an_unknown_zone_is_refused(calendar) -> None:
    with pytest.raises(ValidationError):
        Calendar.model_validate(calendar)


@given(waits, calendars)
def test_a_wait_and_a_calendar_are_the_same_after_a_trip_through_json(wait, calendar) -> None:
    assert Wait.model_validate_json(wait.model_dump_json(by_alias=True, exclude_defaults=True)) == wait
    assert Calendar.model_validate_json(calendar.model_dump_json(by_alias=True)) == calendar


# --- what was kept still


@pytest.mark.parametrize(
    ("wait", "paused", "rules", "answer"),
    [
        ({"for": {"amount": 3, "unit": "days"}}, timedelta(0), ["days"], "2026-03-05 10:00"),
        ({"for": {"amount": 3, "unit": "days"}}, timedelta(days=2), ["days", "pauses"], "2026-03-07 10:00"),
        ({"for": {"amount": 0, "unit": "minutes"}}, timedelta(hours=1), ["minutes", "pauses"], "2026-03-02 11:00"),
        ({"for": {"amount": 1, "unit": "business_days"}}, timedelta(days=4), ["business_days", "pauses"],
         "2026-03-07 10:00"),
        # a clock time is that of the clock
        ({"until": {"at": "12:00"}}, timedelta(days=2), ["until"], "2026-03-02 12:00"),
        ({"for": {"amount": 1, "unit": "days"}, "until": {"at": "12:00"}}, timedelta(hours=1),
         ["days", "pauses", "until"], "2026-03-03 12:00"),
        ({"for": {"amount": 1, "unit": "days"}, "until": {"at": "12:00"}}, timedelta(hours=3),
         ["days", "pauses", "until"], "2026-03-04 12:00"),
        ({"for": {"amount": 1, "unit": "days"}, "until": {"at": "12:00", "weekdays": ["mon"]}}, timedelta(days=6),
         ["days", "pauses", "until"], "2026-03-09 12:00"),
        # elapsed time, also over a change of summer time
        ({"for": {"amount": 26, "unit": "days"}}, timedelta(days=2), ["days", "pauses"], "2026-03-30 11:00"),
    ],
)  # fmt: skip
def test_what_was_kept_still_extends_an_amount_and_no_clock_time(wait, paused, rules, answer) -> None:
    found = due(local("2026-03-02 10:00", BERLIN), Wait.model_validate(wait), Calendar(zone=BERLIN), paused)
    assert wall(found.at, BERLIN) == answer
    assert [shift.rule for shift in found.chain] == rules


@pytest.mark.parametrize(
    ("paused", "why"),
    [
        (timedelta(seconds=20), "kept still for less than a minute meanwhile"),
        (timedelta(minutes=5), "kept still for 5 minutes meanwhile"),
        (timedelta(hours=25, minutes=1), "kept still for 1 days 1 hours 1 minutes meanwhile"),
        (timedelta(days=400), "kept still for 400 days meanwhile"),
    ],
)
def test_the_reason_says_for_how_long_it_was_kept_still(paused, why) -> None:
    assert due(MONDAY_NOON, Wait(for_=Amount(amount=1, unit="days")), Calendar(), paused).chain[1].why == why


@given(anchors, waits, calendars, st.timedeltas(timedelta(0), timedelta(days=500)))
def test_to_be_kept_still_never_makes_a_wait_shorter(anchor, wait, calendar, paused) -> None:
    plain, longer = due(anchor, wait, calendar), due(anchor, wait, calendar, paused)
    instants = [anchor, *(shift.at for shift in longer.chain)]
    assert instants == sorted(instants)
    assert longer.at == instants[-1]
    if wait.for_ is None or not paused:
        assert longer == plain
    elif wait.until is None:
        assert longer.at == plain.at + paused
    else:
        assert longer.at >= plain.at
        assert longer.chain[1].at == plain.chain[0].at + paused


def test_a_pause_past_the_end_of_the_calendar_waits_and_never_fails() -> None:
    wait = Wait(for_=Amount(amount=1, unit="days"), until=Until(at="09:00"))
    assert due(LATEST, wait, Calendar(), timedelta(days=400)).at >= LATEST


def _second(number: int) -> datetime:
    return MONDAY_NOON + timedelta(seconds=number)


@pytest.mark.parametrize(
    ("pauses", "since", "now", "seconds"),
    [
        ([], 0, 100, 0),
        ([(10, 20)], 0, 100, 10),
        ([(10, 20), (15, 30)], 0, 100, 20),
        ([(10, 50), (20, 30)], 0, 100, 40),
        ([(10, 50), (10, 50)], 0, 100, 40),
        ([(10, 20), (20, 30)], 0, 100, 20),
        ([(40, 50), (10, 20)], 0, 100, 20),
        ([(10, None)], 0, 100, 90),
        ([(10, None), (20, 30)], 0, 100, 90),
        ([(10, 20), (5, None), (50, None)], 0, 100, 95),
        ([(-50, 20)], 0, 100, 20),
        ([(-50, -20), (-10, None)], 0, 100, 100),
        ([(50, 200)], 0, 100, 50),
        ([(150, 200), (150, None)], 0, 100, 0),
        ([(10, 20)], 30, 100, 0),
        ([(10, 20)], 15, 15, 0),
        ([(10, 90)], 50, 40, 0),
    ],
)
def test_pauses_count_once_however_they_lie(pauses, since, now, seconds) -> None:
    spans = [(_second(begins), None if ends is None else _second(ends)) for begins, ends in pauses]
    assert kept_still(spans, _second(since), _second(now)) == timedelta(seconds=seconds)


_moments = st.integers(-30, 130)


@given(st.lists(st.tuples(_moments, st.none() | _moments), max_size=6), _moments, _moments)
def test_what_was_kept_still_is_the_union_second_by_second(pauses, since, now) -> None:
    held = [
        at for at in range(since, now)
        if any(begins <= at and (ends is None or at < ends) for begins, ends in pauses)
    ]  # fmt: skip
    spans = [(_second(begins), None if ends is None else _second(ends)) for begins, ends in pauses]
    assert kept_still(spans, _second(since), _second(now)) == timedelta(seconds=len(held))
