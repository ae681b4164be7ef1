"""The chart, rendered by a real Helm."""

import subprocess
import sys
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parents[2] / "helm" / "outcome-sidecar"
HELM = Path(sys.executable).parent / "helm"
MINIMAL = CHART / "ci" / "minimal-values.yaml"


def helm(*arguments):
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False, timeout=60)


def render(*values, settings=(), chart=CHART):
    """Every object by (kind, name)."""
    arguments = [argument for file in values for argument in ("-f", file)]
    arguments += [argument for setting in settings for argument in ("--set", setting)]
    done = helm("template", "demo", chart, *arguments)
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def pods(objects):
    """Pod specs by component."""
    return {
        document["metadata"]["labels"]["app.kubernetes.io/component"]: document["spec"]["template"]["spec"]
        for (kind, _), document in objects.items()
        if kind == "Deployment"
    }
