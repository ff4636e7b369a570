"""Lets schemathesis look for answers of deberta-serve that its OpenAPI document does not allow, with all checks.

    pip install -r tests/serving/clients/requirements.txt
    python tests/serving/clients/schema.py target/release/deberta-serve FOLDER

Asks the small models of the repository, and those of FOLDER as in check.py. The exit code tells whether there was no finding.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[3]
# The document cannot say that a stride has to be shorter than the room that a question leaves in a window, nor which contexts
# hold a token. So these tasks may answer 422 to a body that agrees with it.
WINDOWS = ["ner", "answer"]
SETTINGS = '[checks.positive_data_acceptance]\nexpected-statuses = ["2xx", "422"]\n'


def examine(program, model, task):
    """Whether there was no finding."""
    command = [program, "--listen", "127.0.0.1:0", "--json-logs", "--model", str(model), "--task", task]
    with tempfile.TemporaryDirectory() as folder:
        # The log goes to a file, since a pipe that nobody reads stops the server.
        log, settings = pathlib.Path(folder, "log"), pathlib.Path(folder, "schemathesis.toml")
        settings.write_text(SETTINGS if task in WINDOWS else "")
        server = subprocess.Popen(command, stderr=log.open("w"))
        try:
            while '"loaded"' not in (lines := log.read_text()):
                if server.poll() is not None:
                    raise SystemExit(f"{task}: the server ended: {lines}")
            url = "http://" + json.loads(lines.splitlines()[0])["fields"]["address"]
            print(f"\n== {task}: {model}", flush=True)
            examined = subprocess.run([
                "schemathesis", "--config-file", str(settings), "run", url + "/api-doc/openapi.json", "--checks", "all",
                "--max-examples", "200", "--seed", "1", "--continue-on-failure",
            ], cwd=folder)  # where it leaves its cache
            return examined.returncode == 0
        finally:
            server.terminate()
            server.wait()


def main():
    program, *folder = sys.argv[1:]
    models = {
        "fill-mask": ROOT / "models/deberta-tiny",
        "embed": ROOT / "models/deberta-tiny",
        "gliner": ROOT / "tests/fixtures/gliner/span",
        "zero-shot": ROOT / "tests/fixtures/gliclass/first",
    }
    if folder:
        models |= {path.name: path for path in pathlib.Path(folder[0]).iterdir()}
    findings = [task for task, model in models.items() if not examine(program, model, task)]
    print(f"findings: {', '.join(findings) or 'none'}")
    sys.exit(bool(findings))


main()
