"""A training step of LoRA with PEFT on PyTorch: seconds of each step, and the peak of the process's memory.

    pip install -r tests/fixtures/requirements.txt
    python benches/peers/lora.py path/to/checkpoint [--full] [--targets query_proj,value_proj]

Batches of 2 x 512 tokens, AdamW, dropout on: what `finetune_classification --lora 8 --batch-size 2 --max-length 512` does.
"""

import argparse
import resource
import time

import torch
import transformers
from peft import LoraConfig, TaskType, get_peft_model

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--full", action="store_true", help="train all weights instead")
parser.add_argument("--targets", default="query_proj,value_proj")
parser.add_argument("--steps", type=int, default=5)
args = parser.parse_args()

model = transformers.AutoModelForSequenceClassification.from_pretrained(args.model, dtype=torch.float32)
if not args.full:
    targets = args.targets.split(",")
    lora = LoraConfig(task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16, target_modules=targets, modules_to_save=["pooler"])
    model = get_peft_model(model, lora)
model.train()
optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=2e-4)
ids, labels = torch.randint(5, 1000, (2, 512)), torch.tensor([0, 1])
for _ in range(args.steps):
    start = time.perf_counter()
    optimizer.zero_grad()
    model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    print(f"{time.perf_counter() - start:.2f} s")
print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB, {torch.get_num_threads()} threads")
