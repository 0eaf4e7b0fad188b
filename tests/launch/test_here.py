"""Plans of many runs, and one of them run at two ranks, twice."""

import sys

import pytest

from bnnlib.analysis import runs as run_tables
from bnnlib.errors import ExperimentError
from bnnlib.launch import here as plans
from bnnlib.record import profile
from bnnlib.record.logs import read_accuracy
from bnnlib.record.profile import read_profile

PLAN = """
- group: weak
  ranks: [1, 2]
  common: {dataset: tiny, epochs: 3}
  grid: {model: [CNN_FC, BNN_FC_flip], noise: [independent, shared]}
- group: strong
  ranks: [2]
  common: {dataset: tiny, learning_rate_scaling: none}
  grid: {model: [CNN_FC], global_batch: [32]}
"""


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def test_a_plan_is_every_combination_of_its_parts(plan):
    alone = plans.read_plan(plan, 1, "runs")
    assert [(one.model, one.noise) for one in alone] == [
        (model, noise) for model in ("CNN_FC", "BNN_FC_flip") for noise in ("independent", "shared")
    ]
    assert {one.epochs for one in alone} == {3}
    two = plans.read_plan(plan, 2, "runs", repeat=1)
    assert len(two) == 5
    assert (two[-1].batch_size, two[-1].learning_rate_scaling) == (16, "none")
    assert two[-1].run_dir == "runs/strong/CNN_FC-r2-global_batch=32-repeat1"
    directories = [one.run_dir for one in (*alone, *two)]
    assert len(set(directories)) == len(directories)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no readable plan"),
        ("group: weak", "expected a list of parts"),
        ("- {grid: {model: [CNN_FC]}}", "a part has a group"),
        ("- {group: a, gird: {}}", "a part has a group"),
        ("- {group: a, common: {global_batch: 64}}", "expected a multiple of the ranks, 3"),
        ("- {group: a, grid: {modle: [CNN_FC]}}", "did you mean model?"),
    ],
)
def test_a_wrong_plan_is_told(tmp_path, text, message):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ExperimentError) as told:
        plans.read_plan(path, 3, "runs")
    assert message in str(told.value)


def test_the_studys_own_plans_are_experiments():
    for name, ranks in (
        ("scaling", 2),
        ("calibration", 8),
        ("scaling_short", 2),
        ("calibration_short", 2),
    ):
        assert plans.read_plan(f"jobs/plans/{name}.yaml", ranks, "runs")


@pytest.mark.ranks
def test_two_ranks_run_a_plan_with_its_profiles_and_pass_over_what_is_finished(launch, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "- group: g\n"
        "  common: {dataset: tiny, batch_size: 16, epochs: 2, log_every: 2, test_draws: 2,\n"
        "           profile: true, evaluate_every: 1, threads: 1}\n"
        "  grid: {model: [CNN_FC, BNN_FC_flip], compression: [none, fp16]}\n"
    )
    command = (
        "mpiexec",
        "-n",
        "2",
        sys.executable,
        "-m",
        "bnnlib.launch.here",
        plan,
        tmp_path / "runs",
    )
    done = launch(*command, timeout=180)
    assert done.returncode == 0, done.stderr
    table = run_tables.load(tmp_path / "runs" / "g").set_index(["model", "compression"])
    assert set(table.status) == {"finished"}
    assert set(table.ranks) == {2}
    assert (table.cores >= 1).all()
    assert (table.step_ms_p10 <= table.step_ms_p50).all()
    assert (table.step_ms_p50 <= table.step_ms_p90).all()
    for (model, compression), run in table.iterrows():
        found = read_profile(run.path)
        # 256 images, 32 a step, twice; each step on both ranks, its parts filling it.
        assert found.step.tolist() == [step for step in range(1, 17) for _ in range(2)]
        parts = found[[f"{part}_ms" for part in profile.PARTS]]
        assert (parts >= 0).all(axis=None)
        assert parts.sum(axis=1).to_numpy() == pytest.approx(found.ms.to_numpy(), rel=1e-3)
        assert (found.allreduce_ms > 0).all()
        assert set(found.bytes) == {found.bytes[0]}
        lines = read_accuracy(run.path)
        assert [(line.step, line.epoch) for line in lines] == [(8, 1.0), (16, 2.0)]
        assert all(0 <= line.accuracy <= 1 for line in lines)
        if compression == "fp16":
            whole = read_profile(table.loc[(model, "none")].path)
            assert 2 * found.bytes[0] == whole.bytes[0]
    # Sixteen steps with gradients of 11 bits: another network, but not by much.
    nlls = table.train_nll.unstack()
    assert (nlls.none != nlls.fp16).all()
    assert nlls.fp16.to_numpy() == pytest.approx(nlls.none.to_numpy(), rel=0.05)

    again = launch(*command, timeout=120)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished before") == 4
