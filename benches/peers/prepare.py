"""Checkpoints of published shapes with random weights, for everyone to load."""

import json
import os
import shutil
from pathlib import Path

PRESETS = Path(__file__).resolve().parents[2] / "models"
NO_DROPOUT = "-no-dropout"


def models(scratch, layers):
    """Makes what isn't there yet; the folder of each model. A `-no-dropout` twin has the same weights: it compares losses."""
    folders = {}
    for shape in ("v3-base", "v3-xsmall"):
        name = shape if layers is None else f"{shape}-{layers}-layers"
        folder, twin = scratch / "models" / name, scratch / "models" / f"{name}{NO_DROPOUT}"
        if not twin.exists():
            shutil.rmtree(folder, ignore_errors=True)
            checkpoint(shape, layers, folder)
            if shape == "v3-base":
                export(folder)
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


def export(folder):
    """The backbone for ONNX Runtime, any batch and length, after all of its optimisations: it folds what depends on
    weights alone, the projected position table among it. The other weights stay in the export's file, which it maps."""
    import onnxruntime
    import torch
    from transformers import DebertaV2Model

    class LastHiddenState(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = DebertaV2Model.from_pretrained(folder)

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    exported, optimized = folder / "exported.onnx", folder / "model.onnx"
    backbone = LastHiddenState().eval()
    # Two tensors: the exporter would merge inputs that are the same one.
    ids, mask = (torch.ones((2, 40), dtype=torch.int64) for _ in range(2))
    any_size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    names = {"input_names": ["input_ids", "attention_mask"], "output_names": ["last_hidden_state"]}
    with torch.no_grad():
        shapes = {"dynamo": True, "dynamic_shapes": (any_size, any_size)}
        torch.onnx.export(backbone, (ids, mask), exported, verbose=False, **shapes, **names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that the result is for this machine, which is what we want
    options.optimized_model_filepath = str(optimized)
    onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])


def without_dropout(folder, twin):
    twin.mkdir(parents=True, exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    off = {key: 0.0 for key in config if "dropout" in key and config[key]}
    os.link(folder / "model.safetensors", twin / "model.safetensors")
    (twin / "config.json").write_text(json.dumps(config | off, indent=2))
