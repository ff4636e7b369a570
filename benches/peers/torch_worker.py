"""PyTorch and transformers behind the protocol of ../README.md. Threads by OMP_NUM_THREADS."""

import torch
from transformers import DebertaV2ForSequenceClassification, DebertaV2Model
from transformers.utils import logging

import protocol

LEARNING_RATE = 1e-5
MAX_GRADIENT_NORM = 1.0


def load(folder, train):
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if not train:
        return DebertaV2Model.from_pretrained(folder, dtype=torch.float32).eval()
    model = DebertaV2ForSequenceClassification.from_pretrained(folder, dtype=torch.float32).train()
    free = [value for name, value in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [value for value in model.parameters() if all(value is not other for other in free)]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": free, "weight_decay": 0.0}]
    return model, torch.optim.AdamW(groups, lr=LEARNING_RATE)


def forward(model, ids, mask):
    with torch.inference_mode():
        output = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return output.last_hidden_state.numpy()


def train(trained, ids, mask, labels):
    model, optimizer = trained
    tensors = map(torch.from_numpy, (ids, mask, labels))
    ids, mask, labels = tensors
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    return loss.item()


protocol.serve(load, forward, train)
