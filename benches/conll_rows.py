#!/usr/bin/env python3
"""Turns CoNLL columns (word first, tag last, IOB1 or IOB2) into rows for `finetune_gliner`.

    python benches/conll_rows.py train.txt > train.jsonl
"""

import json
import sys

NAMES = {"PER": "person", "LOC": "location", "ORG": "organization", "MISC": "miscellaneous"}


def row(words, tags):
    entities, before = [], ("O", "")
    for index, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix == "I" and before[0] != "O" and before[1] == kind:
            entities[-1][1] = index
        elif prefix != "O":
            entities.append([index, index, NAMES.get(kind, kind)])
        before = (prefix, kind)
    return dict(tokenized_text=words, ner=entities)


def main():
    words, tags = [], []
    with open(sys.argv[1], encoding="utf-8") as file:
        for line in [*file, ""]:
            fields = line.split()
            if fields and fields[0] != "-DOCSTART-":
                words.append(fields[0])
                tags.append(fields[-1])
            elif words:
                print(json.dumps(row(words, tags), ensure_ascii=False))
                words, tags = [], []


if __name__ == "__main__":
    main()
