"""The tables."""

import os
import platform
from importlib import metadata
from pathlib import Path
from statistics import median

PEERS = ["torch", "onnxruntime", "candle"]
#: From seconds and bytes.
UNITS = {"ms": 1e3, "MiB": 2**-20}
CANDLE_LOCK = Path(__file__).resolve().parent / "candle" / "Cargo.lock"


def markdown(results, models):
    def of(*kinds):
        return [result for result in results if result["kind"] in kinds]

    parts = [preamble(models)]
    if times := of("forward", "train"):
        parts += [table("Times", times, "ms", ["tokens/s", "floor ms", "/ floor"], speed), rates(times)]
    if processes := of("process"):
        parts.append(table("Whole process: load, answer one text", processes, "ms"))
    if memory := of("forward-memory", "train-memory"):
        parts.append(table("Peak memory", memory, "MiB"))
    return "\n".join(parts)


def preamble(models):
    names = ("torch", "transformers", "onnxruntime")
    versions = [f"{name} {metadata.version(name)}" for name in names] + [f"candle-transformers {candle_version()}"]
    return (
        f"Medians of alternating runs; `ours / peer` below 1 is faster or smaller. Random weights in the shapes of "
        f"{' and '.join(name for name in models if 'dropout' not in name)}, f32. {', '.join(versions)}; "
        f"{processor()}, {os.cpu_count()} cores.\n"
    )


def table(title, results, unit, columns=(), cells=lambda *_: ()):
    """Ours, its ratio to each peer, `cells(result, ours)` under `columns`, and the peers."""
    theirs = [f"{peer} {unit}" for peer in PEERS]
    head = ["case", "threads", f"ours {unit}", *(f"/ {peer}" for peer in PEERS), *columns, *theirs]
    lines = [f"### {title}\n", row(head), row(["---", *["---:"] * (len(head) - 1)])]
    for result in results:
        found = {peer: median(samples) for peer, samples in result["samples"].items()}
        ours = found["ours"]
        ratios = [f"{ours / found[peer]:.2f}" if peer in found else "-" for peer in PEERS]
        theirs = [f"{UNITS[unit] * found[peer]:.1f}" if peer in found else "-" for peer in PEERS]
        start = [result["case"], str(result["threads"]), f"{UNITS[unit] * ours:.1f}"]
        lines.append(row([*start, *ratios, *cells(result, ours), *theirs]))
    return "\n".join(lines) + "\n"


def speed(result, ours):
    floor = result["flops"] / median(result["gemm_rates"])
    return [f"{result['tokens'] / ours:.0f}", f"{1e3 * floor:.1f}", f"{ours / floor:.2f}"]


def rates(results):
    """The rate behind the floors, and how far the outputs are apart."""
    lines = []
    for threads in sorted({result["threads"] for result in results}):
        found = [rate for result in results if result["threads"] == threads for rate in result["gemm_rates"]]
        lines.append(f"- f32 products with {threads} thread(s): {median(found) / 1e9:.0f} GFLOP/s")
    differences = [result["check"].get("differences", {}) for result in results]
    for peer in ("ours", "onnxruntime", "candle"):
        if found := [row[peer] for row in differences if peer in row]:
            lines.append(f"- largest difference of last hidden states from torch's, {peer}: {max(found):.1e}")
    return "\n".join(lines) + "\n"


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
