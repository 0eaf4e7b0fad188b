"""Measures the message ladder: ``mpiexec -n 2 python -m bnnlib.analysis.scaling``."""

import sys

from bnnlib.analysis.scaling import main

sys.exit(main())
