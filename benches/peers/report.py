"""The tables."""

import os
import platform
from importlib import metadata
from pathlib import Path
from statistics import median

PEERS = ["torch", "onnxruntime", "candle"]
CANDLE_LOCK = Path(__file__).resolve().parent / "candle" / "Cargo.lock"


def markdown(results, models):
    parts = [preamble(models)]
    times = [result for result in results if result["kind"] in ("forward", "train")]
    if times:
        parts.append(table(
            "Times", times, 1e3, ["tokens/s", "floor ms", "/ floor"],
            lambda result, ours: [f"{result['tokens'] / ours:.0f}", f"{1e3 * floor(result):.1f}", f"{ours / floor(result):.2f}"],
            "ms",
        ))
        rates = {}
        for result in times:
            rates.setdefault(result["threads"], []).extend(result["gemm_rates"])
        parts.append("".join(
            f"- {threads} thread(s): f32 products at {median(found) / 1e9:.0f} GFLOP/s\n" for threads, found in rates.items()
        ))
    processes = [result for result in results if result["kind"] == "process"]
    if processes:
        parts.append(table("Whole process: load, answer one text", processes, 1e3, [], lambda *_: [], "ms"))
    memory = [result for result in results if result["kind"].endswith("-memory")]
    if memory:
        parts.append(table("Peak memory", memory, 2**-20, [], lambda *_: [], "MiB"))
    return "\n".join(parts)


def preamble(models):
    names = ("torch", "transformers", "onnxruntime")
    versions = [f"{name} {metadata.version(name)}" for name in names] + [f"candle-transformers {candle_version()}"]
    return (
        f"Medians of alternating runs; `ours / peer` below 1 is faster or smaller. Random weights in the shapes of "
        f"{' and '.join(name for name in models if 'dropout' not in name)}, f32. {', '.join(versions)}; "
        f"{processor()}, {os.cpu_count()} cores.\n"
    )


def table(title, results, factor, columns, extra, unit):
    head = ["case", "threads", f"ours {unit}", *(f"/ {peer}" for peer in PEERS), *columns, *(f"{peer} {unit}" for peer in PEERS)]
    lines = [f"### {title}\n", row(head), row(["---", *["---:"] * (len(head) - 1)])]
    for result in results:
        medians = {peer: median(samples) for peer, samples in result["samples"].items()}
        ours = medians["ours"]
        ratios = [f"{ours / medians[peer]:.2f}" if peer in medians else "-" for peer in PEERS]
        theirs = [f"{factor * medians[peer]:.1f}" if peer in medians else "-" for peer in PEERS]
        start = [result["case"], str(result["threads"]), f"{factor * ours:.1f}"]
        lines.append(row([*start, *ratios, *extra(result, ours), *theirs]))
    return "\n".join(lines) + "\n"


def row(cells):
    return f"| {' | '.join(cells)} |"


def floor(result):
    """Seconds that the multiplications take at the rate measured between this case's rounds."""
    return result["flops"] / median(result["gemm_rates"])


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def candle_version():
    lines = CANDLE_LOCK.read_text().splitlines()
    return lines[lines.index('name = "candle-transformers"') + 1].split('"')[1]
