"""The pinned Python packages, and the two workers in Rust. Standard library only: it runs before the packages exist."""

import json
import os
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"


def enter(scratch):
    """Returns in an interpreter that has the packages, which is this one or one in `scratch`, started in its place."""
    wrong = missing()
    if not wrong:
        return
    folder = scratch / "python"
    python = folder / "bin" / "python"
    if Path(sys.prefix).resolve() == folder.resolve():
        raise SystemExit(f"{folder} lacks {', '.join(wrong)}: remove the folder and start again")
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
    os.execv(python, [python, *sys.argv])


def missing():
    """The requirements that this interpreter doesn't have in the pinned version; a local build (2.15.0+cpu) counts."""
    wrong = []
    for line in REQUIREMENTS.read_text().split():
        name, version = line.split("==")
        try:
            found = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            found = None
        if found != version:
            wrong.append(line)
    return wrong


def build(scratch, peers):
    """Builds our worker, and candle's if it is among the peers; the command line of every peer's worker."""
    python = [sys.executable]
    workers = {
        "ours": [cargo(["--manifest-path", HERE.parents[1] / "Cargo.toml", "--bench", "peer_worker"], "peer_worker")],
        "torch": python + [str(HERE / "torch_worker.py")],
        "onnxruntime": python + [str(HERE / "onnx_worker.py")],
        "openvino": python + [str(HERE / "openvino_worker.py")],
    }
    if "candle" in peers:
        native = {**os.environ, "RUSTFLAGS": "-C target-cpu=native", "CARGO_TARGET_DIR": str(scratch / "candle")}
        workers["candle"] = [cargo(["--manifest-path", HERE / "candle" / "Cargo.toml"], "candle-worker", native)]
    return workers


def cargo(target, name, env=None):
    """Builds a target in release mode; its executable."""
    command = ["cargo", "build", "--release", "--locked", "--message-format=json-render-diagnostics", *target]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout.splitlines()
    messages = [json.loads(line) for line in lines]
    built = [message for message in messages if message.get("executable") and message["target"]["name"] == name]
    return built[0]["executable"]
