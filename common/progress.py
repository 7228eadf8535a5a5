"""How far a long loop is: on a terminal a line that overwrites itself, in a log a line each."""

import sys
import time


def show(text):
    print(text, end="\r" if sys.stdout.isatty() else "\n", flush=True)


class Progress:
    """How many of `total` are done; `finished_before` of them were when the script began."""

    def __init__(self, total, unit, finished_before=0):
        self.total = total
        self.unit = unit
        self.finished_before = finished_before
        self.start = time.time()

    def seconds(self):
        return time.time() - self.start

    def show(self, done, rate=None):
        """A line such as: 512 of 2000 rows, 37/s, 40 s left. rate: in place of units a second."""
        per_second = (done - self.finished_before) / self.seconds()
        seconds_left = (self.total - done) / per_second
        rate = rate or f"{per_second:.0f}/s"
        show(f"{done} of {self.total} {self.unit}, {rate}, {seconds_left:.0f} s left")
