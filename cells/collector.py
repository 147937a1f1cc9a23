"""How a daemon's process collects garbage. Called once by whoever starts cells, when they are up."""

import gc

# Python's own thresholds are for programs of a few thousand objects. A top cell's roster has 200,000 that live for
# hours, and reading one hello makes thousands at once: half the time of taking it in went into looking through all of
# them again and again. What is in no cycle is freed at once as ever.
YOUNG, MIDDLE, OLD = 50_000, 20, 100


def calm() -> None:
    """Let the collector look seldom, and never again at what is there now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
