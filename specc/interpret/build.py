"""Graph -> nested GraphModules: a scope is a module, a repeat is unrolled, parameters have their global names."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from specc.interpret.table import Random, functions
from specc.interpret.unroll import unrolled
from specc.ir.graph import Graph
from specc.ir.op import Layer, Op, Param, Path, Ref, in_model
from specc.ir.repeat import Repeat
from specc.ir.tree import Call, Loop, loops, loss_tree, tree
from specc.ir.types import TensorType

CARRIERS = ("cut", "repeat", "end")  # ops that hand on their inputs


@dataclass(frozen=True)
class _Frame:
    """A module under construction. `root` holds its parameters and children until fx takes them over."""

    path: tuple[str, ...]  # where the module stands in the model
    layer: int | str | None  # number of the layer, or the name of the block that its layers share
    root: nn.Module = field(default_factory=nn.Module)
    code: fx.Graph = field(default_factory=fx.Graph)
    env: dict[Ref, fx.Node] = field(default_factory=dict[Ref, fx.Node])


@dataclass(frozen=True)
class _Target:
    """What is interpreted, and as what."""

    graph: Graph
    dtype: torch.dtype
    device: torch.device
    functions: dict[str, Callable[..., Any]]


def interpret(
    graph: Graph, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> fx.GraphModule:
    """The model of a typed graph, without the loss: takes the model's inputs in order, returns logits.

    Parameters are NaN until init_weights or load_state_dict. Nodes carry the id of their op in meta["op"]. Raises
    ValueError naming the op where the graph is not typed or was placed on a mesh.
    """
    known = functions(graph.tables)
    for op in graph.ops:
        if not op.outs:
            raise ValueError(f"{op.id} has no type: run the shapes pass first")
        if op.scope[:1] != ("loss",) and op.kind not in (*known, *CARRIERS, "input"):
            raise ValueError(f"{op.id}: {op.kind} cannot be interpreted, only graphs that are not placed on a mesh can")
    target = _Target(graph, dtype, torch.device(device), known)
    frame = _Frame((), None)
    fed = {op.hint: op.ref for op in graph.inputs}
    for name, ref in fed.items():
        _formal(frame, ref, name)
    for op in graph.ops:
        if op.hint in fed and op.kind == "input" and op.scope[:1] != ("loss",):
            frame.env[op.ref] = frame.env[fed[op.hint]]
    return _module(target, frame, tree(graph), "Model")


def interpret_loss(graph: Graph) -> fx.GraphModule:
    """The loss of a typed graph: takes the model's outputs and what the loss is fed, in order."""
    call = loss_tree(graph)
    frame = _Frame(("loss",), None)
    for ref in call.inputs:
        _formal(frame, ref, graph.hint(ref))
    target = _Target(graph, torch.float32, torch.device("cpu"), functions(graph.tables))
    return _module(target, frame, call, "Loss")


def _module(target: _Target, frame: _Frame, call: Call, name: str) -> fx.GraphModule:
    _items(target, frame, call)
    outputs = tuple(frame.env[ref] for ref in call.outputs)
    frame.code.output(outputs[0] if len(outputs) == 1 else outputs)
    made = fx.GraphModule(frame.root, frame.code, class_name=name)
    for stack in {str(loop.path[-1]) for loop in loops(call) if Repeat.of(loop.repeat).shared}:
        layers = made.get_submodule(stack)._modules
        for number in [key for key in layers if key.isdigit()]:
            layers[number] = layers.pop(number)  # what layers share comes first
    return made


def _items(target: _Target, frame: _Frame, call: Call) -> None:
    for item in call.items:
        if isinstance(item, Op):
            _op(target, frame, item)
        elif isinstance(item, Loop):
            _loop(target, frame, item)
        elif _module_path(item.path, None) == frame.path:  # a pipeline stage is a call, but not a module
            _items(target, frame, item)
        else:
            frame.env.update(_call(target, frame, item, frame.layer, frame.env))


def _module_path(scope: Path, layer: int | str | None) -> tuple[str, ...]:
    """Where the module of a scope stands. Stages are no part of it, so names do not depend on the layout."""
    inner = in_model(scope)
    return tuple(str(layer) if isinstance(part, Layer) and layer is not None else str(part) for part in inner)


def _formal(frame: _Frame, ref: Ref, hint: str) -> None:
    taken = [str(node.target) for node in frame.env.values()]
    name, number = hint, 1
    while name in taken:
        name, number = f"{hint}{number + 1}", number + 1
    frame.env[ref] = _noted(frame.code.placeholder(name), ref.op)


def _op(target: _Target, frame: _Frame, op: Op) -> None:
    if op.kind == "input":
        return
    if op.kind in CARRIERS:
        frame.env.update({Ref(op.id, out): frame.env[ref] for out, ref in enumerate(op.inputs)})
        return
    name = op.id.rpartition(".")[2]
    turns = target.graph.definition(op).any_order and "first" not in dict(op.attrs)
    args = tuple(_turned(frame, frame.env[ref], target.graph.type(ref), turns) for ref in op.inputs)
    args += tuple(_parameter(target, frame, op, param) for param in op.params)
    attrs: dict[str, Any] = _attributes(target.graph, op)
    if target.graph.definition(op).keeps:
        attrs["layer"] = (frame.path, name)
    function = target.functions[op.kind]
    if target.graph.definition(op).random(op):
        _place(frame.root, (name,), Random(function, attrs), op.id)
        node = frame.code.create_node("call_module", name, args, name=name)
    else:
        node = frame.code.create_node("call_function", function, args, attrs, name=name)
    if len(op.outs) == 1:
        frame.env[op.ref] = _turned(frame, _noted(node, op.id), op.outs[0], turns)
        return
    for out in range(len(op.outs)):
        frame.env[Ref(op.id, out)] = _noted(frame.code.call_function(operator.getitem, (node, out)), op.id)


def _turned(frame: _Frame, node: fx.Node, type: TensorType, turns: bool) -> fx.Node:
    """With samples first where tokens are, and back: for what takes either order, as its types say."""
    if not turns or len(type.axes) < 2 or type.axes[1].name != "batch":
        return node
    return _noted(frame.code.call_method("transpose", (node, 0, 1)), str(node.meta["op"]))


def _attributes(graph: Graph, op: Op) -> dict[str, Any]:
    """Attributes as the op's function takes them: an axis is the index it has in the operand.

    What a layout rounds is not rounded here: all has the type of the parameters.
    """
    if op.kind != "positions":
        more: dict[str, Any] = {}
        if op.kind in ("rope_table", "temperature"):
            more = {"rows": len(graph.type(op.inputs[0]).axes) > 1}
        elif op.kind == "plain_attention":
            more = {"masked": len(op.inputs) > 3}
        elif op.kind in ("usage", "total"):
            more = {"tokens": int(graph.type(op.inputs[0]).axes[0].name == "batch")}
        return {name: value for name, value in op.attrs if name not in ("dtype", "whole")} | more
    (axis,), names = op.outs[0].axes, [axis.name for axis in graph.type(op.inputs[0]).axes]
    if axis.name not in names:
        raise ValueError(f"{op.id}: no axis {axis.name} in {names}")
    return {"dim": names.index(axis.name)}


def _parameter(target: _Target, frame: _Frame, op: Op, param: Param) -> fx.Node:
    path = tuple(str(frame.layer) if isinstance(part, Layer) else str(part) for part in param.path)
    if path[: len(frame.path)] != frame.path:
        raise ValueError(f"{op.id}: parameter {'.'.join(path)} stands outside of its module {'.'.join(frame.path)}")
    *holders, name = path[len(frame.path) :]
    shape = tuple(axis.size for axis in param.axes)
    holder = _holder(frame.root, holders)
    known = getattr(holder, name, None)
    kind = nn.Parameter if param.trained else nn.Buffer
    if known is None:
        value = torch.full(shape, torch.nan, dtype=target.dtype, device=target.device)  # type: ignore[arg-type]
        setattr(holder, name, kind(value))
    elif not isinstance(known, kind) or tuple(known.shape) != shape:
        raise ValueError(f"{op.id}: {'.'.join(path)} is already something else than a parameter of shape {shape}")
    return frame.code.get_attr(".".join((*holders, name)))


def _holder(root: nn.Module, names: list[str]) -> nn.Module:
    for name in names:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    return root


def _place(root: nn.Module, path: tuple[str, ...], module: nn.Module, of: str) -> None:
    holder = _holder(root, list(path[:-1]))
    if hasattr(holder, path[-1]):
        raise ValueError(f"{of}: the module has a {'.'.join(path)} already")
    holder.add_module(path[-1], module)


def _call(
    target: _Target, frame: _Frame, call: Call, layer: int | str | None, env: dict[Ref, fx.Node]
) -> dict[Ref, fx.Node]:
    """Make the module of a scope, which layers may share, and call it on values of env; its outputs."""
    path = _module_path(call.path, layer)
    inner = _Frame(path, layer)
    for ref in call.inputs:
        _formal(inner, ref, target.graph.hint(ref))
    name = call.scope.names[0]
    own = path[len(frame.path) :]
    module = _module(target, inner, call, name)
    if isinstance(call.path[-1], Layer) and isinstance(layer, str) and (known := _known(frame.root, own)) is not None:
        if known.code != module.code:
            raise ValueError(f"{'.'.join(path)}: layers that share it compute different things")
    else:
        _place(frame.root, own, module, ".".join(path))
    node = frame.code.call_module(".".join(own), tuple(env[ref] for ref in call.inputs))
    if len(call.outputs) == 1:
        return {call.outputs[0]: _noted(node, call.outputs[0].op)}
    parts = [frame.code.call_function(operator.getitem, (node, n)) for n in range(len(call.outputs))]
    return {ref: _noted(part, ref.op) for ref, part in zip(call.outputs, parts, strict=True)}


def _known(root: nn.Module, path: tuple[str, ...]) -> fx.GraphModule | None:
    """The module at that path, if it was made before."""
    holder = _holder(root, list(path[:-1]))
    found = holder._modules.get(path[-1])
    assert found is None or isinstance(found, fx.GraphModule)
    return found


def _loop(target: _Target, frame: _Frame, loop: Loop) -> None:
    """Layer i runs the block at i % period; what layers make and others read stays as it was made last."""
    carries = tuple(frame.env[ref] for ref in loop.repeat.inputs)
    env, repeat = dict(frame.env), Repeat.of(loop.repeat)
    for number, index in unrolled(loop):
        block = loop.blocks[index]
        layer = repeat.shared_by(number % repeat.period) or number
        env.update(zip(block.scope.inputs, carries, strict=False))
        env.update(_call(target, frame, block, layer, env))
        carries = tuple(env[ref] for ref in block.scope.outputs[: len(carries)])
    results = (*carries, *(env[ref] for ref in loop.exports))
    frame.env.update({Ref(loop.end.id, out): node for out, node in enumerate(results)})


def _noted(node: fx.Node, op: str) -> fx.Node:
    node.meta["op"] = op
    return node
