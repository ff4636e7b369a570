"""Runs the cases: persistent workers that take turns for times, fresh ones for memory and for the whole process."""

import itertools
import json
import os
import re
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import numpy

from cases import flops
from prepare import NO_DROPOUT

GEMM_SIZE = 2048
#: Waiting threads of the last peer fall asleep within this time, and don't take the next one's cores.
PAUSE = 0.1
#: Largest difference between two implementations in f32: rounding over 12 layers of values around 1 gives some 1e-5. What
#: lower precisions may change is not for random weights to say: ../decisions asks models that have learnt something.
LARGEST_DIFFERENCE = 1e-3
#: Losses of a step without dropout, relative.
LARGEST_LOSS_DIFFERENCE = 1e-3


class Worker:
    """A process that does one thing a request."""

    def __init__(self, command, threads):
        names = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        env = {**os.environ, **{name: str(threads) for name in names}}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=env, **pipes)

    def ask(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.process.args[-1]} ended with {self.process.wait()} at {command['command']}")
        return json.loads(answer)

    def load(self, folder, precision="f32", head=False, train=False, sift=False):
        """What it says of its kernels: {"kernels": ..}, or {"unsupported": why}."""
        return self.ask(command="load", model=str(folder), precision=precision, head=head, train=train, sift=sift)

    def run(self, case, **more):
        if case.trains:
            return self.ask(command="train", texts=case.texts(), labels=case.labels())
        return self.ask(command="forward", texts=case.texts(), **more)

    def peak_memory(self):
        """Bytes, of all its life."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def all_cases(cases, variants, thread_counts, rounds, workers, models, scratch):
    """A result for each case and thread count: every variant's samples, in seconds or bytes, and whether all agreed; and what
    each says of its kernels."""
    run = Run(variants, rounds, workers, models, scratch)
    run.ask_for_kernels(max(thread_counts))
    results = []
    for threads in thread_counts:
        timed = [case for case in cases if case.kind in ("forward", "train")]
        # Cases that follow each other and load the same model share their processes.
        for _, group in itertools.groupby(timed, key=lambda case: (case.kind, case.model, case.sift, case.f32_only)):
            results += run.timed(list(group), threads)
        for case in cases:
            if case.kind.endswith("-memory"):
                results.append(run.memory(case, threads))
            elif case.kind == "process":
                results.append(run.whole_process(case, threads))
    return results, run.kernels


class Run:
    """What all measurements of one run share."""

    def __init__(self, variants, rounds, workers, models, scratch):
        self.variants, self.rounds, self.workers, self.models, self.scratch = variants, rounds, workers, models, scratch
        self.kernels = {}

    def start(self, variant, threads):
        return Worker(self.workers[variant.peer], threads)

    def load(self, worker, variant, case, twin=""):
        worker.load(self.models[case.model + twin], variant.precision, train=case.trains, sift=case.sift)

    def ask_for_kernels(self, threads):
        """What each variant says of its kernels; those that this machine doesn't have are left out from here on."""
        for variant in self.variants:
            with self.start(variant, threads) as worker:
                self.kernels[variant] = worker.load(self.models["v3-base"], variant.precision)
            log(f"{variant}: {self.kernels[variant]}")
        self.variants = [variant for variant in self.variants if "kernels" in self.kernels[variant]]

    def timed(self, cases, threads):
        first = cases[0]
        variants = first.variants(self.variants)
        losses = self.losses(first, variants, threads) if first.trains else None
        results = []
        with ExitStack() as stack:
            workers = {variant: stack.enter_context(self.start(variant, threads)) for variant in variants}
            for variant, worker in workers.items():
                self.load(worker, variant, first)
            gemm = stack.enter_context(Worker(self.workers["ours"], threads))
            for case in cases:
                log(f"{case.name}, {threads} threads")
                for variant, worker in workers.items():
                    worker.run(case, **({} if case.trains else {"save": str(self.states(variant))}))
                check = compare_losses(losses) if case.trains else self.compare_states(case, variants)
                log(f"  {check}")
                samples = {str(variant): [] for variant in variants}
                rates = []
                for _ in range(self.rounds):
                    rates.append(self.gemm_rate(gemm))
                    for variant, worker in workers.items():
                        time.sleep(PAUSE)
                        samples[str(variant)].append(worker.run(case)["seconds"])
                results.append(self.result(case, threads, samples, check=check, gemm_rates=rates))
        return results

    def gemm_rate(self, worker):
        time.sleep(PAUSE)
        return 2 * GEMM_SIZE**3 / worker.ask(command="gemm", size=GEMM_SIZE)["seconds"]

    def memory(self, case, threads):
        samples = {}
        for variant in case.variants(self.variants):
            log(f"{case.name}, {threads} threads, {variant}")
            with self.start(variant, threads) as worker:
                self.load(worker, variant, case)
                for _ in range(2):  # an optimiser has no state before its first step
                    worker.run(case)
                samples[str(variant)] = [worker.peak_memory()]
        return self.result(case, threads, samples)

    def whole_process(self, case, threads):
        variants = case.variants(self.variants)
        samples = {str(variant): [] for variant in variants}
        for number in range(self.rounds + 1):
            log(f"{case.name}, {threads} threads, round {number}")
            for variant in variants:
                time.sleep(PAUSE)
                start = time.perf_counter()
                with self.start(variant, threads) as worker:
                    self.load(worker, variant, case)
                    worker.run(case)
                if number > 0:  # the first brings files into the cache
                    samples[str(variant)].append(time.perf_counter() - start)
        return self.result(case, threads, samples)

    def result(self, case, threads, samples, **more):
        config = json.loads((self.models[case.model] / "config.json").read_text())
        known = {"case": case.name, "kind": case.kind, "threads": threads, "tokens": case.tokens}
        return {**known, "flops": flops(case, config), "samples": samples, **more}

    def states(self, variant):
        return self.scratch / f"{variant}.states"

    def compare_states(self, case, variants):
        """The largest differences from the first variant in f32 of another peer (ours, if there is none), at real tokens."""
        shape = (len(case.lengths), max(case.lengths), -1)
        real = numpy.arange(max(case.lengths)) < numpy.array(case.lengths)[:, None]
        states = {variant: numpy.fromfile(self.states(variant), "<f4").reshape(shape)[real] for variant in variants}
        exact = [variant for variant in variants if variant.bits == "f32"]
        reference = next((variant for variant in exact if variant.peer != "ours"), variants[0])
        found = {variant: float(numpy.abs(values - states[reference]).max()) for variant, values in states.items()}
        agree = all(found[variant] <= LARGEST_DIFFERENCE for variant in exact) and numpy.isfinite(list(found.values())).all()
        differences = {str(variant): value for variant, value in found.items() if variant != reference}
        return {"reference": str(reference), "differences": differences, "agree": bool(agree)}

    def losses(self, case, variants, threads):
        """The losses of three steps without dropout."""
        found = {}
        for variant in variants:
            with self.start(variant, threads) as worker:
                self.load(worker, variant, case, NO_DROPOUT)
                found[str(variant)] = [worker.run(case)["loss"] for _ in range(3)]
        return found


def compare_losses(losses):
    first, *others = losses.values()
    agree = all(numpy.allclose(first, other, rtol=LARGEST_LOSS_DIFFERENCE, atol=0.0) for other in others)
    return {"losses": losses, "agree": agree}


def log(message):
    print(message, flush=True)
