"""Archives of measurements: the right rows at the right times, whatever was missed."""

import math

from xenapi_host.simulator.rrd import STEP, Rrd, samples_for

DAY = 86400


def _measured(seconds, *, every=STEP, start=0):
    rrd = Rrd()
    for now in range(start + STEP, start + seconds + 1, every):
        rrd.add(now, {"now": float(now)})
    return rrd


def test_each_archive_has_its_step_its_length_and_its_function():
    rrd = _measured(3 * 3600)
    seconds = rrd.archive("AVERAGE", 1).rows
    assert len(seconds) == 120
    assert (seconds[0][0], seconds[-1][0]) == (3 * 3600 - 119 * STEP, 3 * 3600)
    minute = rrd.archive("AVERAGE", 12).rows[-1]
    assert minute == (3 * 3600, {"now": 3 * 3600 - 60 + 27.5})  # of the samples from :00 to :55
    assert rrd.archive("MIN", 12).rows[-1][1] == {"now": 3 * 3600 - 60}
    assert rrd.archive("MAX", 12).rows[-1][1] == {"now": 3 * 3600 - 5}
    assert [time for time, _ in rrd.archive("AVERAGE", 720).rows] == [3600, 7200, 10800]
    assert not rrd.archive("AVERAGE", 17280).rows


def test_a_day_is_one_row_of_the_longest_archive():
    rrd = _measured(DAY + STEP, every=60)
    assert [time for time, _ in rrd.archive("MAX", 17280).rows] == [DAY]


def test_time_that_was_not_measured_has_rows_without_values():
    rrd = Rrd()
    for now in (5, 10, 30, 35):
        rrd.add(now, {"x": 1.0})
    found = rrd.archive("AVERAGE", 1).between(0, 35)
    assert [time for time, _ in found] == [5, 10, 15, 20, 25, 30, 35]
    assert [bool(values) for _, values in found] == [False, True, True, False, False, False, True]
    rrd.add(34, {"x": 99.0})  # a clock that went back
    assert rrd.last == {"x": 1.0}


def test_the_archive_that_reaches_back_far_enough_is_taken_and_no_finer_than_asked():
    assert samples_for(1000, 995) == 1
    assert samples_for(1000, 1000 - 600) == 1
    assert samples_for(10_000, 10_000 - 601) == 12
    assert samples_for(10**6, 10**6 - 3 * 3600) == 720
    assert samples_for(10**8, 10**8 - 300 * DAY) == 17280
    assert samples_for(10**8, 0) == 17280
    assert samples_for(1000, 995, interval=60) == 12


def test_a_forgotten_source_leaves_the_others():
    rrd = Rrd()
    for now in (5, 10):
        rrd.add(now, {"x": 1.0, "y": math.pi})
    rrd.forget("x")
    assert rrd.archive("AVERAGE", 1).rows[-1] == (10, {"y": math.pi})
