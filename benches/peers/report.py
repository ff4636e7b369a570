"""The tables."""

import os
import platform
from importlib import metadata
from pathlib import Path
from statistics import median

from cases import VARIANTS, Variant

#: From seconds and bytes.
UNITS = {"ms": 1e3, "MiB": 2**-20}
CANDLE_LOCK = Path(__file__).resolve().parent / "candle" / "Cargo.lock"
OURS = Variant("ours", "f32")
#: Ours in a precision, and the best of what it has to be compared with.
COMPARISONS = [
    ("f32", "best f32 peer", lambda other: other.peer != "ours" and other.bits == "f32"),
    ("bf16", "best peer of any precision", lambda other: other.peer != "ours"),
    ("i16", "ours in f32", lambda other: other == OURS),
    ("int8", "best onnxruntime int8", lambda other: other.peer == "onnxruntime" and other.bits == "int8"),
    ("int8-all", "best onnxruntime int8", lambda other: other.peer == "onnxruntime" and other.bits == "int8"),
]


def markdown(results, models, kernels):
    parts = [preamble(models), in_use(kernels)]
    for title, kinds, unit in (
        ("Times", ("forward", "train"), "ms"),
        ("Whole process: load, answer one text", ("process",), "ms"),
        ("Peak memory", ("forward-memory", "train-memory"), "MiB"),
    ):
        if found := [result for result in results if result["kind"] in kinds]:
            parts += [f"### {title}\n", comparisons(found), values(found, unit)]
            if unit == "ms" and "forward" in kinds:
                parts += [floors(found), differences(found)]
    return "\n".join(parts)


def preamble(models):
    names = ("torch", "transformers", "onnxruntime", "openvino", "nncf")
    versions = [f"{name} {metadata.version(name)}" for name in names] + [f"candle-transformers {candle_version()}"]
    return (
        f"Medians of alternating runs. Random weights in the shapes of "
        f"{' and '.join(name for name in models if 'dropout' not in name)}. {', '.join(versions)}; "
        f"{processor()}, {os.cpu_count()} cores.\n"
    )


def in_use(kernels):
    """What each says of its kernels, or why it is missing."""
    lines = [f"- {variant}: {said.get('kernels') or 'missing: ' + said['unsupported']}" for variant, said in kernels.items()]
    return "\n".join(lines) + "\n"


def comparisons(results):
    """Ours over the best of the others, below 1 is faster or smaller: a row a precision, a column a case."""
    cases = list(dict.fromkeys(result["case"] for result in results))
    lines = head(["ours", "over", "threads", *cases])
    for precision, title, compared in COMPARISONS:
        for threads in sorted({result["threads"] for result in results}):
            found = {result["case"]: result for result in results if result["threads"] == threads}
            cells = [ratio(found.get(case), Variant("ours", precision), compared) for case in cases]
            if any(cell != "-" for cell in cells):
                lines.append(row([precision, title, str(threads), *cells]))
    return "\n".join(lines) + "\n"


def ratio(result, ours, compared):
    found = medians(result) if result else {}
    others = [variant for variant in found if compared(variant)]
    if ours not in found or not others:
        return "-"
    best = min(others, key=found.get)
    return f"{found[ours] / found[best]:.2f} {best}"


def values(results, unit):
    """A row a case and thread count, a column for everyone that was measured."""
    measured = [variant for variant in VARIANTS if any(variant in medians(result) for result in results)]
    lines = head([f"case, {unit}", "threads", *map(str, measured)])
    for result in results:
        found = medians(result)
        cells = [f"{UNITS[unit] * found[variant]:.1f}" if variant in found else "-" for variant in measured]
        lines.append(row([result["case"], str(result["threads"]), *cells]))
    return "\n".join(lines) + "\n"


def floors(results):
    """Ours in f32 beside the multiplications alone."""
    lines = head(["ours in f32", "threads", "tokens/s", "floor ms", "/ floor", "GFLOP/s of a large product"])
    for result in results:
        if ours := medians(result).get(OURS):
            rate = median(result["gemm_rates"])
            floor = result["flops"] / rate
            cells = [f"{result['tokens'] / ours:.0f}", f"{1e3 * floor:.1f}", f"{ours / floor:.2f}", f"{rate / 1e9:.0f}"]
            lines.append(row([result["case"], str(result["threads"]), *cells]))
    return "\n".join(lines) + "\n"


def differences(results):
    """How far the outputs are apart."""
    largest = {}
    for result in results:
        for variant, difference in result["check"].get("differences", {}).items():
            key = variant, result["check"]["reference"]
            largest[key] = max(largest.get(key, 0.0), difference)
    lines = [f"- largest difference of last hidden states, {one} from {two}: {value:.1e}" for (one, two), value in largest.items()]
    return "\n".join(lines) + "\n"


def medians(result):
    """Of each variant's samples."""
    return {variant: median(result["samples"][str(variant)]) for variant in VARIANTS if str(variant) in result["samples"]}


def head(cells):
    return [row(cells), row(["---", *["---:"] * (len(cells) - 1)])]


def row(cells):
    return f"| {' | '.join(cells)} |"


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def candle_version():
    lines = CANDLE_LOCK.read_text().splitlines()
    return lines[lines.index('name = "candle-transformers"') + 1].split('"')[1]
