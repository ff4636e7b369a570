"""Pairs of neighbouring sentences from the presidents' messages, for `finetune_embed`.

    python benches/neighbours.py FOLDER     # writes train.jsonl and valid.jsonl
"""

import gzip
import json
import re
import sys
from pathlib import Path

for part, most in (("train", 12000), ("valid", 500)):
    pairs = []
    for paragraph in gzip.open(f"examples/data/presidents/{part}.txt.gz", "rt").read().split("\n"):
        sentences = [text for text in re.split(r"(?<=[.!?]) ", paragraph) if 6 <= len(text.split()) <= 40]
        pairs += [dict(text=first, positive=second) for first, second in zip(sentences[::2], sentences[1::2])]
    rows = "".join(json.dumps(pair) + "\n" for pair in pairs[:most])
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part}.jsonl").write_text(rows)
