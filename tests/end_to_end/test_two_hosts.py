"""Ranks on two hosts: two network namespaces with addresses and names of their own.

A bridge joins them, and Hydra starts a rank in each through a launcher script where it would use
ssh. Then the link is made slow (netem where the kernel has it, else a token bucket), the ladder
measures it, and a run's profile must show it, by as much as the cost model says.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bnnlib.analysis import scaling
from bnnlib.record import profile
from bnnlib.record.profile import read_profile
from bnnlib.record.schema import read_record

pytestmark = [pytest.mark.ranks, pytest.mark.long, pytest.mark.timeout(420)]

RUNNER = Path(__file__).parents[1] / "ranks" / "two_hosts.py"
NET = "10.213.77"  # of the namespaces; nothing outside them sees it
# UCX would see one machine under both namespaces, and take its memory for the way between them.
OVER_THE_NETWORK = {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "eth0", "FI_PROVIDER": "tcp"}
RATE = "50mbit"
RATE_BYTES = 50e6 / 8  # a second


def run(*words, check=True):
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=check)


@dataclasses.dataclass
class Hosts:
    """Two namespaces and how to start a rank in each."""

    names: list[str]
    launcher: list[str]

    def slow_down(self) -> str:
        """Limits what each host sends; returns by what means."""
        how = []
        for name in self.names:
            link = ["tc", "-n", name, "qdisc", "replace", "dev", "eth0", "root"]
            if run(*link, "netem", "rate", RATE, "delay", "1ms", check=False).returncode == 0:
                how.append("netem")
                continue
            run(*link, "tbf", "rate", RATE, "burst", "16kb", "latency", "500ms")
            how.append("tbf (this kernel has no netem)")
        return how[0]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("network namespaces need ip and tc (Debian's package iproute2)")
    tag = f"bnn{os.getpid() % 100000}"
    names, bridge = [f"{tag}a", f"{tag}b"], f"{tag}r"
    made = []
    try:
        for name in names:
            tried = run("ip", "netns", "add", name, check=False)
            if tried.returncode != 0:
                pytest.skip(f"no network namespaces (CAP_NET_ADMIN?): {tried.stderr.strip()}")
            made.append(name)
        run("ip", "link", "add", bridge, "type", "bridge")
        run("ip", "addr", "add", f"{NET}.254/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        for number, name in enumerate(names, start=1):
            outer = f"{tag}v{number}"
            run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", outer, "master", bridge, "up")
            run("ip", "-n", name, "addr", "add", f"{NET}.{number}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        script = tmp_path_factory.mktemp("hosts") / "launch.sh"
        script.write_text(
            textwrap.dedent(f"""\
                #!/bin/bash
                # As ssh: [options] host command, with a host name of its own for each.
                while [[ $1 == -* ]]; do shift; done
                name={tag}$([[ $1 == *.1 ]] && echo a || echo b); shift
                exec ip netns exec "$name" unshare --uts bash -c "hostname $name; $*"
            """)
        )
        script.chmod(0o755)
        words = ["mpiexec", "-launcher", "ssh", "-launcher-exec", str(script)]
        words += ["-localhost", f"{NET}.254", "-hosts", f"{NET}.1,{NET}.2", "-n", "2"]
        yield Hosts(names, words)
    finally:
        for name in made:
            run("ip", "netns", "del", name, check=False)
        run("ip", "link", "del", bridge, check=False)


@pytest.fixture(scope="module")
def measured(hosts, launch, tmp_path_factory):
    """A ladder and a profiled run, first as the link is and then slow; by those two names."""
    found = {}
    plan = tmp_path_factory.mktemp("plan") / "plan.yaml"
    plan.write_text(
        "group: g\n"
        "common: {dataset: tiny, batch_size: 16, steps: 24, log_every: 4, test_draws: 2,\n"
        "         profile: true, threads: 1, model: CNN_FC}\n"
    )
    for link in ("fast", "slow"):
        how = hosts.slow_down() if link == "slow" else ""
        folder = tmp_path_factory.mktemp(link)
        done = launch(
            *hosts.launcher,
            sys.executable,
            RUNNER,
            plan,
            folder,
            timeout=180,
            environment=OVER_THE_NETWORK | {"PYTHONPATH": str(RUNNER.parents[2])},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found[link] = folder, how
    return found


def times(folder):
    (run_json,) = folder.rglob("run.json")
    table = read_profile(run_json.parent)
    table = table[~table.warmup]
    return table, profile.summary(table)


def test_the_ranks_are_on_two_hosts_that_the_record_names(hosts, measured):
    for folder, _ in measured.values():
        (run_json,) = folder.rglob("run.json")
        record = read_record(run_json.parent)
        assert record["hosts"] == hosts.names
        assert (record["ranks"], record["status"]) == (2, "finished")
        table, _ = times(folder)
        assert set(zip(table["rank"], table.host, strict=True)) == set(enumerate(hosts.names))
        # Each host has these cores to itself as far as a record can tell.
        assert json.loads((folder / "ladder.json").read_text())["hosts"] == hosts.names


def test_the_slow_link_shows_in_the_ladder_and_the_profile_as_the_model_says(measured):
    ladders = {
        link: scaling.read_ladder(folder / "ladder.json") for link, (folder, _) in measured.items()
    }
    networks = {link: scaling.fit(ladder, "ring").interconnect for link, ladder in ladders.items()}
    # Two ranks: each sends all n bytes or twice the half of them, no faster than the link.
    assert 1 / networks["slow"].beta < 1.2 * RATE_BYTES
    assert networks["slow"].beta > 3 * networks["fast"].beta

    shares, operation = {}, {}
    for link, (folder, how) in measured.items():
        table, summary = times(folder)
        shares[link] = (summary.allreduce_ms / summary.ms).mean()
        operation[link] = table.allreduce_ms.median()
        num_bytes = table.bytes.iloc[0]
        predicted = 1e3 * scaling.ring(num_bytes, 2, networks[link])
        print(f"{link} {how}: {operation[link]:.2f} ms, predicted {predicted:.2f} ms")
        if link == "slow":
            assert predicted / 2 < operation[link] < 2 * predicted
    assert operation["slow"] > 1.5 * operation["fast"]
    # Negotiation is the same on both links, so it is the operation's share that grows.
    assert shares["slow"] > 1.2 * shares["fast"]
    assert shares["slow"] > 0.4
