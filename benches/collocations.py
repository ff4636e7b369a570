#!/usr/bin/env python3
"""Prints for how many of collocations.jsonl's texts a sensible word is among the guesses, from what `fill_mask` says:

    cargo run --release --example fill_mask -- --file benches/collocations.jsonl --json | python3 benches/collocations.py

Which words are sensible was written down before a model was asked. Case does not count.
"""

import json
import sys
from pathlib import Path

texts = [json.loads(line) for line in Path(__file__).with_suffix(".jsonl").read_text().splitlines()]
answers = [json.loads(line) for line in sys.stdin]
if len(answers) != len(texts):
    sys.exit(f"expected {len(texts)} answers, one for each line of collocations.jsonl, and found {len(answers)}")
right = 0
for text, (mask,) in zip(texts, answers):
    words = [word["word"].strip() for word in mask["words"]]
    sensible = any(word.lower() in text["sensible"] for word in words)
    right += sensible
    print("yes" if sensible else "no ", text["text"], ", ".join(words), sep="\t")
print(f"{right} of {len(texts)} ({100 * right / len(texts):.1f} %)")
