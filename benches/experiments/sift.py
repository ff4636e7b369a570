#!/usr/bin/env python3
"""What SiFT buys on the movie reviews: this crate's `finetune_classification`, several seeds, with and without.

    cargo build --release --examples
    python3 sift.py MODEL_DIR --sizes 100 1000 --seeds 3 --output results.jsonl [--epochs 2] [--false-labels 0.2] [--lambdas 1 3]

Trains on the SIZE training texts whose SHA-256 of "subset" followed by the text is smallest, as `movie_reviews.py` does, with
the same recipe, and judges the last model on all validation and test texts, and on the test texts with characters swapped (each
letter with its right neighbour within a word, with a probability of --swaps). A share of the training texts may get the other label:
the same texts for every seed, with SiFT and without. A line of JSON a run; runs that the file has already are not repeated. The
tables, mean and standard deviation over the seeds, are printed at the end.
"""

import argparse
import hashlib
import itertools
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
    parser.add_argument("--lambdas", type=float, nargs="+", default=[3.0], help="SiFT's weights of the adversarial term")
    parser.add_argument("--false-labels", type=float, default=0.0, help="share of the training texts with the other label")
    parser.add_argument("--precision", default="f32", help="of training: f32 or bf16")
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


def by_hash(examples, word):
    """(text, label) rows in an order that is random but always the same."""
    return sorted(examples, key=lambda row: hashlib.sha256((word + row[0]).encode()).digest())


def training_texts(size, false_labels):
    """Rows of which a share has the other label."""
    chosen = by_hash(by_hash(rows("train.tsv"), "subset")[:size], "false")
    wrong = round(false_labels * len(chosen))
    other = {"positive": "negative", "negative": "positive"}
    return [(text, other[label]) for text, label in chosen[:wrong]] + chosen[wrong:]


def run(model, swaps, size, seed, sift_lambda, epochs, false_labels, precision):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        # In the order of the subset, whatever the labels: a seed shuffles the same texts in the same way.
        texts = by_hash(training_texts(size, false_labels), "subset")
        train = scratch / "train.tsv"
        train.write_text("text\tlabel\n" + "".join(f"{t}\t{label}\n" for t, label in texts), encoding="utf-8")
        output = scratch / "out"
        command = [PROGRAMS / "finetune_classification", "--model", model, "--train", train, "--output", output]
        command += ["--test", DATA / "test.tsv", "--epochs", str(epochs), "--seed", str(seed), "--max-length", "64"]
        command += ["--batch-size", "16", "--learning-rate", "4.5e-5", "--evaluate-every", "100000", "--precision", precision]
        command += [] if sift_lambda is None else ["--sift", "--sift-lambda", str(sift_lambda)]
        subprocess.run(command, check=True, capture_output=True)
        test = rows("test.tsv")
        noisy = [(swapped(text, swaps), label) for text, label in test]
        record = json.loads((output / "training.json").read_text())
        return dict(
            valid=accuracy(output, rows("valid.tsv"), scratch), clean=record["outcome"]["test"]["accuracy"],
            noisy=accuracy(output, noisy, scratch),
        )


def table(results):
    print("| training texts | false labels | | validation accuracy | test accuracy | with characters swapped |")
    print("|---:|---:|---|---:|---:|---:|")
    setting = lambda result: tuple(value for key, value in sorted(result["run"].items()) if key != "seed")
    for chosen in {setting(result): None for result in results}:
        found = [result for result in results if setting(result) == chosen]
        spread = lambda key: statistics.stdev(result[key] for result in found) if len(found) > 1 else 0.0
        mean = lambda key: statistics.mean(result[key] for result in found)
        cells = " | ".join(f"{mean(key):.4f} ± {spread(key):.4f}" for key in ("valid", "clean", "noisy"))
        of = found[0]["run"]
        method = "plain" if of["sift_lambda"] is None else f"SiFT, lambda {of['sift_lambda']:g}"
        what = f"{method}, {of['epochs']} epochs, {of['precision']}, {len(found)} seeds"
        print(f"| {of['size']} | {of['false_labels']:g} | {what} | {cells} |")


def main():
    args = arguments()
    lines = args.output.read_text().splitlines() if args.output.exists() else []
    results = [json.loads(line) for line in lines]
    if not all("run" in result for result in results):
        raise SystemExit(f"{args.output}: a line has no `run`, it is of an earlier version; choose another --output")
    same = dict(epochs=args.epochs, false_labels=args.false_labels, precision=args.precision)
    for size, seed, sift_lambda in itertools.product(args.sizes, range(args.seeds), [None, *args.lambdas]):
        key = dict(size=size, seed=seed, sift_lambda=sift_lambda, **same)
        if any(result["run"] == key for result in results):
            continue
        results.append(dict(run=key, **run(args.model, args.swaps, **key)))
        with args.output.open("a") as file:
            file.write(json.dumps(results[-1]) + "\n")
    table(results)


if __name__ == "__main__":
    main()
