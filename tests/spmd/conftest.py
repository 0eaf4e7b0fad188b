"""What the engine's tests share."""

import matplotlib
import pytest


@pytest.fixture(autouse=True)
def fresh_matplotlib():
    """The engine runs cells in this process, whose style other tests have set."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
