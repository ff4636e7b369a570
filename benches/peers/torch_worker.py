"""PyTorch and transformers behind the protocol of ../README.md. Threads by OMP_NUM_THREADS."""

import sys
from pathlib import Path

import torch
from transformers import DebertaV2ForSequenceClassification, DebertaV2Model
from transformers.utils import logging

import protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "fixtures"))
from sift_statement import Sift, initial_noise  # noqa: E402

LEARNING_RATE = 1e-5
SIFT_LAMBDA = 5.0
MAX_GRADIENT_NORM = 1.0


def load(folder, train, sift):
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if not train:
        return DebertaV2Model.from_pretrained(folder, dtype=torch.float32).eval()
    model = DebertaV2ForSequenceClassification.from_pretrained(folder, dtype=torch.float32).train()
    free = [value for name, value in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [value for value in model.parameters() if all(value is not other for other in free)]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": free, "weight_decay": 0.0}]
    return model, torch.optim.AdamW(groups, lr=LEARNING_RATE), Sift(model, step_size=1e-4) if sift else None


def forward(model, ids, mask):
    with torch.inference_mode():
        output = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return output.last_hidden_state.numpy()


def train(trained, ids, mask, labels):
    model, optimizer, sift = trained
    ids, mask, labels = map(torch.from_numpy, (ids, mask, labels))
    inputs = {"input_ids": ids, "attention_mask": mask}
    output = model(**inputs, labels=labels)
    loss = total = output.loss
    if sift:
        noise = initial_noise((*ids.shape, model.config.hidden_size), 1e-2)
        total = loss + SIFT_LAMBDA * sift.adversarial_term(output, inputs, noise)[0]
    optimizer.zero_grad()
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    return loss.item()


protocol.serve(load, forward, train)
