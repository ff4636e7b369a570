#!/usr/bin/env python3
"""Times pipeline::Gliner beside the package gliner, on torch and on ONNX Runtime: random models of published shapes, the same
texts and labels, in turn.

    pip install -r ../../tests/fixtures/requirements-gliner.txt onnx==1.23.2 onnxruntime==1.32.0
    python entities.py [--shapes small medium large] [--threads 2] [--rounds 7]

8 texts of 64 words, 10 labels, one batch, from texts to entities, f32. All must find the same entities.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import environment
from measure import PAUSE, Worker

REPOSITORY = Path(__file__).resolve().parents[2]
#: The encoder of each shape; labels and words have 512 numbers in all of them.
SHAPES = {"small": "deberta-v3-small", "medium": "deberta-v3-base", "large": "deberta-v3-large"}
#: ln(0.9 / 0.1): with this threshold, 1,000 of the 61,440 spans and labels are probable enough.
THRESHOLD, THRESHOLD_LOGIT = 0.9, 2.1972
LABELS = [
    "person", "place", "date", "organisation", "country", "law", "treaty", "sum of money", "river", "title of a person"
]


def texts():
    """Sentences of 64 words out of the presidents' messages."""
    import gzip

    source = REPOSITORY / "examples" / "data" / "presidents" / "valid.txt.gz"
    words = gzip.open(source, "rt", encoding="utf-8").read().replace("-", " ").split()
    words = [word for word in words if word.isalnum()]
    start = random.Random(0).randrange(len(words) - 8 * 64)
    return [" ".join(words[start + 64 * text:start + 64 * (text + 1)]) for text in range(8)]


def make(shape, folder):
    """A random model with few probabilities above the threshold, none of them near 1."""
    import torch
    from gliner import GLiNER, GLiNERConfig
    from transformers import AutoTokenizer, DebertaV2Config

    torch.manual_seed(0)
    values = json.loads((REPOSITORY / "models" / SHAPES[shape] / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(REPOSITORY / "models" / "deberta-tiny")
    encoder = DebertaV2Config(**{**values, "vocab_size": len(tokenizer)})
    config = GLiNERConfig(model_name=SHAPES[shape], encoder_config=encoder.to_dict(), span_mode="markerV0")
    model = GLiNER._get_gliner_class(config)(config, tokenizer=tokenizer, backbone_from_pretrained=False)
    tokenizer.add_tokens(["[FLERT]", config.ent_token, config.sep_token], special_tokens=True)
    model.resize_embeddings()
    for name, parameter in model.model.named_parameters():
        if parameter.dim() == 2 and not name.startswith("token_rep_layer.bert_layer"):
            torch.nn.init.normal_(parameter, std=1.5 / parameter.shape[1] ** 0.5)
    model.eval()
    prepared = model.prepare_batch(texts(), LABELS)
    logits = model.run_batch(model.collate_batch(prepared["input_x"], prepared["entity_types"], None)).logits
    with torch.no_grad():
        for parameter in model.model.prompt_rep_layer[3].parameters():
            parameter.mul_(THRESHOLD_LOGIT / logits.flatten().topk(1000).values[-1])
    model.save_pretrained(folder)
    model.export_to_onnx(folder)


def torch_and_onnxruntime(folder, threads):
    """The package's two ways to compute a model: functions from texts to entities."""
    import onnxruntime
    import torch
    from gliner import GLiNER

    torch.set_num_threads(threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

    def opened(**more):
        model = GLiNER.from_pretrained(str(folder), local_files_only=True, load_tokenizer=True, **more)
        return lambda texts: model.inference(texts, LABELS, threshold=THRESHOLD, batch_size=len(texts))

    return {"torch": opened(), "ONNX Runtime": opened(runtime="onnxruntime", session_options=options)}


def samples(peers, rounds):
    """The seconds of each peer, in turn."""
    found = {name: [] for name in peers}
    for round_ in range(rounds + 1):
        spans = []
        for name, peer in peers.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            entities = peer(texts())
            seconds = time.perf_counter() - start
            spans.append([[(entity["start"], entity["end"]) for entity in text] for text in entities])
            if round_ > 0:  # the first round warms all up
                found[name].append(seconds)
        assert all(others == spans[0] for others in spans)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["small"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    scratch = Path(tempfile.gettempdir()) / "deberta-burn-peers"
    worker = environment.build(scratch, {"ours"})["ours"]
    print(f"{options.threads} threads\n\n| shape | of {options.rounds} runs | torch, s | ONNX Runtime, s | ours, s | torch / ours | "
          "ONNX Runtime / ours |\n|---|---|---:|---:|---:|---:|---:|")
    for shape in options.shapes:
        folder = scratch / "models" / f"gliner-{shape}"
        if not (folder / "model.onnx").exists():
            make(shape, folder)
        with Worker(worker, options.threads) as ours:
            ours.ask(command="gliner", model=str(folder))
            find = lambda texts: ours.ask(command="entities", texts=texts, labels=LABELS, threshold=THRESHOLD)["entities"]
            found = samples({**torch_and_onnxruntime(folder, options.threads), "ours": find}, options.rounds)
        for name, statistic in (("median", statistics.median), ("fastest", min)):
            torch, onnxruntime, ours = map(statistic, found.values())
            print(f"| {shape} | {name} | {torch:.3f} | {onnxruntime:.3f} | {ours:.3f} | {torch / ours:.2f} | "
                  f"{onnxruntime / ours:.2f} |", flush=True)


if __name__ == "__main__":
    main()
