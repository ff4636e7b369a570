"""Attention of one DeBERTa layer on a GPU by others: torch (eager, compiled) and disentangled-flash, beside `main.rs attention`.

    python3 peers.py [--lengths 512,2048,8192] [--tokens 16384] [--output FILE.jsonl]

Prints one JSON line a case: implementation, length, pass, milliseconds (median of the timed runs), bytes at the peak beyond the
inputs. Needs torch, triton, and the wheel disentangled-flash==1.1.1 (rows without it say so).
"""

import argparse
import json
import math
import statistics

import torch

HEADS, SIZE, BUCKETS, SPAN = 12, 64, 256, 256


def table_rows(length, device):
    """The row of each distance 1 - length .. length - 1, after v3's rule."""
    distance = torch.arange(1 - length, length, device=device)
    middle = BUCKETS // 2
    magnitude = distance.abs().clamp(min=middle).double()
    far = (torch.log(magnitude / middle) / math.log(511 / middle) * (middle - 1)).ceil() + middle
    bucket = torch.where(distance.abs() <= middle, distance, (far * distance.sign()).long())
    return (bucket + SPAN).clamp(0, 2 * SPAN - 1)


def composed(query, key, value, position_key, position_query, rows, scale):
    """The reference's operations: scores, two gathers, softmax, context."""
    length = query.shape[2]
    place = torch.arange(length, device=query.device)
    index = rows[place[:, None] - place[None, :] + length - 1]
    index = index.expand(query.shape[0], query.shape[1], -1, -1)
    scores = query @ key.transpose(2, 3)
    scores = scores + (query @ position_key.transpose(1, 2)).gather(3, index)
    scores = scores + (key @ position_query.transpose(1, 2)).transpose(2, 3).gather(2, index)
    return torch.softmax(scores * scale, -1) @ value


def flash(length, device):
    """disentangled-flash between the projections, with the launches that it chooses itself."""
    from disentangled_flash._reference import DebertaAttentionConfig
    from disentangled_flash.training.attention import TritonTrainingDisentangledSelfAttention

    class Core(TritonTrainingDisentangledSelfAttention):
        def _project_qkv(self, states):
            return states

        def _reshape_heads(self, states, *_):
            return states

        def _project_active_positions(self, tables, slots):
            return [table.index_select(1, slots) for table in tables]

    config = DebertaAttentionConfig(max_relative_positions=512, attention_probs_dropout_prob=0.0)
    core = Core(config, assume_unpadded=True).to(device)

    class States(tuple):
        """Query, key and value where a tensor of states is expected; shape, device and type are set below."""

    def attend(query, key, value, position_key, position_query, rows, scale):
        states = States((query, key, value))
        States.shape, States.device, States.dtype = (query.shape[0], length), query.device, query.dtype
        mask = torch.ones(query.shape[0], length, dtype=torch.bool, device=query.device)
        context = core(states, mask, rel_embeddings=(position_key, position_query))[0]
        return context.view(query.shape[0], length, HEADS, SIZE).transpose(1, 2)

    return attend


def measure(run, times):
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    taken = []
    for _ in range(times):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        taken.append(start.elapsed_time(end))
    return statistics.median(taken), torch.cuda.max_memory_allocated() - before


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--lengths", default="512,1024,2048,4096,8192")
    arguments.add_argument("--tokens", type=int, default=16384)
    arguments.add_argument("--times", type=int, default=10)
    arguments.add_argument("--only", default="eager,compiled,flash")
    arguments.add_argument("--output")
    arguments = arguments.parse_args()
    output = open(arguments.output, "a") if arguments.output else None
    device = "cuda"
    scale = 1 / math.sqrt(3 * SIZE)
    print(json.dumps({"card": torch.cuda.get_device_name(), "torch": torch.__version__}), flush=True)
    makers = {
        "eager": lambda length: composed,
        "compiled": lambda length: torch.compile(composed, dynamic=False),
        "flash": lambda length: flash(length, device),
    }
    for length in map(int, arguments.lengths.split(",")):
        torch.manual_seed(length)
        batch = arguments.tokens // length
        rows = table_rows(length, device)
        normal = lambda *shape: torch.randn(*shape, device=device, dtype=torch.bfloat16).requires_grad_()
        states = [normal(batch, HEADS, length, SIZE) for _ in range(3)]
        tables = [normal(HEADS, 2 * SPAN, SIZE) for _ in range(2)]
        gradient = torch.randn_like(states[0])
        exact = None
        for name in arguments.only.split(","):
            for which in ["forward", "forward and backward"]:
                found = {"implementation": name, "length": length, "pass": which}
                try:
                    attend = makers[name](length)

                    def forward():
                        with torch.no_grad():
                            return attend(*states, *tables, rows, scale)

                    def both():
                        for tensor in states + tables:
                            tensor.grad = None
                        attend(*states, *tables, rows, scale).backward(gradient)

                    if which == "forward":
                        context = forward().float()
                        exact = context if exact is None else exact
                        found["difference"] = ((context - exact).norm() / exact.norm()).item()
                        del context
                    times = arguments.times
                    found["ms"], found["bytes"] = measure(forward if which == "forward" else both, times)
                except Exception as error:  # one that does not run must not end the others
                    found["error"] = f"{type(error).__name__}: {error}"[:300]
                    torch.cuda.empty_cache()
                print(json.dumps(found), flush=True)
                if output:
                    print(json.dumps(found), file=output, flush=True)


if __name__ == "__main__":
    main()
