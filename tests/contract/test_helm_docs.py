"""docs/kubernetes.md: what it tells people to apply is valid, and the settings understand it."""

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from sidecar.settings import Settings, load_settings
from sidecar.settings_types import parse_bytes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kubernetes.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
DOCUMENTS = [document for block in BLOCKS for document in yaml.safe_load_all(block)]


def only(kind):
    [document] = [document for document in DOCUMENTS if document["kind"] == kind]
    return document


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_kubernetes_accepts_it(document, version):
    kubernetes_validate.validate(document, version, strict=True)


def test_the_settings_understand_it(tmp_path):
    pod = only("Deployment")["spec"]["template"]["spec"]
    [sidecar] = pod["initContainers"]
    environ = {entry["name"]: entry["value"] for entry in sidecar["env"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in sidecar["volumeMounts"]}
    for name in [name for name in environ if name.endswith("_FILE")]:
        folder, _, key = environ[name].rpartition("/")
        assert folder in mounts
        (tmp_path / key).write_text(only("Secret")["stringData"][key])
        environ[name] = str(tmp_path / key)
    settings, warnings = load_settings(environ | {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert warnings == []
    assert settings.admin_token.get_secret_value() == "change-me"
    assert pod["terminationGracePeriodSeconds"] > settings.drain_seconds
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    queue = volumes[mounts[str(settings.queue_dir)]]["emptyDir"]
    assert queue["medium"] == "Memory"
    assert parse_bytes(queue["sizeLimit"] + "B") > 2 * settings.queue_bytes
    assert str(settings.data_dir.parent) in mounts
    [agent] = pod["containers"]
    assert agent["env"][0]["value"] == f"http://{settings.listen}/v1"


def test_the_service_finds_the_admin_port():
    deployment, service = only("Deployment"), only("Service")
    template = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    [sidecar] = template["spec"]["initContainers"]
    assert service["spec"]["ports"][0]["targetPort"] in {port["name"] for port in sidecar["ports"]}


def test_the_settings_it_speaks_of_exist():
    spoken = set(re.findall(r"\bSIDECAR_[A-Z][A-Z_]*[A-Z]\b", PAGE.read_text()))
    known = {f"SIDECAR_{name.upper()}" for name in Settings.model_fields}
    assert {name.removesuffix("_FILE") for name in spoken} <= known
