"""Graph -> torch.fx.GraphModule."""

from specc.interpret.build import interpret
from specc.interpret.unroll import parameters
from specc.interpret.weights import init_weights, initial_weights

__all__ = ["init_weights", "initial_weights", "interpret", "parameters"]
