r"""Elastic runs under Horovod's driver: when workers are lost, the remaining ones go on.

One slot a host, hosts from a script that prints ``host:slots`` lines::

    horovodrun --gloo -np 2 --min-np 1 --max-np 2 --host-discovery-script ./hosts.sh \
        python -m bnnlib train -f params.yaml -p run_dir runs/demo

When a worker dies, the average of the gradients fails on all others. Each asks the driver for its
new place, which comes once every worker has either asked or ended, and then starts its own program
anew in the same process (``exec``): to Horovod a worker just started, to the rest a run continued
from its last checkpoint by another number of ranks. ``hvd.elastic.run``, which begins again within
the program, would leave TensorFlow with the lost ranks' threads, graphs and variables of the
environment. The record's ``history`` names the lost workers, the step, and the ranks left.

What Horovod 0.28.1 gives, and what not:

- Gloo only; MPI ends all ranks with the first. There, and below ``--min-np``, the checkpoint and a
  resubmitted job serve (jobs/README.md).
- The host of a lost worker is not used again, its other workers end too
  (``horovod/runner/elastic/registration.py``, ``_on_workers_recorded``), unless
  ``--blacklist-cooldown-range`` is given. A worker alone on the only host is the run's end.
- A host that appears later is taken in with the next loss, not before.
- A worker that hangs is not a lost one: after `stall_minutes` every rank ends.
- Workers that all fail, by a mistyped parameter or NaN, end the run with their error.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from bnnlib import launcher, process
from bnnlib.errors import DistributedError
from bnnlib.experiment import Experiment
from bnnlib.launch import command
from bnnlib.record.identity import run_directory
from bnnlib.record.schema import read_record
from bnnlib.session import Session

BEFORE = "BNN_ELASTIC"  # what a worker tells itself across its new start
TRIES = 3  # new starts that come no further than the one before, until the run fails
# A worker's place, in the order of the driver's answer.
_PLACE = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")


@dataclasses.dataclass(frozen=True)
class Before:
    """The ranks as they were before a worker was lost.

    Attributes:
        workers: their names, ``host[slot]``, in order of rank.
        step: of the last log line.
        directory: the run's.
        alike: new starts in a row that came no further than this step.
    """

    workers: tuple[str, ...]
    step: int
    directory: str
    alike: int = 0


def is_elastic() -> bool:
    """Whether `horovodrun --min-np` started this process."""
    return bool(os.environ.get("HOROVOD_ELASTIC"))


def train(
    session: Session, experiment: Experiment, origin: command.Origin, verbose: bool = False
) -> Path:
    """Trains, evaluates and records a run on the workers there are; all of them call it.

    Args:
        session: of this process.
        experiment: of the run. Its `on_rank_change` is ``continue`` here.
        origin: of :func:`bnnlib.record.provenance.collect`.
        verbose: print the network's layers.

    Returns:
        The run's directory.

    Raises:
        BnnlibError: of the run itself. A lost worker raises nothing.
    """
    from bnnlib.inference import distributed

    now = before = _before()
    try:
        ranks = distributed.init(session, experiment.threads, experiment.inter_threads)
        gathered = distributed.gather((_name(), before))
        earlier = next((each for _, each in gathered if each is not None), None)
        # A worker that has just joined knows nothing of what was before.
        proposed = str(run_directory(experiment, ranks.size))
        directory = earlier.directory if earlier else distributed.gather(proposed)[0]
        now = Before(
            workers=tuple(name for name, _ in gathered),
            step=earlier.step if earlier else 0,
            directory=directory,
            alike=earlier.alike + 1 if earlier else 0,
        )
        experiment = dataclasses.replace(experiment, on_rank_change="continue", run_dir=directory)
        return command.train_one(
            session, experiment, origin, verbose, events=_events(gathered, directory)
        )
    except Exception as error:
        reason = distributed.loss_of_others(error)
        if not reason or now is None:
            raise
        step = max([now.step, *session.abandon_runs()])
        if step > now.step:
            now = dataclasses.replace(now, step=step, alike=0)
        if now.alike >= TRIES:
            raise DistributedError(
                f"{now.alike} new starts after step {now.step} came no further: the network, or "
                "an error that all ranks meet alike"
            ) from error
        print(f"{_name()}: others were lost after step {step}: {reason}", flush=True)
        if not process.shut_horovod_down():
            # The new start ends the thread that waits, and closes its connections.
            print(f"{_name()}: Horovod does not shut down; starts anew all the same", flush=True)
        _start_anew(now)


def _events(
    gathered: list[tuple[str, Before | None]], directory: str | Path
) -> list[tuple[str, str]]:
    """The entries of the record's history on lost and new workers; none at the first start.

    Args:
        gathered: each worker's name and what it knows of the ranks before, in order of rank.
        directory: the run's, in whose record a worker that failed has written why.
    """
    old = next((before for _, before in gathered if before is not None), None)
    if old is None:
        return []
    stayed = [name for name, before in gathered if before is not None]
    lost = [f"rank {rank} ({name})" for rank, name in enumerate(old.workers) if name not in stayed]
    if not lost:
        text = f"of {len(old.workers)} ranks, none of which is gone, after step {old.step}"
        return [("connection lost", f"{text}; they go on")]
    text = f"{', '.join(lost)} of {len(old.workers)} lost after step {old.step}; goes on with "
    text += f"{len(gathered)} rank(s)"
    joined = [f"rank {rank} ({name})" for rank, (name, before) in enumerate(gathered) if not before]
    text += f", newly started {', '.join(joined)}" if joined else ""
    return [("ranks lost", text + _last_words(Path(directory)))]


def _last_words(directory: Path) -> str:
    """The error of a worker that could still write it into the record; empty if none could."""
    if not (directory / "run.json").exists():
        return ""
    error = read_record(directory)["error"]
    return f". Rank {error['rank']}: {error['type']}: {error['message']}" if error else ""


def _start_anew(before: Before) -> NoReturn:
    """Gets this worker's new place from the driver and starts the program again in this process."""
    place = _ask_driver()
    if place[0] < 0:
        print(f"{_name()}: ends, since another worker of its host was lost", flush=True)
        os._exit(1)
    for name, number in zip(_PLACE, place, strict=True):
        os.environ[f"HOROVOD_{name}"] = str(number)
    os.environ[BEFORE] = json.dumps(dataclasses.asdict(before))
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2:
            try:
                os.set_inheritable(descriptor, False)  # Gloo's connections, among others
            except OSError:  # the listing's own, closed by now
                continue
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _ask_driver() -> list[int]:
    """This worker's next place; waits until all workers have asked or ended.

    Horovod does the same in a second ``hvd.init()`` (horovod/common/gloo/gloo_context.cc).

    Raises:
        DistributedError: the driver does not answer: it has ended.
    """
    address = os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"]
    port = int(os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"])
    connection = http.client.HTTPConnection(address, port)
    key = f"{os.environ['HOROVOD_HOSTNAME']}:{os.environ['HOROVOD_LOCAL_RANK']}"
    try:
        connection.request("GET", f"/rank_and_size/{key}")
        answer = connection.getresponse()
        text = answer.read().decode()
        place = [int(word) for word in text.split(",")]
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DistributedError(
            f"horovodrun ({address}:{port}) gives this worker no new place ({error}); start the "
            "same command again to go on from the last checkpoint"
        ) from error
    finally:
        connection.close()
    if len(place) != len(_PLACE):
        raise DistributedError(f"horovodrun's answer {text!r}: expected {len(_PLACE)} numbers")
    return place


def _before() -> Before | None:
    text = os.environ.get(BEFORE)
    if not text:
        return None
    values: dict[str, Any] = json.loads(text)
    return Before(**values | {"workers": tuple(values["workers"])})


def _name() -> str:
    return f"{os.environ.get('HOROVOD_HOSTNAME', '')}[{launcher.local_rank()}]"
