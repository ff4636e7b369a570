"""The workers' side of the protocol, for those in Python."""

import json
import sys
import time

import numpy


class Unsupported(Exception):
    """A precision that this machine or this peer doesn't have, and why."""


def serve(load, forward, train=None):
    """Answers one JSON line with another. `load(command)` gives a model and says which kernels it uses, `forward(model, ids,
    mask)` gives the last hidden states or logits as an array, `train(model, ids, mask, labels)` the loss; both take arrays
    [texts, longest]."""
    model = None
    for line in sys.stdin:
        command = json.loads(line)
        if command["command"] == "load":
            try:
                model, kernels = load(command)
                answer = {"kernels": kernels}
            except Unsupported as why:
                answer = {"unsupported": str(why)}
        else:
            start = time.perf_counter()
            batch = padded(command["texts"])
            if command["command"] == "forward":
                values = forward(model, *batch)
                answer = {"seconds": time.perf_counter() - start}
                if command.get("save"):
                    numpy.ascontiguousarray(values, dtype="<f4").tofile(command["save"])
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
