"""Nonlinearities by name, and the ops that they are."""

from __future__ import annotations

from math import expm1, log
from typing import TYPE_CHECKING, Literal

from specc.components.base import Synonyms
from specc.ir.op import Init, Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder

Activation = Literal["relu", "relu2", "gelu", "gelu_tanh", "quick_gelu", "silu", "tanh", "sigmoid", "softplus", "xielu"]
SYNONYMS: Synonyms = {
    "activation": ("act", "hidden_act", "activation_function", "act_fn", "hidden_activation"),
    "silu": ("swish",),
    "relu2": ("squared_relu", "relu_squared"),
    "gelu_tanh": ("gelu_new", "gelu_pytorch_tanh", "gelu_approx", "gelu_fast"),
    "quick_gelu": ("gelu_sigmoid", "swish_1702"),
}


def lower(function: Activation, b: Builder, x: Ref, name: str, hint: str = "x") -> Ref:
    """x [...] -> the same. xielu (Huang et al. 2024) has two parameters, which start at alphas of 0.8."""
    if function != "xielu":
        return b.op("activation", x, name=name, hint=hint, function=function)
    starts = {"alpha_p": log(expm1(0.8)), "alpha_n": log(expm1(0.8 - 0.5))}
    params = (b.param(name, key, (Axis("1", 1),), Init("constant", at), "xielu") for key, at in starts.items())
    return b.op("xielu", x, name=name, hint=hint, params=tuple(params))
