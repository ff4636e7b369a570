"""PyTorch and transformers behind the protocol of ../README.md. Threads by OMP_NUM_THREADS."""

import sys
from pathlib import Path

import torch

import protocol
import torch_models

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "fixtures"))
from sift_statement import Sift, initial_noise  # noqa: E402

LEARNING_RATE = 1e-5
SIFT_LAMBDA = 5.0
MAX_GRADIENT_NORM = 1.0


def load(command):
    kernels = f"{torch.backends.cpu.get_cpu_capability()}, oneDNN {torch.backends.mkldnn.is_available()}"
    train, precision = command["train"], command["precision"]
    # In training, weights are in f32 in either precision.
    model = torch_models.load(command["model"], train or command["head"], "f32" if train else precision)
    return (trained(model.train(), command["sift"], precision == "bf16") if train else model.eval()), kernels


def trained(model, sift, mixed):
    free = [value for name, value in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [value for value in model.parameters() if all(value is not other for other in free)]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": free, "weight_decay": 0.0}]
    return model, torch.optim.AdamW(groups, lr=LEARNING_RATE), Sift(model, step_size=1e-4) if sift else None, mixed


def forward(model, ids, mask):
    with torch.inference_mode():
        output = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return torch_models.values(output).float().numpy()


def train(training, ids, mask, labels):
    model, optimizer, sift, mixed = training
    ids, mask, labels = map(torch.from_numpy, (ids, mask, labels))
    inputs = {"input_ids": ids, "attention_mask": mask}
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
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
