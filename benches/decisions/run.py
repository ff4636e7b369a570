#!/usr/bin/env python3
"""What lower precisions change of a model's decisions, ours beside ONNX Runtime's int8. See ../README.md.

    python3 run.py NLI_MODEL_DIR MODELS_DIR [--variants 'ours:*'] [--output decisions.md]

NLI_MODEL_DIR is a classifier of pairs, MODELS_DIR what prepare.py made. Everyone gets the same token ids, one text at a time,
which suits ONNX Runtime best: it takes one scale for a whole batch.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))
import environment  # noqa: E402

LONGEST_ANSWER = 30
#: ours:f32 is what the others are compared with; onnxruntime:f32 shows what rounding alone does.
DEFAULT = ["ours:*", "onnxruntime:*"]


@dataclass
class Item:
    """A text as ids, and the rows of its logits that decide something: a text's only one, or those of some tokens."""

    ids: list
    rows: list


@dataclass
class Set:
    """Items for one model. `scores` makes a row of scores for each decision from the logits that decide."""

    name: str
    model: Path
    items: list
    scores: object


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("nli", type=Path, help="checkpoint folder of a classifier of pairs")
    add("models", type=Path, help="folder of the fine-tuned models")
    add("--variants", nargs="+", default=DEFAULT, metavar="PATTERN", help=f"peers and precisions (default: {' '.join(DEFAULT)})")
    add("--threads", type=int, default=2)
    add("--limit", type=int, help="so many items of each set, to try the command itself")
    add("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "deberta-burn-peers", help="as of ../peers/run.py")
    add("--output", type=Path, help="Markdown file to write the table to; the numbers go to a .json beside it")
    return parser.parse_args()


# --- what is decided ---------------------------------------------------------------------------------------------


def classes(logits):
    return logits


def spans(logits):
    """One decision: the sum of start and end of every span of up to LONGEST_ANSWER tokens."""
    import numpy

    scores = logits[:, 0][:, None] + logits[:, 1][None, :]
    places = numpy.arange(len(logits))
    allowed = (places[None, :] >= places[:, None]) & (places[None, :] < places[:, None] + LONGEST_ANSWER)
    return numpy.where(allowed, scores, -numpy.inf).reshape(1, -1)


def sets(nli, models):
    """Sentences, pairs, long texts, tokens, spans."""
    import data
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(nli)

    def texts(rows, **more):
        return [Item(ids, [0]) for ids in tokenizer(rows, truncation=True, max_length=512, **more)["input_ids"]]

    def words(sentence):
        encoding = tokenizer([word for word, _ in sentence], is_split_into_words=True)
        of = encoding.word_ids()
        firsts = [place for place, word in enumerate(of) if word is not None and word != of[place - 1]]
        return Item(encoding["input_ids"], firsts)

    def passage(question, text):
        encoding = tokenizer(question, text)
        inside = [place for place, part in enumerate(encoding.sequence_ids()) if part == 1]
        return Item(encoding["input_ids"], inside)

    reviews = models / "reviews"
    premises, hypotheses = zip(*data.pairs())
    sentences = data.conll("test", 400, models)
    questions = data.questions(400, seed=1)
    return [
        Set("sentences: sentiment", reviews, texts([text for text, _ in data.reviews("test")]), classes),
        Set("pairs: NLI", nli, texts(list(premises), text_pair=list(hypotheses)), classes),
        Set("texts of 512 tokens: sentiment", reviews, texts(data.long_texts()), classes),
        Set("tokens: named entities", models / "entities", [words(sentence) for sentence in sentences], classes),
        Set("spans: answers", models / "answers", [passage(question, text) for text, question, *_ in questions], spans),
    ]


# --- what the models say -----------------------------------------------------------------------------------------


def export(folder, scratch, variants):
    """A twin of the folder with the files of ONNX Runtime and OpenVINO, made if it isn't there; the folder itself if nobody
    reads these."""
    if not any(variant.peer in ("onnxruntime", "openvino") for variant in variants):
        return folder
    import prepare

    twin = scratch / "decisions" / folder.resolve().name
    if not (twin / "int8.xml").exists():
        twin.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            (twin / name).unlink(missing_ok=True)
            (twin / name).symlink_to(folder.resolve() / name)
        prepare.export(twin, head=True)
        prepare.lower_precisions(twin)
    return twin


def logits(command, threads, folder, variant, items, scratch):
    """The deciding rows of each item's logits, or None and why not."""
    import numpy
    from measure import Worker

    file = scratch / "logits"
    with Worker(command, threads) as worker:
        said = worker.load(folder, variant.precision, head=True)
        if "unsupported" in said:
            return None, said["unsupported"]
        found = []
        for item in items:
            worker.ask(command="forward", texts=[item.ids], save=str(file))
            values = numpy.fromfile(file, "<f4")
            rows = 1 if item.rows == [0] else len(item.ids)
            found.append(values.reshape(rows, -1)[item.rows])
    return found, said["kernels"]


def compare(exact, other, scores):
    """How far apart, how many decisions differ, and the largest margin among these: by how much f32 prefers its own decision."""
    largest, decisions, changed, margin = 0.0, 0, 0, 0.0
    for ours, theirs in zip(exact, other, strict=True):
        largest = max(largest, float(abs(ours - theirs).max()))
        ours, theirs = scores(ours), scores(theirs)
        lost = ours.max(-1) - ours[range(len(ours)), theirs.argmax(-1)]
        decisions += len(ours)
        changed += int((ours.argmax(-1) != theirs.argmax(-1)).sum())
        margin = max(margin, float(lost.max()))
    return {"largest_difference": largest, "decisions": decisions, "changed": changed, "largest_margin": margin}


def main():
    options = arguments()
    environment.enter(options.scratch)
    from cases import VARIANTS, Variant, selected
    from report import head, row

    reference = Variant("ours", "f32")
    variants = [variant for variant in selected(VARIANTS, options.variants) if variant != reference]
    options.scratch.mkdir(parents=True, exist_ok=True)
    workers = environment.build(options.scratch, {variant.peer for variant in variants})
    results, missing = [], {}
    for one in sets(options.nli, options.models):
        items = one.items[: options.limit]
        folder = export(one.model, options.scratch, variants)

        def said(variant):
            return logits(workers[variant.peer], options.threads, folder, variant, items, options.scratch)

        exact, _ = said(reference)
        for variant in variants:
            found, about = said(variant)
            if found is None:
                missing[str(variant)] = about
                continue
            results.append({"set": one.name, "variant": str(variant), **compare(exact, found, one.scores)})
            print(json.dumps(results[-1]), flush=True)

    lines = head(["set", "decisions", "precision", "largest logit difference", "changed", "largest f32 margin among these"])
    for result in results:
        margin = f"{result['largest_margin']:.3f}" if result["changed"] else ""
        cells = [result["set"], str(result["decisions"]), result["variant"], f"{result['largest_difference']:.2g}"]
        lines.append(row([*cells, str(result["changed"]), margin]))
    text = "\n".join([*lines, "", *(f"- {variant}: missing, {why}" for variant, why in missing.items())])
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
        options.output.with_suffix(".json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
