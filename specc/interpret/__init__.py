"""Graph -> torch.fx.GraphModule."""

from specc.interpret.build import interpret, interpret_loss
from specc.interpret.unroll import parameters
from specc.interpret.weights import init_weights, initial_weights

__all__ = ["init_weights", "initial_weights", "interpret", "interpret_loss", "parameters"]
