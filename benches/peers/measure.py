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
#: Largest difference between two implementations: f32 rounding over 12 layers of values around 1 gives some 1e-5.
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

    def load(self, folder, train, sift=False):
        self.ask(command="load", model=str(folder), train=train, sift=sift)

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


def all_cases(cases, thread_counts, rounds, workers, models, scratch):
    """A result for each case and thread count: every peer's samples, in seconds or bytes, and whether all agreed."""
    run = Run(rounds, workers, models, scratch)
    results = []
    for threads in thread_counts:
        timed = [case for case in cases if case.kind in ("forward", "train")]
        # Cases that follow each other and load the same model share their processes.
        for _, group in itertools.groupby(timed, key=lambda case: (case.kind, case.model, case.sift)):
            results += run.timed(list(group), threads)
        for case in cases:
            if case.kind.endswith("-memory"):
                results.append(run.memory(case, threads))
            elif case.kind == "process":
                results.append(run.whole_process(case, threads))
    return results


class Run:
    """What all measurements of one run share."""

    def __init__(self, rounds, workers, models, scratch):
        self.rounds, self.workers, self.models, self.scratch = rounds, workers, models, scratch

    def start(self, peer, threads):
        return Worker(self.workers[peer], threads)

    def timed(self, cases, threads):
        first = cases[0]
        losses = self.losses(first, threads) if first.trains else None
        results = []
        with ExitStack() as stack:
            peers = {peer: stack.enter_context(self.start(peer, threads)) for peer in first.peers}
            for worker in peers.values():
                worker.load(self.models[first.model], first.trains, first.sift)
            for case in cases:
                log(f"{case.name}, {threads} threads")
                for peer, worker in peers.items():
                    worker.run(case, **({} if case.trains else {"save": str(self.states(peer))}))
                check = compare_losses(losses) if case.trains else self.compare_states(case, peers)
                log(f"  {check}")
                samples = {peer: [] for peer in peers}
                rates = []
                for _ in range(self.rounds):
                    rates.append(self.gemm_rate(peers["ours"]))
                    for peer, worker in peers.items():
                        time.sleep(PAUSE)
                        samples[peer].append(worker.run(case)["seconds"])
                results.append(self.result(case, threads, samples, check=check, gemm_rates=rates))
        return results

    def gemm_rate(self, worker):
        time.sleep(PAUSE)
        return 2 * GEMM_SIZE**3 / worker.ask(command="gemm", size=GEMM_SIZE)["seconds"]

    def memory(self, case, threads):
        samples = {}
        for peer in case.peers:
            log(f"{case.name}, {threads} threads, {peer}")
            with self.start(peer, threads) as worker:
                worker.load(self.models[case.model], case.trains, case.sift)
                for _ in range(2):  # an optimiser has no state before its first step
                    worker.run(case)
                samples[peer] = [worker.peak_memory()]
        return self.result(case, threads, samples)

    def whole_process(self, case, threads):
        samples = {peer: [] for peer in case.peers}
        for number in range(self.rounds + 1):
            log(f"{case.name}, {threads} threads, round {number}")
            for peer in case.peers:
                time.sleep(PAUSE)
                start = time.perf_counter()
                with self.start(peer, threads) as worker:
                    worker.load(self.models[case.model], False)
                    worker.run(case)
                if number > 0:  # the first brings files into the cache
                    samples[peer].append(time.perf_counter() - start)
        return self.result(case, threads, samples)

    def result(self, case, threads, samples, **more):
        config = json.loads((self.models[case.model] / "config.json").read_text())
        known = {"case": case.name, "kind": case.kind, "threads": threads, "tokens": case.tokens}
        return {**known, "flops": flops(case, config), "samples": samples, **more}

    def states(self, peer):
        return self.scratch / f"{peer}.states"

    def compare_states(self, case, peers):
        """The largest differences from torch's last hidden states at real tokens."""
        shape = (len(case.lengths), max(case.lengths), -1)
        real = numpy.arange(max(case.lengths)) < numpy.array(case.lengths)[:, None]
        states = {peer: numpy.fromfile(self.states(peer), "<f4").reshape(shape)[real] for peer in peers}
        torch = states.pop("torch")
        found = {peer: float(numpy.abs(values - torch).max()) for peer, values in states.items()}
        return {"differences": found, "agree": all(value <= LARGEST_DIFFERENCE for value in found.values())}

    def losses(self, case, threads):
        """The losses of three steps without dropout."""
        found = {}
        for peer in case.peers:
            with self.start(peer, threads) as worker:
                worker.load(self.models[case.model + NO_DROPOUT], True, case.sift)
                found[peer] = [worker.run(case)["loss"] for _ in range(3)]
        return found


def compare_losses(losses):
    agree = numpy.allclose(losses["ours"], losses["torch"], rtol=LARGEST_LOSS_DIFFERENCE, atol=0.0)
    return {"losses": losses, "agree": bool(agree)}


def log(message):
    print(message, flush=True)
