"""The public face: cheap to import, graphs and modules of a loaded spec."""

from __future__ import annotations

import subprocess
import sys

import networkx as nx
import torch

from specc import Loaded
from specc.interpret import initial_weights
from specc.spec.core import Layout, Spec
from tests import models
from tests.test_house import ROOT


def test_importing_does_not_import_torch() -> None:
    code = "import sys, specc; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_spec_has_a_graph_and_a_module() -> None:
    loaded = Loaded(Spec(models.llama(), (Layout(tp=2),)))
    assert isinstance(loaded.graph.nx, nx.MultiDiGraph) and not loaded.graph.mesh
    module = loaded.module(dtype=torch.float64, seed=3)
    for name, value in initial_weights(loaded.graph, 3).items():
        assert torch.equal(module.get_parameter(name), value.double())
    assert module(torch.zeros(1, 4, dtype=torch.int64)).shape == (1, 4, models.VOCAB)
    assert loaded.module().embedding.weight.dtype == torch.float32


def test_networkx_is_imported_when_it_is_asked_for() -> None:
    """A third of what a build would take; what a graph is given with, or is not in order, networkx looks at."""
    build = (
        "from specc.cli import main\ntry: main(['build', '--check', 'specs/tiny/gpt2-tiny.yaml', '-o', 'nowhere'])\n"
    )
    code = f"import sys\n{build}except SystemExit: print('networkx' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.stdout.splitlines()[-1] == "False", result.stderr
