"""A classifier served as its users do it in Python: FastAPI, and texts that arrive within some milliseconds share a padded batch.

    python benches/serving/peer.py --engine torch --model FOLDER --port 3001
    python benches/serving/peer.py --engine onnxruntime --model FOLDER --onnx FILE --port 3002

FILE is what benches/peers/prepare.py exports, `export(FOLDER, head=True)`. The packages: requirements.txt.
"""

import argparse
import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoConfig, AutoTokenizer

MAX_BATCH = 32
MAX_WAIT = 0.005  # seconds
MAX_LENGTH = 512


def torch_engine(args):
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(args.model, dtype=torch.float32).eval()

    @torch.inference_mode()
    def forward(ids, mask):
        return model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()

    return forward


def onnxruntime_engine(args):
    import onnxruntime

    session = onnxruntime.InferenceSession(args.onnx, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


class Batches:
    """One queue, first come, first served."""

    def __init__(self, forward, tokenizer, labels):
        self.forward, self.tokenizer, self.labels = forward, tokenizer, labels
        self.queue = asyncio.Queue()
        self.model_thread = ThreadPoolExecutor(1)

    async def run(self):
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self.queue.get()]
            until = loop.time() + MAX_WAIT
            while len(batch) < MAX_BATCH and (rest := until - loop.time()) > 0:
                try:
                    batch.append(await asyncio.wait_for(self.queue.get(), rest))
                except TimeoutError:
                    break
            answers = await loop.run_in_executor(self.model_thread, self.compute, [text for text, _ in batch])
            for (_, future), answer in zip(batch, answers):
                if not future.cancelled():
                    future.set_result(answer)

    def compute(self, texts):
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="np")
        logits = self.forward(encoded["input_ids"].astype(numpy.int64), encoded["attention_mask"].astype(numpy.int64))
        exponents = numpy.exp(logits - logits.max(-1, keepdims=True))
        scores = exponents / exponents.sum(-1, keepdims=True)
        return [[{"score": float(row[at]), "label": self.labels[at]} for at in numpy.argsort(-row)] for row in scores]

    async def answer(self, texts):
        futures = [asyncio.get_running_loop().create_future() for _ in texts]
        for text, future in zip(texts, futures):
            self.queue.put_nowait((text, future))
        return await asyncio.gather(*futures)


class Body(BaseModel):
    inputs: str | list[list[str]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["torch", "onnxruntime"], required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--onnx")
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    forward = {"torch": torch_engine, "onnxruntime": onnxruntime_engine}[args.engine](args)
    batches = Batches(forward, AutoTokenizer.from_pretrained(args.model), AutoConfig.from_pretrained(args.model).id2label)

    @asynccontextmanager
    async def lifespan(_):
        task = asyncio.create_task(batches.run())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/predict")
    async def predict(body: Body):
        texts = [body.inputs] if isinstance(body.inputs, str) else [text for (text,) in body.inputs]
        answers = await batches.answer(texts)
        return answers[0] if isinstance(body.inputs, str) else answers

    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="warning")


main()
