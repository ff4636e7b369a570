#!/usr/bin/env python3
"""Fine-tunes a DeBERTa checkpoint on the sentiment of movie-review sentences with torch and transformers: a baseline.

    pip install -r ../../tests/fixtures/requirements.txt
    python movie_reviews.py MODEL_DIR REVIEWS.txt --epochs 2 --seed 1 [--sift] [--train-size 500]

REVIEWS.txt has a header and the columns id, sentiment and text between tabs. The last line printed is a JSON object
with the accuracy on the test texts and the settings; progress goes to standard error.

- Labels: 1 for a sentiment of at least 0.5, 0 for one of at most -0.5; what lies between is left out.
- Split: SHA-256 of the text's UTF-8 bytes (without the line's end), its first 8 bytes as a big-endian number over 2^64:
  below 0.8 train, below 0.9 valid, else test. `--train-size N` keeps the N training texts whose SHA-256 of "subset"
  followed by the text is smallest, so smaller subsets lie in larger ones and no seed changes them.
- Recipe: AdamW (0.9, 0.999, 1e-6) with weight decay 0.01 except on biases and LayerNorm weights; linear warm-up over
  the first tenth of the steps, rounded up, and linear decay to 0; gradients clipped to a norm of 1; dropout as
  configured; a new order of the texts in every epoch, whose last batch may be smaller. The seed decides the head's
  weights, the order, dropout and noise.
- The head is a new one: the model is made from the configuration with two labels, then the backbone's weights are
  loaded. A head in the checkpoint, such as one for inference between sentences, is not used.
- With `--sift`, the adversarial step of `tests/fixtures/sift_statement.py`; the defaults are the recipe of v3-xsmall.
"""

import argparse
import hashlib
import json
import math
import sys
import time
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "fixtures"))
from sift_statement import INNER_OBJECTIVES, Sift, initial_noise  # noqa: E402

EVALUATION_BATCH = 32


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="checkpoint folder")
    parser.add_argument("reviews", type=Path, help="the text file")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=4.5e-5, help="after warm-up")
    parser.add_argument("--max-length", type=int, default=64, help="tokens, [CLS] and [SEP] included")
    parser.add_argument("--train-size", type=int, help="size of the training subset; default: all")
    parser.add_argument("--max-steps", type=int, help="a shorter run, its schedule included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sift", action="store_true")
    parser.add_argument("--sift-lambda", type=float, default=3.0, help="weight of the adversarial term")
    parser.add_argument("--sift-step-size", type=float, default=1e-4)
    parser.add_argument("--sift-noise", type=float, default=1e-2, help="standard deviation of the noise")
    parser.add_argument("--sift-loss", choices=INNER_OBJECTIVES, default="symmetric-kl")
    return parser.parse_args()


# --- data --------------------------------------------------------------------------------------------------------


def digest(text, prefix=""):
    return hashlib.sha256((prefix + text).encode()).digest()


def part(text):
    position = int.from_bytes(digest(text)[:8], "big") / 2**64
    return "train" if position < 0.8 else "valid" if position < 0.9 else "test"


def read_reviews(path, train_size):
    """(text, label) pairs of each part."""
    parts = dict(train=[], valid=[], test=[])
    lines = path.read_text(encoding="utf-8").split("\n")
    for line in lines[1:]:
        if not line:
            continue
        _, sentiment, text = line.rstrip("\r").split("\t")
        if abs(float(sentiment)) >= 0.5:
            parts[part(text)].append((text, int(float(sentiment) > 0)))
    if train_size is not None:
        by_digest = sorted(parts["train"], key=lambda example: digest(example[0], "subset"))
        parts["train"] = by_digest[:train_size]
    return parts


def load_tokenizer(folder):
    # AutoTokenizer makes DeBERTa's normaliser anew and loses SentencePiece's character map; the file has it.
    fast = (folder / "tokenizer.json").exists()
    return (transformers.PreTrainedTokenizerFast if fast else transformers.AutoTokenizer).from_pretrained(folder)


def encode(tokenizer, examples, max_length):
    """(token ids, label) pairs."""
    texts = [text for text, _ in examples]
    ids = tokenizer(texts, truncation=True, max_length=max_length, padding=False)["input_ids"]
    return [(row, label) for row, (_, label) in zip(ids, examples, strict=True)]


def batch_of(examples, pad):
    """Inputs padded to the longest text, and labels."""
    longest = max(len(ids) for ids, _ in examples)
    rows = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in examples])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in examples])
    return dict(input_ids=rows, attention_mask=mask), torch.tensor([label for _, label in examples])


# --- training ----------------------------------------------------------------------------------------------------


def new_classifier(folder):
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=2)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    backbone = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    model.base_model.load_state_dict(backbone.state_dict())
    return model.float()


def new_optimizer(model, learning_rate):
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        (others if name.endswith(("bias", "LayerNorm.weight")) else decayed).append(parameter)
    groups = [dict(params=decayed, weight_decay=0.01), dict(params=others, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-6)


def shuffled_batches(examples, batch_size, epochs, seed):
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        shuffled = [examples[index] for index in torch.randperm(len(examples), generator=order)]
        for start in range(0, len(shuffled), batch_size):
            yield shuffled[start : start + batch_size]


def train(model, examples, args):
    """Trains in place and returns the number of steps."""
    steps = args.epochs * math.ceil(len(examples) / args.batch_size)
    steps = steps if args.max_steps is None else min(steps, args.max_steps)
    optimizer = new_optimizer(model, args.learning_rate)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, math.ceil(0.1 * steps), steps)
    sift = Sift(model, args.sift_step_size, args.sift_loss) if args.sift else None
    batches = shuffled_batches(examples, args.batch_size, args.epochs, args.seed)
    model.train()
    for step, batch in zip(range(1, steps + 1), batches):
        inputs, labels = batch_of(batch, model.config.pad_token_id)
        output = model(**inputs, labels=labels)
        loss = output.loss
        if sift:
            noise = initial_noise((*inputs["input_ids"].shape, model.config.hidden_size), args.sift_noise)
            loss = loss + args.sift_lambda * sift.adversarial_term(output, inputs, noise)[0]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {output.loss.item():.4f}", file=sys.stderr, flush=True)
    return steps


@torch.inference_mode()
def accuracy(model, examples):
    model.eval()
    examples = sorted(examples, key=lambda example: len(example[0]))
    right = 0
    for start in range(0, len(examples), EVALUATION_BATCH):
        inputs, labels = batch_of(examples[start : start + EVALUATION_BATCH], model.config.pad_token_id)
        right += (model(**inputs).logits.argmax(-1) == labels).sum().item()
    return right / len(examples)


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = load_tokenizer(args.model)
    parts = read_reviews(args.reviews, args.train_size)
    parts = {name: encode(tokenizer, examples, args.max_length) for name, examples in parts.items()}

    torch.manual_seed(args.seed)
    model = new_classifier(args.model)
    start = time.perf_counter()
    steps = train(model, parts["train"], args)
    seconds = time.perf_counter() - start
    labels = [label for _, label in parts["test"]]
    results = dict(
        test_accuracy=accuracy(model, parts["test"]),
        valid_accuracy=accuracy(model, parts["valid"]),
        majority_class=max(labels.count(0), labels.count(1)) / len(labels),
        training_seconds=round(seconds, 1),
        steps=steps,
        **{f"{name}_texts": len(examples) for name, examples in parts.items()},
    )
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    print(json.dumps(results | dict(settings=settings)))


if __name__ == "__main__":
    main()
