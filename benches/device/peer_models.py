"""DeBERTa-v3 by transformers on a GPU, beside `main.rs model`: inference and a training step, eager and compiled.

    python3 peer_models.py [--preset base] [--batch 32] [--length 512] [--only eager,compiled] [--dtypes float32,bfloat16,autocast]

Prints one JSON line a case: milliseconds (median of the timed runs) and bytes at the peak and
at rest, of which the weights and moments of all cases are part. `autocast` keeps parameters in f32 and
computes in bf16. Weights are fresh; dropout is that of the published models. Needs torch and transformers.
"""

import argparse
import json
import os
import statistics
import time

import torch
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

SHAPES = {
    "xsmall": dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536),
    "small": dict(hidden_size=768, num_hidden_layers=6, num_attention_heads=12, intermediate_size=3072),
    "base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
    "large": dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
}


def model_of(preset):
    config = DebertaV2Config(
        vocab_size=128100, type_vocab_size=0, relative_attention=True, max_relative_positions=-1, position_buckets=256,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False,
        layer_norm_eps=1e-7, max_position_embeddings=512, **SHAPES[preset],
    )
    return DebertaV2ForSequenceClassification(config)


def measure(run, times):
    torch.cuda.synchronize()
    rest = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken), torch.cuda.max_memory_allocated(), rest


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--preset", default="base", choices=SHAPES)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--length", type=int, default=512)
    arguments.add_argument("--times", type=int, default=10)
    arguments.add_argument("--only", default="eager,compiled")
    arguments.add_argument("--after", help="times start when this file is there")
    arguments.add_argument("--dtypes", default="bfloat16,autocast")
    arguments = arguments.parse_args()
    print(json.dumps({"card": torch.cuda.get_device_name(), "torch": torch.__version__}), flush=True)
    shape = (arguments.batch, arguments.length)
    ids = (torch.arange(shape[0] * shape[1], device="cuda") * 7919 % 100_000 + 1000).view(shape)
    mask = torch.ones_like(ids)
    labels = torch.arange(shape[0], device="cuda") % 2
    cases = []
    for dtype in arguments.dtypes.split(","):
        for implementation in arguments.only.split(","):
            torch.manual_seed(0)
            mixed = dtype == "autocast"
            model = model_of(arguments.preset).to("cuda", torch.float32 if mixed else getattr(torch, dtype))
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
            call = torch.compile(model, dynamic=False) if implementation == "compiled" else model

            def run(model=model, optimizer=optimizer, call=call, mixed=mixed):
                """Functions that infer and that train, as closures of their own."""

                def inference():
                    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=mixed):
                        call(input_ids=ids, attention_mask=mask)

                def step():
                    optimizer.zero_grad()
                    with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
                        loss = call(input_ids=ids, attention_mask=mask, labels=labels).loss
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()

                return [("inference", inference), ("training step", step)]

            for what, work in run():
                found = dict(model=arguments.preset, implementation=implementation, dtype=dtype)
                found.update(batch=shape[0], length=shape[1], what=what)
                model.train(what != "inference")
                try:
                    for _ in range(3):
                        work()
                    cases.append((found, model, work))
                except Exception as error:  # one that does not run must not end the others
                    print(json.dumps({**found, "error": f"{type(error).__name__}: {error}"[:300]}), flush=True)
    torch.cuda.empty_cache()
    while arguments.after and not os.path.exists(arguments.after):
        time.sleep(0.02)
    for found, model, work in cases:
        model.train(found["what"] != "inference")
        found["ms"], found["peak bytes"], found["bytes at rest"] = measure(work, arguments.times)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
