"""Checkpoints of published shapes with random weights, for everyone to load."""

import json
import os
import shutil
from pathlib import Path

PRESETS = Path(__file__).resolve().parents[2] / "models"
NO_DROPOUT = "-no-dropout"


def models(scratch, layers):
    """Makes what isn't there yet; the folder of each model. A `-no-dropout` twin has the same weights: for losses."""
    folders = {}
    for shape in ("v3-base", "v3-xsmall"):
        name = shape if layers is None else f"{shape}-{layers}-layers"
        folder, twin = scratch / "models" / name, scratch / "models" / f"{name}{NO_DROPOUT}"
        if not twin.exists():
            shutil.rmtree(folder, ignore_errors=True)
            checkpoint(shape, layers, folder)
            if shape == "v3-base":
                export(folder, head=False)
                lower_precisions(folder)
            without_dropout(folder, twin)
        folders |= {shape: folder, f"{shape}{NO_DROPOUT}": twin}
    return folders


def checkpoint(shape, layers, folder):
    """A text classifier as transformers initialises it."""
    import torch
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    values = json.loads((PRESETS / f"deberta-{shape}" / "config.json").read_text())
    del values["model_type"]
    config = DebertaV2Config(**values, num_labels=2)
    config.num_hidden_layers = layers or config.num_hidden_layers
    torch.manual_seed(0)
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)


def export(folder, head):
    """`exported.onnx`, any batch and length, of the backbone or with its head, and `f32.onnx`, the same after all of ONNX
    Runtime's optimisations: it folds what depends on weights alone, the projected position table among it. The other weights
    stay in the export's file, which it maps."""
    import torch
    import torch_models

    class Values(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = torch_models.load(folder, head)

        def forward(self, input_ids, attention_mask):
            return torch_models.values(self.model(input_ids=input_ids, attention_mask=attention_mask))

    # Two tensors: the exporter would merge inputs that are the same one.
    ids, mask = (torch.ones((2, 40), dtype=torch.int64) for _ in range(2))
    any_size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    names = {"input_names": ["input_ids", "attention_mask"], "output_names": ["values"]}
    with torch.no_grad():
        shapes = {"dynamo": True, "dynamic_shapes": (any_size, any_size)}
        torch.onnx.export(Values().eval(), (ids, mask), folder / "exported.onnx", verbose=False, **shapes, **names)
    optimize(folder / "exported.onnx", folder / "f32.onnx", "ORT_ENABLE_ALL")


def optimize(source, target, level):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that the result is for this machine, which is what we want
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def lower_precisions(folder):
    """ONNX Runtime's dynamic quantisation with its defaults, once with a scale a tensor and once with one a channel of weights,
    and OpenVINO's model with weights compressed by nncf to symmetric int8, which it multiplies with inputs quantised as they come."""
    import nncf
    import openvino
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folded = folder / "folded.onnx"
    optimize(folder / "exported.onnx", folded, "ORT_ENABLE_BASIC")
    for name, per_channel in (("int8-per-tensor", False), ("int8-per-channel", True)):
        quantized = folder / "quantized.onnx"
        quantize_dynamic(folded, quantized, per_channel=per_channel, weight_type=QuantType.QInt8)
        optimize(quantized, folder / f"{name}.onnx", "ORT_ENABLE_ALL")
        quantized.unlink()
    model = openvino.Core().read_model(folder / "exported.onnx")
    openvino.save_model(nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM), folder / "int8.xml", False)


def without_dropout(folder, twin):
    twin.mkdir(parents=True, exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    off = {key: 0.0 for key in config if "dropout" in key and config[key]}
    os.link(folder / "model.safetensors", twin / "model.safetensors")
    (twin / "config.json").write_text(json.dumps(config | off, indent=2))
