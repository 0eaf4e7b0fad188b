"""A run in one line."""

import json

import numpy as np
import pytest

from bnnlib.errors import RecordError
from bnnlib.record.failure import record_failure
from bnnlib.record.summary import closing_line, speed


def test_the_closing_line_by_hand(tmp_path):
    record_failure(tmp_path, {}, {"rank": 0, "type": "", "message": ""})
    nothing = f"accuracy –, NLL – nats, ECE –, – images/s, record: {tmp_path}"
    assert closing_line(tmp_path) == nothing
    metrics = {"accuracy": 0.924, "nll": 0.28414, "ece": 0.03918, "images_per_second": 48997.4}
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"metrics": metrics}))
    assert closing_line(tmp_path) == (
        f"accuracy 0.9240, NLL 0.2841 nats, ECE 0.0392, 48,997 images/s, record: {tmp_path}"
    )


@pytest.mark.parametrize(
    ("metrics", "per_second"),
    [
        ({"images_per_second": 9.5}, 9.5),  # nobody knows how long
        ({"images_per_second": 9.5, "timed_seconds": 1.0}, 9.5),
        ({"images_per_second": 9.5, "timed_seconds": 0.99, "train_seconds": 7.0}, None),
        ({"images_per_second": 9.5, "train_seconds": 0.1}, None),  # of an older record
        ({"images_per_second": 9.5, "timed_seconds": np.nan, "train_seconds": 7.0}, 9.5),
        ({"images_per_second": np.nan}, None),
        ({}, None),
    ],
)
def test_a_speed_takes_a_second_of_timed_steps(metrics, per_second):
    assert speed(metrics) == per_second


def test_a_run_too_short_for_a_speed_says_so(tmp_path):
    record_failure(tmp_path, {}, {"rank": 0, "type": "", "message": ""})
    record = json.loads((tmp_path / "run.json").read_text())
    short = {"images_per_second": 48997.4, "timed_seconds": 0.1}
    (tmp_path / "run.json").write_text(json.dumps(record | {"metrics": short}))
    assert ", too short for images/s, record: " in closing_line(tmp_path)


def test_no_record_is_told(tmp_path):
    with pytest.raises(RecordError, match="no readable run record"):
        closing_line(tmp_path)
