#!/usr/bin/env python3
"""Times this crate beside PyTorch, ONNX Runtime, OpenVINO and candle: same weights, same inputs, one run. See ../README.md."""

import argparse
import json
import tempfile
from pathlib import Path

import environment


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--cases", nargs="+", default=["*"], metavar="PATTERN", help="rows to measure, shell patterns of their names")
    add("--variants", nargs="+", default=["*"], metavar="PATTERN", help="peers and precisions, such as ours:* or *:int8*")
    add("--threads", default="1,2", help="thread counts, separated by commas")
    add("--rounds", type=int, default=5, help="timed runs of each row and peer, after one that is not counted")
    add("--layers", type=int, help="shrink the models to so many layers, to try the command itself")
    scratch = Path(tempfile.gettempdir()) / "deberta-burn-peers"
    add("--scratch", type=Path, default=scratch, help="folder for Python packages, candle's build and checkpoints")
    add("--output", type=Path, help="Markdown file to write the tables to; every sample goes to a .json beside it")
    return parser.parse_args()


def main():
    options = arguments()
    environment.enter(options.scratch)
    import measure
    import prepare
    import report
    from cases import CASES, VARIANTS, selected

    cases, variants = selected(CASES, options.cases), selected(VARIANTS, options.variants)
    if not cases:
        raise SystemExit(f"--cases: no row has such a name; there are {', '.join(case.name for case in CASES)}")
    if not variants:
        raise SystemExit(f"--variants: nothing has such a name; there are {', '.join(map(str, VARIANTS))}")
    workers = environment.build(options.scratch, {variant.peer for variant in variants})
    models = prepare.models(options.scratch, options.layers)
    threads = [int(count) for count in options.threads.split(",")]
    results, kernels = measure.all_cases(cases, variants, threads, options.rounds, workers, models, options.scratch)

    text = report.markdown(results, models, kernels)
    print(text)
    if options.output:
        options.output.write_text(text)
        options.output.with_suffix(".json").write_text(json.dumps(results, indent=1))
    wrong = [result["case"] for result in results if not result.get("check", {"agree": True})["agree"]]
    if wrong:
        raise SystemExit(f"the implementations disagree in {', '.join(wrong)}: their times mean nothing")


if __name__ == "__main__":
    main()
