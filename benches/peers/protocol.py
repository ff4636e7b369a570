"""The workers' side of the protocol, for those in Python."""

import json
import sys
import time

import numpy


def serve(load, forward, train=None):
    """Answers one JSON line with another. `forward(model, ids, mask)` gives the last hidden states as an array,
    `train(model, ids, mask, labels)` the loss; both take arrays [texts, longest]."""
    model = None
    for line in sys.stdin:
        command = json.loads(line)
        if command["command"] == "load":
            model = load(command["model"], command["train"], command["sift"])
            answer = {}
        else:
            start = time.perf_counter()
            batch = padded(command["texts"])
            if command["command"] == "forward":
                states = forward(model, *batch)
                answer = {"seconds": time.perf_counter() - start}
                if command.get("save"):
                    numpy.ascontiguousarray(states, dtype="<f4").tofile(command["save"])
            else:
                loss = train(model, *batch, numpy.array(command["labels"]))
                answer = {"seconds": time.perf_counter() - start, "loss": loss}
        print(json.dumps(answer), flush=True)


def padded(texts):
    """Ids and mask."""
    shape = (len(texts), max(map(len, texts)))
    ids, mask = numpy.zeros(shape, numpy.int64), numpy.zeros(shape, numpy.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return ids, mask
