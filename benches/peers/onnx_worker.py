"""ONNX Runtime behind the protocol of ../README.md. Threads by OMP_NUM_THREADS, as for the others in Python."""

import os
from pathlib import Path

import onnxruntime

import protocol


def load(command):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    # prepare.py has let it optimise the model once and for all.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    file = Path(command["model"]) / f"{command['precision']}.onnx"
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return session, f"{', '.join(session.get_providers())} (MLAS chooses by processor and doesn't say)"


def forward(session, ids, mask):
    return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


protocol.serve(load, forward)
