"""transformers' models, as a backbone or with the head that their configuration names."""

import json
from pathlib import Path

import torch
import transformers
from transformers.utils import logging

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def load(folder, head, precision="f32"):
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = json.loads((Path(folder) / "config.json").read_text())
    name = config["architectures"][0] if head else "DebertaV2Model"
    return getattr(transformers, name).from_pretrained(folder, dtype=DTYPES[precision])


def values(output):
    """The last hidden states, the logits, or the logits of spans, [.., 2]."""
    if "start_logits" in output:
        return torch.stack((output.start_logits, output.end_logits), -1)
    return output.logits if "logits" in output else output.last_hidden_state
