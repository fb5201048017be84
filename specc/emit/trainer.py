"""The trainer of a file for several ranks: a step, gradients of the mean loss over all ranks, their norm."""

from __future__ import annotations

from specc.emit.context import Context
from specc.emit.function import Lines, function, of_class
from specc.emit.make import DEVICE, MESH, SEED

SCHEDULES = {"1f1b": "Schedule1F1B", "gpipe": "ScheduleGPipe"}
NORM = "Scale the gradients down to that norm if theirs is larger; their norm."
LOSS = "Gradients of the mean loss over all labels that are not -100; that loss."


def trainer(of: Context, loss_options: str) -> Lines:
    """`Trainer`, for more than one rank. `loss_options`: what the loss takes beside outputs, labels and scale."""
    if not of.axes:
        return []
    methods = [_init(of, loss_options), _step(of), _forward_backward(of, loss_options), _clip(of)]
    return of_class(
        "Trainer",
        "",
        f"The {'stage of this rank, its schedule' if of.pp else 'model on this rank,'} and its optimizer.",
        methods,
    )


def _tensors(of: Context) -> list[str]:
    """Parameters for the inputs: the last has the type, as those before it do."""
    return ["self", *(f"{name}: Tensor" for name in (*of.inputs, "labels"))]


def _init(of: Context, loss_options: str) -> Lines:
    optimizer = "self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=lr)"
    if not of.pp:
        body = ["self.mesh = mesh", *_seed(of), "self.module = build_model(mesh, device, seed)", optimizer]
        return function("__init__", ["self", MESH, DEVICE, SEED, "lr: float"], "", "", body)
    lengths = ", ".join(of.lengths)
    shapes = ", ".join(f"(batch, {length})" for length in (*of.spans, of.spans[-1]))
    loss = f"partial(loss{loss_options})" if loss_options else "loss"
    body = ['self.mesh, self.index = mesh, mesh.get_local_rank("pp")', *_seed(of), "if batch % MICROBATCHES:"]
    body += ['    raise ValueError(f"a batch of {batch} cannot be cut into {MICROBATCHES} equal microbatches")']
    body += [f"self.shapes = [{shapes}]"]
    body += [f"stage = build_stage(self.index, mesh, device, batch // MICROBATCHES, {lengths}, seed)"]
    body += ["self.module = stage.submod"]
    body += [f"self.schedule = {SCHEDULES[of.layout.pp.schedule]}(stage, MICROBATCHES, {loss}, scale_grads=False)"]
    body += [optimizer]
    if of.tied:
        body += ['pipeline = dist.get_process_group_ranks(mesh.get_group("pp"))']
        body += [
            "held = {name: [pipeline[i] for i in holders] for name, holders in TIED.items() if self.index in holders}"
        ]
        body += ["self.tied = ["]
        body += ["    (self.module.get_parameter(name), dist.new_group(ranks, use_local_synchronization=True))"]
        body += ["    for name, ranks in held.items()", "]"]
    takes = ["self", MESH, DEVICE, "batch: int", *(f"{length}: int" for length in of.lengths), SEED, "lr: float"]
    return function("__init__", takes, "", "`batch` sequences a step on each data rank, in microbatches.", body)


def _seed(of: Context) -> Lines:
    """Random numbers are in step on the ranks that are fed the same tokens, which are neighbours."""
    if not any(of.graph.definition(op).random(op) for op in of.graph.ops):
        return []
    groups = of.graph.groups
    if not groups.model:
        return ["torch.manual_seed(seed + dist.get_rank())"]
    same = f"the ranks of {' and '.join(groups.model)} draw the same numbers"
    return [f"torch.manual_seed(seed + dist.get_rank() // {groups.size(groups.model)})  # {same}"]


def _step(of: Context) -> Lines:
    body = ["self.optimizer.zero_grad()", f"value = self.forward_backward({', '.join(of.inputs)}, labels)"]
    body += ["norm = self.clip_gradients(1.0)", "self.optimizer.step()", "return value.item(), norm.item()"]
    doc = "One update with gradients clipped to norm 1; the loss and the norm before clipping."
    return function("step", _tensors(of), "tuple[float, float]", doc, body)


def _scale(of: Context) -> tuple[Lines, str, str]:
    """Lines that count labels, what a sum over labels is multiplied by, and how losses of data ranks are joined."""
    if not of.data:
        return [], "1 / labels.ne(-100).sum()", ""
    group = f'self.mesh["{of.data}"]'
    count = f'valid = fc.all_reduce(labels.ne(-100).sum(), "sum", {group})'
    averaged = of.graph.groups.averaged
    return [count], f"{f'{group}.size()' if averaged else '1'} / valid", "avg" if averaged else "sum"


def _forward_backward(of: Context, loss_options: str) -> Lines:
    count, scale, joined = _scale(of)
    names = ", ".join(of.inputs)
    over_data = f'fc.all_reduce({{}}, "{joined}", self.mesh["{of.data}"])' if of.data else "{}"
    if not of.pp:
        options = loss_options.replace("mesh[", "self.mesh[")
        body = [*count, f"value = loss(self.module({names}), labels, {scale}{options})", "value.backward()"]
        body += [f"return {over_data.format('value.detach()')}"]
        return function("forward_backward", _tensors(of), "Tensor", LOSS, body)
    body = [f"if (given := [tuple(x.shape) for x in ({names}, labels)]) != self.shapes:"]
    body += [f'    raise ValueError(f"{names}, labels are {{given}}, but the stages are built for {{self.shapes}}")']
    body += [f"inputs = ({names}{',' * (len(of.inputs) == 1)}) if self.index == 0 else ()", "losses: list[Tensor] = []"]
    body += [*count, f'scale = {{"scale": {scale}}}']
    if of.tied:
        body += ["before = [p.grad for p, _ in self.tied]  # of earlier calls, so summed already"]
        body += ["for p, _ in self.tied:", "    p.grad = None"]
    step = "self.schedule.step(*inputs, target=labels, losses=losses, loss_kwargs=scale, return_outputs=False)"
    body += [step]
    if of.tied:
        local = ".to_local()" if of.distributed else ""
        body += ["for (p, group), earlier in zip(self.tied, before, strict=True):"]
        body += [f"    dist.all_reduce(p.grad{local}, group=group)"]
        body += ["    if earlier is not None:", "        p.grad += earlier"]
    body += ["value = sum(losses, torch.zeros((), device=labels.device)).detach()"]
    body += [f"value = {over_data.format('value')}"] * bool(of.data)
    body += ['return fc.all_reduce(value, "sum", self.mesh["pp"])']
    return function("forward_backward", _tensors(of), "Tensor", LOSS, body)


def _clip(of: Context) -> Lines:
    full = ".full_tensor()" if of.distributed else ""
    if not of.pp:
        body = ["return nn.utils.clip_grad_norm_(self.module.parameters(), max_norm).full_tensor()"]
        return function("clip_gradients", ["self", "max_norm: float"], "Tensor", NORM, body)
    body: Lines = []
    if of.tied:
        body += [
            "copies = {name for name, holders in TIED.items() if holders[0] != self.index}"
            "  # count at their first holder"
        ]
        body += ["once = [p.grad for name, p in self.module.named_parameters() if name not in copies]"]
        body += [f"norm = nn.utils.get_total_norm(once){full}"]
    else:
        body += [f"norm = nn.utils.get_total_norm(p.grad for p in self.module.parameters()){full}"]
    body += ['norm = fc.all_reduce(norm**2, "sum", self.mesh["pp"]).sqrt()']
    body += ["nn.utils.clip_grads_with_norm_(self.module.parameters(), max_norm, norm)", "return norm"]
    return function("clip_gradients", ["self", "max_norm: float"], "Tensor", NORM, body)
