#!/usr/bin/env python3
"""Fine-tunes one checkpoint three times with this crate's examples: sentiment, named entities, answers. See ../README.md.

    cargo build --release --examples
    python3 prepare.py MODEL_DIR MODELS_DIR

A model that is there already is kept; `training.json` in its folder has its figures on the test set.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import data

PROGRAMS = Path(__file__).resolve().parents[2] / "target" / "release" / "examples"
RECIPE = ["--epochs", "2", "--batch-size", "16", "--evaluate-every", "100000"]


def finetune(program, model, output, train, test, *flags):
    if not output.exists():
        files = ["--model", model, "--train", train, "--test", test, "--output", output]
        subprocess.run([PROGRAMS / program, *files, *RECIPE, *flags], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="checkpoint folder to start from")
    parser.add_argument("models", type=Path, help="where the fine-tuned ones go")
    options = parser.parse_args()
    options.models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        train, test = Path(scratch) / "train", Path(scratch) / "test"

        data.write_reviews(data.subset(data.reviews("train"), 1000), train.with_suffix(".tsv"))
        data.write_reviews(data.reviews("test"), test.with_suffix(".tsv"))
        files = (train.with_suffix(".tsv"), test.with_suffix(".tsv"))
        flags = ("--max-length", "64", "--learning-rate", "4.5e-5")
        finetune("finetune_classification", options.model, options.models / "reviews", *files, *flags)

        data.write_conll(data.conll("train", 1000, options.models), train.with_suffix(".txt"))
        data.write_conll(data.conll("test", 400, options.models), test.with_suffix(".txt"))
        files = (train.with_suffix(".txt"), test.with_suffix(".txt"))
        finetune("finetune_ner", options.model, options.models / "entities", *files, "--learning-rate", "1e-4")

        # Few: with 1,000 it has all answers of the test right, and nothing could change them.
        data.write_squad(data.questions(300, seed=0), train.with_suffix(".json"))
        data.write_squad(data.questions(400, seed=1), test.with_suffix(".json"))
        files = (train.with_suffix(".json"), test.with_suffix(".json"))
        finetune("finetune_qa", options.model, options.models / "answers", *files, "--learning-rate", "1e-4")


if __name__ == "__main__":
    main()
