"""Names that become files, modules and classes."""

from __future__ import annotations

import builtins
import keyword
import re
import sys

from specc.spec.schedules import SCHEDULES

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}", re.ASCII)
_PART = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
IMPORTED = (
    *("torch", "numpy", "specc", "site", "sitecustomize", "usercustomize", "conftest"),
    *("click", "filelock", "fsspec", "jinja2", "networkx", "pydantic", "sympy", "typing_extensions", "yaml"),
)
"""A generated file of such a name would be imported in place of the real one."""
MODULES = (
    *("asynchat", "asyncore", "distutils", "imp", "smtpd"),  # until 3.11
    *("aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3", "mailcap", "msilib", "nis", "nntplib"),
    *("ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"),  # until 3.12
    *("annotationlib", "compression"),  # from 3.14
    *("sre_compile", "sre_constants", "sre_parse"),  # on their way out
    "profiling",  # from 3.15
)
BUILTINS = ("frozendict", "sentinel")  # from 3.15
WORDS = ("type", "lazy")  # from 3.12 and 3.15
"""What not every supported Python has: a spec has the same findings under all of them."""
DEVICES = ("aux", "con", "nul", "prn", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)))
"""Windows has no files of these names."""
CLASSES = (
    *("AllGatherWhole", "Bias", "ChannelScale", "Collective", "ColumnLinear", "Embedding", "HeadScale", "Sinks"),
    *("LayerNorm", "RMSNorm", "RowLinear", "SplitHeadScale", "SplitSinks", "Trainer", "VocabEmbedding", "XIELU"),
    *("GroupedLayerNorm", "GroupedOffsetLayerNorm", "GroupedOffsetRMSNorm", "GroupedRMSNorm"),
    *("OffsetLayerNorm", "OffsetRMSNorm", "SplitGroupedLayerNorm", "SplitGroupedOffsetLayerNorm", "SplitRMSNorm"),
    *(
        "SplitGroupedOffsetRMSNorm",
        "SplitGroupedRMSNorm",
        "SplitLayerNorm",
        "SplitOffsetLayerNorm",
        "SplitOffsetRMSNorm",
    ),
    *("CausalConv", "DocumentConv", "Hashable", "PerHead", "SplitCausalConv", "SplitDocumentConv", "SplitPerHead"),
    *("BlockLinear", "LinearScan", "PerChannel", "PerState", "SplitBlockLinear", "SplitPerChannel", "SplitPerState"),
    *("AbstractContextManager", "Callable", "CheckpointPolicy", "DTensor", "DeviceMesh", "F", "FSDPModule", "Function"),
    *("Iterable", "Iterator", "Mapping", "MixedPrecisionPolicy", "Partial", "PipelineStage", "Placement", "Replicate"),
    *(kind.cls for kind in SCHEDULES.values()),
    *("MirroredStages", "Shard", "StagesOfRank", "Tensor", "TurningStage"),
    *("CrossEntropy", "SmoothScores", "SmoothSplitScores", "SplitCrossEntropy"),
)
"""What generated files define and import; the model's class must not take its place."""
CONSTANTS = ("COMPUTE", "MICROBATCHES", "REDUCE", "STAGES", "TIED")
"""Of generated files: a name of single letters becomes such a class."""
CAPITALS = ("IncompleteInputError", "PythonFinalizationError", "WindowsError")
"""Builtins with a capital that not every supported Python has, or has under every system."""


def module_name(name: str) -> str:
    """The file of a spec, without its ending."""
    return re.sub(r"[-.]", "_", name)


def class_name(name: str) -> str:
    """`llama-3.1-8b` as a class: Llama3_1_8b."""
    joined = ""
    for part in re.split(r"[-._]", name):
        between = "_" if joined[-1:].isdigit() and part[:1].isdigit() else ""
        joined += f"{between}{part[:1].upper()}{part[1:]}"
    return joined


def name_problem(name: str) -> str | None:
    """Why a spec cannot have that name, or None."""
    if not _NAME.fullmatch(name) or ".." in name or name[-1] in ".-":
        return "lower case letters, digits, dots, dashes and underscores make a name, a letter first"
    module = module_name(name)
    if keyword.iskeyword(module) or keyword.issoftkeyword(module) or module in WORDS:
        return f"{module} is a word of Python"
    if hasattr(builtins, module) or module in BUILTINS:
        return f"{module} is a builtin of Python"
    if module in sys.stdlib_module_names or module in (*MODULES, *IMPORTED):
        return f"a file {module}.py would be imported in place of the module {module}"
    if module in DEVICES:
        return f"{module} is a device of Windows"
    own = class_name(name)
    same = next((known for known in CLASSES if known.lower() == module.replace("_", "")), None)
    if keyword.iskeyword(own) or hasattr(builtins, own) or own in (*CONSTANTS, *CAPITALS):
        same = own
    return None if same is None else f"its class would take the place of {same}"


def part_problem(name: str) -> str | None:
    """Why a block or a layout cannot have that name, or None. It becomes part of the name of a class or a file."""
    return None if _PART.fullmatch(name) else "lower case letters, digits and underscores make a name, a letter first"


def text_problem(text: str) -> str | None:
    """Why a text cannot stand in a docstring, or None."""
    if not text.isascii():
        return "generated files are ASCII"
    return None if all(c.isprintable() or c == "\n" for c in text) else "it has control characters"
