"""papermill's own engine, for a notebook that `rank0:` writes: its cells run in a kernel process.

papermill imports this module while papermill itself is still being imported, so nothing of
papermill may be imported at the top of it.
"""

from __future__ import annotations

import os
from typing import Any

import zmq
from traitlets.config import Config

from bnnlib import launcher
from bnnlib.errors import DistributedError
from bnnlib.spmd import start
from bnnlib.spmd.paths import RANK0_PREFIX
from bnnlib.spmd.shell import environment


class KernelEngine:
    """papermill's own engine, which also tells the kernel who runs it, and where the notebook lies.

    A kernel inherits the environment and knows nothing else of papermill. What the engine
    `spmd` refuses before anything is written is refused here, too. Kernel and papermill talk
    encrypted; else ipykernel warns of each kernel that others of the machine could listen.
    """

    @classmethod
    def register(cls) -> None:
        """Takes the place of papermill's own engine, under its names, in this process."""
        from papermill.engines import papermill_engines

        for name in (None, "nbclient"):
            papermill_engines.register(name, cls)

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """As papermill's own."""
        from papermill.engines import NBClientEngine

        return str(NBClientEngine.nb_kernel_name(nb, name))

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """As papermill's own."""
        from papermill.engines import NBClientEngine

        return str(NBClientEngine.nb_language(nb, language))

    @classmethod
    def execute_notebook(
        cls, nb: Any, kernel_name: str, output_path: str | None = None, **options: Any
    ) -> Any:
        """Runs the notebook; what papermill calls.

        Args:
            nb: the notebook, with its parameters injected.
            kernel_name: of the kernel.
            output_path: where papermill saves while cells run; None for only at the end.
            options: of papermill's own engine.

        Raises:
            BnnlibError: the start is refused.
        """
        from papermill.engines import NBClientEngine

        config = Config()
        if zmq.has("curve"):
            config.KernelManager.transport_encryption = "auto"
        target = nb.metadata.papermill.get("output_path")
        found = {launcher.PAPERMILL_VARIABLE: "1"}
        if str(target).startswith(RANK0_PREFIX):
            start.prepare(nb, kernel_name, str(options.get("input_path", "")), cls._refuse_mpi)
            found = start.variables(target)
        with environment(**found):
            return NBClientEngine.execute_notebook(
                nb, kernel_name, output_path, config=config, **options
            )

    @staticmethod
    def _refuse_mpi() -> None:
        if launcher.size() > 1 and "PMI_FD" in os.environ:
            raise DistributedError(
                f"{launcher.size()} ranks of MPI: the kernels that papermill's own engine starts "
                "cannot join it; give --engine spmd, whose cells run in the ranks' own processes"
            )
