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
