"""A rank takes its own GPU, and refuses to train where it was promised one and sees none."""

import sys
from collections import namedtuple
from pathlib import Path

import pytest
import tensorflow as tf

from bnnlib.errors import SiteError
from bnnlib.inference import devices, distributed
from bnnlib.session import Session

ROOT = Path(__file__).parents[2]
Device = namedtuple("Device", ["name", "device_type"])

pytestmark = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="this machine has a GPU"
)


def test_without_a_promise_a_host_without_gpus_is_as_good(monkeypatch):
    for promise in ("", "0"):
        monkeypatch.setenv("BNN_GPUS", promise)
        devices.use_own_gpu(0)
    monkeypatch.delenv("BNN_GPUS")
    devices.use_own_gpu(0)


def test_a_promise_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("BNN_GPUS", "all")
    with pytest.raises(SiteError, match="BNN_GPUS = 'all': expected the GPUs of a rank, 0 or 1"):
        devices.use_own_gpu(0)


def test_a_rank_alone_refuses_and_names_what_is_missing(monkeypatch):
    """This machine's TensorFlow is the one without CUDA."""
    monkeypatch.setenv("BNN_GPUS", "1")
    with pytest.raises(SiteError, match="built without CUDA; BNN_ENV must name an environment"):
        distributed.init(Session())


def test_with_cuda_the_next_missing_thing_is_named(monkeypatch):
    """The host is this one, without a driver; only TensorFlow's build is pretended."""
    monkeypatch.setenv("BNN_GPUS", "1")
    monkeypatch.setattr(tf.test, "is_built_with_gpu_support", lambda: True)
    for hidden in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        with pytest.raises(SiteError, match=f"CUDA_VISIBLE_DEVICES = '{hidden}' hides them"):
            devices.use_own_gpu(0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(SiteError, match=r"no NVIDIA driver.*must ask for GPUs"):
        devices.use_own_gpu(0)
    monkeypatch.setattr(devices, "DRIVER", Path("/proc/version"))
    with pytest.raises(SiteError, match=r"TF_CPP_MIN_LOG_LEVEL=0 names them.*and-cuda\]=="):
        devices.use_own_gpu(0)


@pytest.mark.parametrize("kind", devices.KINDS)
def test_each_rank_of_a_host_takes_the_gpu_of_its_place(monkeypatch, kind):
    """No GPU is here: TensorFlow's list of them is made up."""
    there = [Device(f"/physical_device:{kind}:{i}", kind) for i in range(4)]
    shown = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda k: there if k == kind else [])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *words: shown.append(words))
    for local_rank in range(5):
        devices.use_own_gpu(local_rank)
    assert shown == [(there[i % 4], kind) for i in range(5)]


@pytest.mark.ranks
def test_all_ranks_refuse_in_one_line_where_one_of_them_sees_no_gpu(launch, tmp_path):
    """As where one node's driver is gone; tests/jobs/test_site_scripts.py has both without."""
    mpiexec = Path(sys.executable).parent / "mpiexec"
    train = (sys.executable, "-m", "bnnlib", "train", "-f", ROOT / "jobs/params/tiny.yaml")
    run = ("-p", f"run_dir={tmp_path / 'run'}")
    first = ("-n", "1", "env", "BNN_GPUS=0", *train, *run)
    second = ("-n", "1", "env", "BNN_GPUS=1", *train, *run)
    environment = {"PYTHONPATH": str(ROOT)}
    done = launch(mpiexec, *first, ":", *second, cwd=tmp_path, environment=environment, timeout=240)
    assert done.returncode == 1, done.stderr
    (told,) = [line for line in done.stderr.splitlines() if "BNN_GPUS" in line]
    assert told.startswith("refused: BNN_GPUS = 1: the job script gives each rank a GPU")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
