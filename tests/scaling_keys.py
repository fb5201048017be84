"""For every key of the scalings of a rope, a spec and a change of that key, which makes another file."""

from __future__ import annotations

from tests.broken import DECODER

LINEAR = DECODER.replace("{theta: 10000}", "{scaling: {kind: linear, factor: 8}}")
LLAMA3 = DECODER.replace("{theta: 10000}", "{scaling: {kind: llama3, factor: 8}}")
DYNAMIC = DECODER.replace("{theta: 10000}", "{scaling: {kind: dynamic, factor: 8}}")
YARN = DECODER.replace("{theta: 10000}", "{scaling: {kind: yarn, factor: 8}}")
LONG = "kind: longrope, factor: 8, short: [1, 1, 1, 1], long: [2, 2, 2, 2]"
LONGROPE = DECODER.replace("{theta: 10000}", f"{{scaling: {{{LONG}}}}}")
PROPORTIONAL = DECODER.replace("{theta: 10000}", "{scaling: {kind: proportional, fraction: 0.5}}")
SCALINGS: dict[str, tuple[str, str, str]] = {
    "LinearScaling.kind": (LINEAR, "kind: linear", "kind: llama3"),
    "LinearScaling.factor": (LINEAR, "factor: 8", "factor: 4"),
    "Llama3Scaling.kind": (LLAMA3, "kind: llama3", "kind: linear"),
    **{
        f"Llama3Scaling.{key}": (LLAMA3, "factor: 8", f"factor: 8, {key}: {value}")
        for key, value in (("low_freq", 2), ("high_freq", 8), ("original_seq", 64))
    },
    "Llama3Scaling.factor": (LLAMA3, "factor: 8", "factor: 4"),
    "DynamicScaling.kind": (DYNAMIC, "kind: dynamic", "kind: linear"),
    "DynamicScaling.factor": (DYNAMIC, "factor: 8", "factor: 4"),
    "DynamicScaling.original_seq": (DYNAMIC, "factor: 8", "factor: 8, original_seq: 16"),
    "YarnScaling.kind": (YARN, "kind: yarn", "kind: linear"),
    "YarnScaling.factor": (YARN, "factor: 8", "factor: 4"),
    **{
        f"YarnScaling.{key}": (YARN, "factor: 8", f"factor: 8, {key}: {value}")
        for key, value in {
            "original_seq": 400,
            "beta_fast": 8,
            "beta_slow": 2,
            "truncate": "false",
            "amplitude": "1 + log(2)",
        }.items()
    },
    "LongropeScaling.kind": (
        LONGROPE,
        LONG,
        "kind: linear, factor: 2",
    ),
    "LongropeScaling.factor": (LONGROPE, "factor: 8", "factor: 4"),
    **{
        f"LongropeScaling.{key}": (LONGROPE, "factor: 8", f"factor: 8, {key}: {value}")
        for key, value in (("original_seq", 16), ("amplitude", 1.5))
    },
    "LongropeScaling.short": (LONGROPE, "short: [1", "short: [3"),
    "LongropeScaling.long": (LONGROPE, "long: [2", "long: [3"),
    "ProportionalScaling.kind": (PROPORTIONAL, "kind: proportional, fraction: 0.5", "kind: linear, factor: 2"),
    "ProportionalScaling.factor": (PROPORTIONAL, "fraction: 0.5", "fraction: 0.5, factor: 2"),
    "ProportionalScaling.fraction": (PROPORTIONAL, "fraction: 0.5", "fraction: 0.25"),
}
