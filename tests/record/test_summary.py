"""A run in one line."""

import json

import pytest

from bnnlib.errors import RecordError
from bnnlib.record.failure import record_failure
from bnnlib.record.summary import closing_line


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


def test_no_record_is_told(tmp_path):
    with pytest.raises(RecordError, match="no readable run record"):
        closing_line(tmp_path)
