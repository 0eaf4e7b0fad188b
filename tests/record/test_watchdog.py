"""A watch ends what hangs, says where it was, and leaves alone what gets on or need not."""

import threading
import time

from bnnlib.record.watchdog import Watch


def test_what_hangs_is_ended_and_told_where():
    ended = threading.Event()
    errors = []

    def end(error):
        errors.append(error)
        ended.set()

    with Watch(0.2, end):
        assert ended.wait(20)  # the main thread hangs here
    (error,) = errors
    assert "(stall_minutes = 0.00333333): this rank hangs, or waits for one that does" in str(error)
    assert "test_what_hangs_is_ended_and_told_where" in error.__notes__[0]


def test_what_is_paused_or_not_watched_is_left_alone():
    errors = []
    with Watch(0.3, errors.append) as watch:
        watch.pause()
        time.sleep(1)
    with Watch(0, errors.append):
        time.sleep(0.3)
    assert errors == []
