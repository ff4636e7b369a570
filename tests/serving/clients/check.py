"""Asks deberta-serve through the libraries of its dialects, and compares what they understand with plain answers.

    pip install -r tests/serving/clients/requirements.txt
    python tests/serving/clients/check.py target/release/deberta-serve FOLDER

FOLDER has checkpoints by task: classify (with the labels entailment and contradiction), ner, answer, embed, fill-mask; without
it, only models/deberta-tiny is asked, for words and vectors. A line for each question; the exit code tells whether all were right.
"""

import json
import math
import pathlib
import re
import subprocess
import sys
import urllib.request

from huggingface_hub import InferenceClient
from openai import OpenAI

ROOT = pathlib.Path(__file__).parents[3]
# Vectors and scores are f32 and travel as decimal numbers.
TOLERANCE = 1e-5


class Server:
    """A server that ends with the block."""

    def __init__(self, program, model, task):
        command = [program, "--listen", "127.0.0.1:0", "--json-logs", "--model", str(model), "--task", task]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.url = "http://" + json.loads(self.process.stderr.readline())["fields"]["address"]
        while '"loaded"' not in (line := self.process.stderr.readline()):
            if not line:
                raise SystemExit(f"{task}: the server ended")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.communicate()

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


def close(left, right):
    return len(left) == len(right) and all(math.isclose(a, b, abs_tol=TOLERANCE) for a, b in zip(left, right))


failed = []


def check(name, right, shown):
    print(f"{'right' if right else 'WRONG'}  {name}: {str(shown)[:150]}", flush=True)
    failed.extend([] if right else [name])


def classify(server, client):
    plain = server.post("/predict", {"inputs": "war"})
    found = client.text_classification("war")
    check("text_classification", [one.label for one in found] == [one["label"] for one in plain]
          and close([one.score for one in found], [one["score"] for one in plain]), found)
    found = client.text_classification("war", top_k=1)
    check("text_classification, top_k", len(found) == 1, found)
    plain = server.post("/zero_shot", {"inputs": "war", "labels": ["law", "peace"]})["results"][0]
    found = client.zero_shot_classification("war", ["law", "peace"])
    check("zero_shot_classification", [one.label for one in found] == [one["label"] for one in plain]
          and close([one.score for one in found], [one["score"] for one in plain]), found)
    found = client.zero_shot_classification("war", ["law", "peace"], multi_label=True, hypothesis_template="It is {}.")
    check("zero_shot_classification, multi_label", len(found) == 2, found)


def ner(server, client):
    text = "« ça va » 🏔️ Ada Lovelace was born in London."
    plain = server.post("/ner", {"inputs": text})["results"][0]
    found = client.token_classification(text, aggregation_strategy="first")
    check("token_classification", len(found) > 0
          and all(one.entity_group == own["label"] and text[one.start:one.end] == one.word == own["text"]
                  for one, own in zip(found, plain, strict=True)), found)


def answer(server, client):
    question, context = "who", "« ça va » 🏔️ of the people"
    plain = server.post("/answer", {"inputs": {"question": question, "context": context}})["results"][0]["spans"][0]
    found = client.question_answering(question=question, context=context)
    check("question_answering", found.answer == plain["text"] == context[found.start:found.end], found)
    found = client.question_answering(question=question, context=context, top_k=2)
    check("question_answering, top_k", len(found) == 2, found)


def embed(server, client):
    plain = server.post("/embed", {"inputs": ["war", "peace"]})
    found = client.feature_extraction("war")
    check("feature_extraction", close(list(found[0]), plain[0]), found)
    found = client.sentence_similarity("war", other_sentences=["war", "peace"])
    check("sentence_similarity", math.isclose(found[0], 1, abs_tol=TOLERANCE), found)
    vectors = OpenAI(base_url=server.url + "/v1", api_key="none").embeddings.create(input=["war", "peace"], model="any")
    check("openai, embeddings", all(close(one.embedding, own) for one, own in zip(vectors.data, plain, strict=True)),
          vectors.usage)
    curl = ["curl", "--silent", server.url + "/embed", "-d", '{"inputs": "war"}']
    check("curl", close(json.loads(subprocess.check_output(curl))[0], plain[0]), "/embed")


def fill_mask(server, client):
    text = "The old [MASK] shook his head."
    found = client.fill_mask(text, top_k=3)
    plain = server.post("/fill_mask", {"inputs": text, "top_k": 3})["results"][0][0]["words"]
    check("fill_mask", [one.token_str for one in found] == [one["word"] for one in plain]
          and all(re.fullmatch(r"The old .* shook his head\.", one.sequence) for one in found), found)


def main():
    program, *folder = sys.argv[1:]
    tiny = ROOT / "models/deberta-tiny"
    models = {"fill-mask": tiny, "embed": tiny}
    if folder:
        models |= {path.name: path for path in pathlib.Path(folder[0]).iterdir()}
    asks = {"classify": classify, "ner": ner, "answer": answer, "embed": embed, "fill-mask": fill_mask}
    for task, model in models.items():
        with Server(program, model, task) as server:
            asks[task](server, InferenceClient(server.url))
    sys.exit(bool(failed))


main()
