"""OpenVINO behind the protocol of ../README.md. Threads by OMP_NUM_THREADS, as for the others in Python."""

import os
from pathlib import Path

import openvino

import protocol

#: Inputs of this many values share a scale in int8; OpenVINO's own default for weights that nncf compressed.
GROUP = 32


def load(command):
    core, precision = openvino.Core(), command["precision"]
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in capabilities:
        raise protocol.Unsupported("OpenVINO has no bf16 on this processor")
    options = {
        "INFERENCE_NUM_THREADS": int(os.environ["OMP_NUM_THREADS"]),
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if precision == "int8" else 0,
    }
    name = "int8.xml" if precision == "int8" else "exported.onnx"
    model = core.compile_model(Path(command["model"]) / name, "CPU", options)
    used = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return model, f"{core.get_property('CPU', 'FULL_DEVICE_NAME')}, {used} ({', '.join(capabilities)})"


def forward(model, ids, mask):
    return model({"input_ids": ids, "attention_mask": mask})[0]


protocol.serve(load, forward)
