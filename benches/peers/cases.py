"""The rows of the comparison, their inputs, and the multiplications each can't do without."""

import fnmatch
import math
import random
from dataclasses import dataclass


#: Whose implementation, in which precisions. A precision that a machine or a library doesn't have is reported as missing.
PRECISIONS = {
    "ours": ("f32", "bf16", "i16", "int8", "int8-all"),
    "torch": ("f32", "bf16"),
    "onnxruntime": ("f32", "int8-per-tensor", "int8-per-channel"),
    "openvino": ("f32", "bf16", "int8"),
    "candle": ("f32",),
}


@dataclass(frozen=True)
class Variant:
    """One peer in one precision."""

    peer: str
    precision: str

    def __str__(self):
        return f"{self.peer}:{self.precision}"

    @property
    def bits(self):
        """f32, bf16, i16 or int8."""
        return self.precision.split("-")[0]


VARIANTS = [Variant(peer, precision) for peer, precisions in PRECISIONS.items() for precision in precisions]


@dataclass(frozen=True)
class Case:
    """One row: texts of these lengths through a model of this shape."""

    name: str
    kind: str  # forward, train: timed; forward-memory, train-memory: peak of a fresh process; process: its whole life
    model: str
    lengths: tuple
    sift: bool = False  # scale-invariant fine-tuning
    f32_only: bool = False  # where attention's memory leaves no room for everyone at once

    def __str__(self):
        return self.name

    @property
    def trains(self):
        return self.kind.startswith("train")

    def variants(self, chosen):
        """Who of those can run it. onnxruntime and OpenVINO don't train, candle's DeBERTa has no dropout. bf16 is mixed precision."""
        if self.trains:
            trainers = [variant for variant in chosen if variant.peer in ("ours", "torch")]
            return [variant for variant in trainers if variant.precision in ("f32", "bf16")]
        return [variant for variant in chosen if variant.bits == "f32" or not self.f32_only]

    @property
    def tokens(self):
        return sum(self.lengths)

    def texts(self):
        """The same random ids for everyone."""
        source = random.Random(self.name)
        return [[1, *(source.randrange(3, 100_000) for _ in range(length - 2)), 2] for length in self.lengths]

    def labels(self):
        return [number % 2 for number in range(len(self.lengths))]


RAGGED = tuple(8 * number for number in (3, 16, 5, 10, 1, 14, 7, 12, 2, 9, 15, 4, 11, 6, 13, 8))

CASES = [
    Case("base-1x32", "forward", "v3-base", (32,)),
    Case("base-1x128", "forward", "v3-base", (128,)),
    Case("base-8x128", "forward", "v3-base", (128,) * 8),
    Case("base-1x512", "forward", "v3-base", (512,)),
    Case("base-4x512", "forward", "v3-base", (512,) * 4),
    Case("base-ragged", "forward", "v3-base", RAGGED),
    Case("base-1x2048", "forward", "v3-base", (2048,), f32_only=True),
    Case("train-xsmall-8x128", "train", "v3-xsmall", (128,) * 8),
    Case("train-base-2x512", "train", "v3-base", (512,) * 2),
    Case("sift-xsmall-8x128", "train", "v3-xsmall", (128,) * 8, sift=True),
    Case("sift-base-2x512", "train", "v3-base", (512,) * 2, sift=True),
    Case("memory-base-4x512", "forward-memory", "v3-base", (512,) * 4),
    Case("memory-train-base-2x512", "train-memory", "v3-base", (512,) * 2),
    Case("memory-sift-base-2x512", "train-memory", "v3-base", (512,) * 2, sift=True),
    Case("process-base-1x32", "process", "v3-base", (32,)),
]


def selected(things, patterns):
    """Those of CASES or VARIANTS whose names match a pattern."""
    return [thing for thing in things if any(fnmatch.fnmatch(str(thing), pattern) for pattern in patterns)]


def flops(case, config):
    """Floating-point operations of the multiplications: those of the forward pass, three times as many for a step."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    linear = 2 * (4 * hidden**2 + 2 * hidden * config["intermediate_size"])  # q, k, v, output; both feed-forward layers
    total = 0
    for length in case.lengths:
        products = 2 * 2 * length**2 * hidden  # QK and PV
        positions = 2 * 2 * length * reachable_rows(length, config) * hidden  # c2p and p2c
        total += layers * (length * linear + products + positions)
    if case.trains:
        # Weights change with every step, and so do the projections of the position table (query's and key's).
        rows = reachable_rows(max(case.lengths), config)
        # A pass forward and two backward. SiFT has two of these, and one whose backward pass leaves the weights out.
        total = (8 if case.sift else 3) * (total + layers * 2 * 2 * rows * hidden**2)
    return total


def reachable_rows(length, config):
    """How many rows of the position table the distances between `length` tokens reach."""
    span, middle = config["position_buckets"], config["position_buckets"] // 2
    largest = config["max_position_embeddings"] - 1

    def row(distance):
        magnitude = abs(distance)
        if magnitude > middle:
            bucket = math.log(magnitude / middle) / math.log(largest / middle) * (middle - 1)
            magnitude = math.ceil(bucket) + middle
        return min(max(math.copysign(magnitude, distance) + span, 0), 2 * span - 1)

    return len({row(distance) for distance in range(1 - length, length)})
