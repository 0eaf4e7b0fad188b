"""``balsam.api`` without Balsam's service: what is created goes to standard output, as JSON.

Signatures, checks and the launchers' command lines are those of Balsam 0.7.0a24 (``_api/app.py``,
``platform/app_run/polaris.py``, ``theta.py``).
"""

import inspect
import json
import re
import shlex
from pathlib import Path
from typing import Any


class Job:
    """What ``ApplicationDefinition.submit`` makes; Balsam never sets ``return_code``."""

    objects: Any
    return_code = None

    def __init__(self, app: "ApplicationDefinition", **given: Any) -> None:
        self.app, self.given, self.state = app, given, "RUN_ERROR"

    def get_parameters(self) -> dict[str, str]:
        """The parameters of the application's template."""
        return dict(self.given["parameters"])

    def command_line(self, hosts: list[str]) -> str:
        """What Balsam's launcher has bash do, on as many hosts as the job needs."""
        given, words = self.given, dict(self.given["launch_params"])
        ranks = str(given["num_nodes"] * given["ranks_per_node"])
        per_node, threads = str(given["ranks_per_node"]), str(given["threads_per_rank"])
        if "cpu_affinity" in words:
            affinity = words.pop("cpu_affinity")
            line = ["aprun", "-n", ranks, "-N", per_node, "-L", ",".join(hosts), "-cc", affinity]
            line += ["-d", threads, "-j", str(given["threads_per_core"])]
            line += [word for pair in words.items() for word in pair]
        else:
            bind = words.pop("cpu_bind")
            line = ["mpiexec", "-np", ranks, "-ppn", per_node, "--hosts", ",".join(hosts)]
            line += ["--cpu-bind", bind, "-d", threads, *words.values()]
        program = self.app.command_template.strip()
        for name, value in self.get_parameters().items():
            program = re.sub(rf"{{{{ *{name} *}}}}", shlex.quote(str(value)), program)
        return " && ".join([*self.app.shell_preamble(), " ".join([*line, program])])


class ApplicationDefinition:
    """A template of a command and its job's life."""

    site: str
    command_template: str
    names: set[str]

    def __init__(self, job: Job | None = None) -> None:
        self.job = job

    def __init_subclass__(cls) -> None:
        cls.names = set(re.findall("{{ *(.*?) *}}", cls.command_template))
        assert cls.site
        assert all(name.isidentifier() for name in cls.names), cls.names

    def shell_preamble(self) -> list[str]:
        """What bash does before the launcher."""
        return []

    @classmethod
    def sync(cls) -> None:
        """Sends the class's source to the service; from there methods run alone."""
        inspect.getsource(cls)

    @classmethod
    def resolve_site_id(cls) -> int:
        """The service's number of the site."""
        return 1

    @classmethod
    def submit(
        cls,
        workdir: Path,
        tags: dict[str, str] | None = None,
        num_nodes: int = 1,
        ranks_per_node: int = 1,
        threads_per_rank: int = 1,
        threads_per_core: int = 1,
        launch_params: dict[str, str] | None = None,
        gpus_per_rank: float = 0,
        node_packing_count: int = 1,
        wall_time_min: int = 0,
        save: bool = True,
        **parameters: Any,
    ) -> Job:
        """A job; what is no argument of Balsam's is a parameter, and the template must have it."""
        assert set(parameters) == cls.names, parameters
        assert not save
        given = {name: value for name, value in locals().items() if name not in ("cls", "save")}
        return Job(cls(), **given)


class BatchJob:
    """An allocation."""

    objects: Any


class _Created:
    @staticmethod
    def bulk_create(jobs: list[Job]) -> list[Job]:
        for job in jobs:
            hosts = [f"x300{number}" for number in range(job.given["num_nodes"])]
            told = job.given | {"workdir": str(job.given["workdir"])}
            print(json.dumps(told | {"command_line": job.command_line(hosts)}))
        return jobs

    @staticmethod
    def create(
        site_id: int, num_nodes: int, wall_time_min: int, job_mode: str, queue: str, project: str
    ) -> None:
        assert job_mode in ("mpi", "serial")
        print(json.dumps({"batch_nodes": num_nodes, "queue": queue, "project": project}))


Job.objects = BatchJob.objects = _Created
