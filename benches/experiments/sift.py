#!/usr/bin/env python3
"""What SiFT buys on the movie reviews: this crate's `finetune_classification`, several seeds, with and without.

    cargo build --release --examples
    python3 sift.py MODEL_DIR --sizes 100 1000 --seeds 3 --output results.jsonl [--epochs 2]

Trains on the SIZE training texts whose SHA-256 of "subset" followed by the text is smallest, as `movie_reviews.py` does, with
the same recipe, and judges the last model on all test texts, as they are and with characters swapped (each letter with its right
neighbour within a word, with a probability of --swaps). A line of JSON a run; runs that the file has already are not repeated.
The tables, mean and standard deviation over the seeds, are printed at the end.
"""

import argparse
import hashlib
import json
import random
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/data/movie-reviews"
PROGRAMS = ROOT / "target/release/examples"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="checkpoint folder to start from")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--swaps", type=float, default=0.1)
    parser.add_argument("--output", type=Path, required=True, help="a line a run is added to this file")
    return parser.parse_args()


def rows(name):
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()[1:]
    return [line.rsplit("\t", 1) for line in lines]


def swapped(text, rate):
    source = random.Random(text)
    letters = list(text)
    for place in range(len(letters) - 1):
        if letters[place].isalpha() and letters[place + 1].isalpha() and source.random() < rate:
            letters[place], letters[place + 1] = letters[place + 1], letters[place]
    return "".join(letters)


def accuracy(model, examples, scratch):
    """Of the `classify` example on (text, label) rows."""
    file = scratch / "texts.jsonl"
    file.write_text("".join(json.dumps(dict(text=text)) + "\n" for text, _ in examples), encoding="utf-8")
    command = [PROGRAMS / "classify", "--model", model, "--file", file, "--json"]
    answers = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    best = [max(json.loads(line), key=lambda score: score["score"])["label"] for line in answers]
    return sum(found == label for found, (_, label) in zip(best, examples, strict=True)) / len(examples)


def run(model, size, seed, sift, epochs, swaps):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        order = sorted(rows("train.tsv"), key=lambda row: hashlib.sha256(("subset" + row[0]).encode()).digest())
        train = scratch / "train.tsv"
        train.write_text("text\tlabel\n" + "".join(f"{t}\t{label}\n" for t, label in order[:size]), encoding="utf-8")
        output = scratch / "out"
        command = [PROGRAMS / "finetune_classification", "--model", model, "--train", train, "--output", output]
        command += ["--test", DATA / "test.tsv", "--epochs", str(epochs), "--seed", str(seed), "--max-length", "64"]
        command += ["--batch-size", "16", "--learning-rate", "4.5e-5", "--evaluate-every", "100000"]
        command += ["--sift", "--sift-lambda", "3"] if sift else []
        subprocess.run(command, check=True, capture_output=True)
        test = rows("test.tsv")
        noisy = [(swapped(text, swaps), label) for text, label in test]
        record = json.loads((output / "training.json").read_text())
        return dict(
            size=size, seed=seed, sift=sift, epochs=epochs, clean=record["outcome"]["test"]["accuracy"],
            noisy=accuracy(output, noisy, scratch),
        )


def table(results):
    print("| training texts | | test accuracy | with characters swapped |\n|---:|---|---:|---:|")
    for size, epochs, sift in sorted({(r["size"], r["epochs"], r["sift"]) for r in results}):
        chosen = [r for r in results if (r["size"], r["epochs"], r["sift"]) == (size, epochs, sift)]
        spread = lambda key: statistics.stdev(r[key] for r in chosen) if len(chosen) > 1 else 0.0
        cells = [f"{statistics.mean(r[key] for r in chosen):.4f} ± {spread(key):.4f}" for key in ("clean", "noisy")]
        print(f"| {size} | {'SiFT' if sift else 'plain'}, {epochs} epochs, {len(chosen)} seeds | {' | '.join(cells)} |")


def main():
    args = arguments()
    lines = args.output.read_text().splitlines() if args.output.exists() else []
    results = [json.loads(line) for line in lines]
    for size in args.sizes:
        for seed in range(args.seeds):
            for sift in (False, True):
                key = dict(size=size, seed=seed, sift=sift, epochs=args.epochs)
                if any(key.items() <= result.items() for result in results):
                    continue
                results.append(run(args.model, size, seed, sift, args.epochs, args.swaps))
                with args.output.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
    table(results)


if __name__ == "__main__":
    main()
