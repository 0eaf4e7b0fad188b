"""Whether a posterior has converged: the rule by hand, and runs that end by it."""

import json

import horovod.tensorflow as hvd
import pytest
import tensorflow as tf

from bnnlib import data
from bnnlib.record.convergence import convergence, sentence
from bnnlib.record.logs import StepLog, read_posterior, read_steps
from tests.record.small_runs import finish, start


@pytest.fixture(scope="module")
def tiny():
    hvd.init()
    return data.load("tiny")


def lines(*kls):
    """A line every ten steps with these KLs."""
    rest = {"epoch": 1.0, "loss": 1.0, "nll": 1.0, "learning_rate": 0.1, "warmup": False}
    rest |= {"images_per_second": 1.0, "seconds": 1.0}
    return [StepLog(step=10 * n, kl=kl, **rest) for n, kl in enumerate(kls, start=1)]


def test_the_rule_by_hand():
    # Ten lines: the first nine tenths end at the ninth.
    found = convergence(lines(900, 800, 700, 600, 500, 400, 300, 200, 101, 100))
    assert found == {
        "converged": True,
        "kl": 100,
        "kl_before": 101,
        "step_before": 90,
        "way": 800,
        "change": pytest.approx(0.01),
        "limit": 0.02,
    }
    assert sentence(found) == (
        "The posterior has converged: over the last 10% of the training KL(q||p) went from 101 to "
        "100 nats, which is 1.0% of the KL(q||p) now (limit 2%)."
    )
    risen = convergence(lines(900, 800, 700, 600, 500, 400, 300, 200, 97, 100))
    assert not risen["converged"]
    assert risen["change"] == pytest.approx(0.03)
    assert sentence(risen).startswith("The posterior has NOT converged: ")


def test_a_line_inside_the_last_tenth_is_not_what_was_before():
    twenty = lines(*range(1000, 100, -50), 110, 100)  # the 18th is 150
    assert convergence(twenty)["change"] == pytest.approx(0.5)


def test_a_run_that_has_hardly_moved_has_not_converged():
    # One per cent of the KL in the last tenth, but a ninth of all that it has moved.
    slow = convergence(lines(*(1000 - 10 * n for n in range(10))))
    assert not slow["converged"]
    assert slow["change"] == pytest.approx(1 / 9)
    # The sentence says of what: 10 of 910 nats would be 1.1 %.
    assert "from 920 to 910 nats, which is 11.1% of the way that it has gone (90 nats)" in (
        sentence(slow)
    )


@pytest.mark.parametrize("kls", [(900, 500, 499.9), (900, 500, 400)])
def test_of_a_line_that_lies_far_back_nothing_is_claimed(kls):
    # Three lines: the one before the last tenth is a third of the training back.
    found = convergence(lines(*kls))
    assert (found["converged"], found["change"]) == (None, None)
    assert sentence(found).startswith("Too few log lines")
    # Four lines: a quarter.
    assert convergence(lines(1000, *kls))["converged"] == (kls[-1] == 499.9)


@pytest.mark.parametrize("kls", [[], [0.0] * 20])
def test_without_a_posterior_there_is_nothing_to_converge(kls):
    assert convergence(lines(*kls)) is None
    assert sentence(None) == ""


@pytest.mark.parametrize("kls", [[5.0], [5.0] * 20])
def test_of_a_kl_that_never_moved_nothing_can_be_said(kls):
    found = convergence(lines(*kls))
    assert (found["converged"], found["change"]) == (None, None)
    assert sentence(found).startswith("Too few log lines")


def test_the_record_holds_the_rule_with_its_numbers(tiny, tmp_path):
    for model in ("BNN_FC_flip", "CNN_FC"):
        run, trainer = start(tiny, tmp_path / model, model=model, epochs=2)
        finish(run, trainer, tiny)
        record = json.loads((tmp_path / model / "run.json").read_text())
        assert record["converged"] == convergence(read_steps(tmp_path / model))
        assert (record["converged"] is None) == (model == "CNN_FC")


# Without likelihood the posterior goes to the prior, which it reaches in some 50 of these epochs.
FAST = {"until": "converged", "epochs": 400, "rho_rate": 10.0, "learning_rate": 0.03}
FAST |= {"kl_weight": 1e4, "batch_size": 64, "log_every": 100}


def test_training_until_converged_ends_when_the_rule_holds(tiny, tmp_path):
    run, trainer = start(tiny, tmp_path, **FAST)
    finish(run, trainer, tiny)
    steps = read_steps(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["status"], record["converged"]["converged"]) == ("finished", True)
    assert 2 < steps[-1].epoch < 400
    for end in range(1, len(steps)):
        assert not convergence(steps[:end])["converged"]
    assert read_posterior(tmp_path)[-1].step == steps[-1].step
    assert run.is_trained(trainer)


def test_a_run_that_has_converged_trains_no_step_more_when_it_is_continued(tiny, tmp_path):
    run, trainer = start(tiny, tmp_path, **FAST)
    run.resume(trainer)
    lines_of_whole = [line.step for line in run.follow(trainer)]
    run.abandon()  # before its evaluation
    again, other = start(tiny, tmp_path, **FAST)
    assert again.resume(other) == lines_of_whole[-1]
    assert list(again.follow(other)) == []
    for name, value in trainer.network.weights().items():
        tf.debugging.assert_equal(value, other.network.weights()[name])
    again.abandon()


def test_a_deterministic_run_trains_all_its_epochs(tiny, tmp_path):
    run, trainer = start(tiny, tmp_path, model="CNN_FC", until="converged", epochs=3)
    finish(run, trainer, tiny)
    assert read_steps(tmp_path)[-1].epoch == 3.0
