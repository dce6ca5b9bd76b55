"""What falls due of a cron while the clock of the wall is set, jumps ahead and is put right."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PRAGUE = ZoneInfo("Europe/Prague")
MINUTE, HOUR, DAY = 60, 3600, 86400
START = datetime.datetime(2026, 6, 1, tzinfo=PRAGUE)
EVERY = {MINUTE: "* * * * *", HOUR: "0 * * * *", DAY: "0 4 * * *"}

schedules = pytest.mark.parametrize("pause", EVERY, ids=EVERY.values())


class Wall:
    """A clock that a test sets."""

    def __init__(self, start):
        self.now = 1000.0
        self.lead = start.timestamp() - self.now

    def monotonic(self):
        return self.now

    def time(self):
        return self.now + self.lead


class Plan:
    """A cron by such a clock, and when it ran: at which seconds, in which minutes."""

    def __init__(self, expression, start=START, delay=0.0, burst=False):
        from neotasker.timing.cron import Cron
        from neotasker.timing.due import DueTimes

        self.clock = Wall(start)
        self.burst = burst
        self.cron = Cron(expression, PRAGUE)
        self.due = DueTimes(self.cron, self.clock, delay)
        self.real: list[float] = []
        self.walls: list[datetime.datetime] = []
        self.missed = 0

    def run(self, seconds):
        """Let time go by; return the minutes of the wall in which runs began."""
        before, end = len(self.walls), self.clock.now + seconds
        while self.clock.now + (pause := self.due.pause()) <= end:
            self.clock.now += pause
            fires, missed = self.due.take(self.burst)
            self.missed += missed
            for _ in range(fires):
                self.real.append(self.clock.now)
                self.walls.append(self.wall.replace(second=0, microsecond=0))
        self.clock.now = end
        return self.walls[before:]

    def set(self, seconds):
        """Put the clock forward or back."""
        self.clock.lead += seconds

    @property
    def wall(self):
        return datetime.datetime.fromtimestamp(self.clock.time(), PRAGUE)

    def due_until(self, moment):
        """Return the due times from now on, up to a moment."""
        from cronsim import CronSim

        found = []
        for due in CronSim(self.cron.expression, self.wall):
            if due > moment:
                return found
            found.append(due)
        return found


def after(*seconds):
    return [datetime.datetime.fromtimestamp(START.timestamp() + s, PRAGUE) for s in seconds]


@schedules
@pytest.mark.parametrize("days", [1, 3, 400])
def test_cron_goes_on_when_the_clock_has_been_ahead_and_was_put_right(nt, pause, days):
    plan = Plan(EVERY[pause])
    plan.run(2 * pause + 10)
    plan.set(days * DAY)
    assert len(plan.run(31)) == 1  # one run makes up for all
    plan.set(-days * DAY)
    expected = plan.due_until(plan.wall + datetime.timedelta(seconds=5 * pause))
    assert plan.run(5 * pause) == expected
    assert len(expected) == 5


@schedules
def test_cron_goes_on_when_the_machine_has_booted_days_ahead(nt, pause):
    plan = Plan(EVERY[pause], START + datetime.timedelta(days=900))
    plan.run(3 * pause + 10)
    plan.set(-900 * DAY)
    expected = plan.due_until(plan.wall + datetime.timedelta(seconds=5 * pause))
    assert plan.run(5 * pause) == expected


@schedules
def test_cron_goes_on_after_years_behind_with_one_run(nt, pause):
    plan = Plan(EVERY[pause], datetime.datetime(1970, 1, 3, tzinfo=PRAGUE))
    plan.run(31)
    plan.set(START.timestamp() - plan.clock.time() + 10)
    assert len(plan.run(31)) <= 1
    expected = plan.due_until(plan.wall + datetime.timedelta(seconds=3 * pause))
    assert plan.run(3 * pause) == expected


@schedules
@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.75, 0.85])
def test_a_due_time_is_not_taken_twice_when_the_clock_goes_back_by_less_than_a_pause(
    nt, pause, part
):
    plan = Plan(EVERY[pause])
    assert len(plan.run(5 * pause + 5)) == 5
    last = plan.walls[-1]
    plan.set(-part * pause)
    coming = plan.due_until(plan.wall + datetime.timedelta(seconds=2 * pause))
    assert plan.run(2 * pause) == [due for due in coming if due > last]


@pytest.mark.parametrize(("pause", "back"), [(MINUTE, 300), (MINUTE, DAY), (HOUR, 5 * HOUR)])
def test_cron_goes_on_by_the_corrected_clock_when_it_goes_back_by_more(nt, pause, back):
    plan = Plan(EVERY[pause])
    plan.run(10 * pause + 5)
    plan.set(-back)
    expected = plan.due_until(plan.wall + datetime.timedelta(seconds=8 * pause))
    # It may be that the first one comes before the next look.
    ran = plan.run(8 * pause)
    assert ran[-7:] == expected[-7:]
    assert len(set(ran)) == len(ran) <= 8


@pytest.mark.parametrize("back", [60, 1800, 3000])
@pytest.mark.parametrize("look", [0, 31])
def test_what_ran_before_the_clock_went_ahead_does_not_run_again(nt, back, look):
    plan = Plan("0 * * * *")
    assert plan.run(HOUR + 10) == after(HOUR)
    plan.set(3 * DAY)
    plan.run(look)
    plan.set(-3 * DAY - back)
    assert plan.run(back + HOUR) == after(2 * HOUR)


def test_a_clock_that_was_suspended_and_is_put_right_a_little_runs_nothing_twice(nt):
    plan = Plan("0 4 * * *")
    plan.run(10)
    plan.set(4 * HOUR)  # it slept until ten past four, and slept over the due time
    assert len(plan.run(31)) == 1
    plan.set(-50)
    assert plan.run(HOUR) == []
    assert plan.run(DAY) == after(28 * HOUR)


@pytest.mark.parametrize("step", [-29, -5, -0.5, 0.5, 5, 29])
def test_small_steps_neither_lose_nor_double_a_due_time(nt, step):
    plan = Plan("*/5 * * * *")
    start = plan.wall
    for _ in range(40):
        plan.run(100)
        plan.set(step)
    due = {wall.replace(second=0, microsecond=0) for wall in plan.walls}
    assert len(due) == len(plan.walls)
    last = plan.wall.timestamp()
    assert len(due) == pytest.approx((last - start.timestamp()) / 300, abs=1)


def test_a_clock_that_goes_to_and_fro_runs_each_due_time_of_the_right_one_once(nt):
    plan = Plan("0 * * * *")
    right = []
    for _ in range(30):
        right += plan.run(1500)
        plan.set(10 * DAY + 700)
        plan.run(300)
        plan.set(-10 * DAY - 700)
    # Those that came while the clock was ahead ran when it was put right.
    assert right == after(*range(HOUR, 30 * 1800, HOUR))


@pytest.mark.parametrize("day", [(2026, 3, 29), (2026, 10, 25)])
@pytest.mark.parametrize("expression", ["30 2 * * *", "0 4 * * *", "0 12 * * *"])
@pytest.mark.parametrize("hours", [24, 72])
def test_cron_is_right_across_a_change_that_the_clock_has_jumped_over(
    nt, day, expression, hours
):
    start = datetime.datetime(*day, tzinfo=PRAGUE) - datetime.timedelta(hours=3)
    plan = Plan(expression, start)
    plan.run(HOUR)
    plan.set(hours * HOUR)
    plan.run(HOUR)
    plan.set(-hours * HOUR)
    expected = plan.due_until(start + datetime.timedelta(days=4))
    assert plan.run(4 * DAY)[: len(expected)] == expected


@pytest.mark.parametrize("minutes", [5, 20, 45])
def test_in_the_hour_that_comes_twice_nothing_runs_twice(nt, minutes):
    start = datetime.datetime(2026, 10, 25, 2, 0, tzinfo=PRAGUE)
    plan = Plan("30 2 * * *", start)
    assert [(w.hour, w.minute, w.fold) for w in plan.run(HOUR + 900)] == [(2, 30, 0)]
    plan.set(-minutes * 60)  # back to some time of the first or the second pass
    assert plan.run(3 * HOUR) == []
    assert [w.day for w in plan.run(DAY)] == [26]


def test_a_plan_that_is_made_in_the_second_pass_of_an_hour_is_not_for_the_first(nt):
    start = datetime.datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=PRAGUE)
    plan = Plan("30 2 * * *", start)
    assert plan.cron.next.day == 26
    assert plan.run(HOUR) == []


def test_a_delay_is_kept_when_the_clock_is_put_back(nt):
    plan = Plan("* * * * *", delay=1800)
    plan.run(60)
    plan.set(-DAY)
    plan.run(3600)
    assert plan.real[0] >= 1000 + 1800
    assert plan.real[0] <= 1000 + 1800 + 60


def test_a_clock_that_says_that_it_is_never_set_is_not_looked_at(nt):
    plan = Plan("0 4 * * *")
    assert plan.due.pause() == 30
    plan.clock.steady = True
    assert plan.due.pause() == 4 * HOUR


def test_burst_makes_up_for_each_due_time(nt):
    plan = Plan("0 * * * *", burst=True)
    plan.set(10 * HOUR)
    assert len(plan.run(31)) == 10
    assert plan.missed == 0
    other = Plan("0 * * * *")
    other.set(10 * HOUR)
    assert len(other.run(31)) == 1
    assert other.missed == 9


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 2 * DAY),
            st.one_of(st.integers(-40, 40), st.integers(-5 * DAY, 5 * DAY)),
        ),
        max_size=8,
    ),
    pause=st.sampled_from([HOUR, DAY]),
    last=st.integers(0, DAY),
)
def test_however_it_is_set_cron_goes_on_and_runs_each_due_time_once(nt, steps, pause, last):
    plan = Plan(EVERY[pause])
    for seconds, step in steps:
        plan.run(seconds)
        plan.set(step)
    plan.run(last)
    plan.run(31)
    expected = plan.due_until(plan.wall + datetime.timedelta(seconds=6 * pause))
    ran = plan.run(6 * pause)
    # One may be passed over, since it ran before the last step.
    assert ran in (expected, expected[1:])
