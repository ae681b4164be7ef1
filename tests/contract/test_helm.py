"""The chart: linted and rendered by a real Helm, valid by Kubernetes' schemas, and understood by the settings."""

import base64
import json
import re
import shutil
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from charts import CHART, MINIMAL, helm, pods, render

from sidecar.billing.settings import load_billing_settings
from sidecar.policy.loading import load_plan
from sidecar.settings import load_settings
from sidecar.settings_types import parse_bytes

VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
# The oldest and the newest Kubernetes that the chart is for, as far as the validator knows them.
KUBERNETES = ("1.29", "1.33", kubernetes_validate.latest_version())
SECRETS_MOUNT = "/run/secrets/sidecar"
ALERT_SECRET = "whsec_b25lIG9mIHR3ZW50eS1mb3VyIGJ5dGVz"
OWN_EXPORTS = """
exports:
- {name: orb, kind: orb, secret: {file: /run/secrets/exports/stripe}, meters: [{code: r, metrics: [ai_resolution]}]}
"""


@pytest.fixture(scope="module", params=VALUES, ids=lambda path: path.stem)
def rendered(request):
    return render(request.param)


def sidecar_of(objects):
    [container] = pods(objects)["agent"]["initContainers"]
    return container


def environment(container, objects, directory):
    """What the process would find: Secrets as files in `directory`, references with a value in their place."""
    environ = {}
    referred = {
        "SIDECAR_REDIS_URL": "redis://from-a-secret:6379",
        "SIDECAR_BILLING_DATABASE_URL": f"sqlite:///{directory}/l.sqlite3",
    }
    for entry in container["env"]:
        value = entry.get("value", referred.get(entry["name"], "from-a-secret"))
        if entry["name"].endswith("_FILE"):
            assert value.startswith(SECRETS_MOUNT + "/")
            key = value.rpartition("/")[2]
            (directory / key).write_text(ALERT_SECRET if key == "billing-alert-secret" else f"secret of {key}")
            value = str(directory / key)
        environ[entry["name"]] = value
    if "SIDECAR_PLAN" in environ or "SIDECAR_BILLING_PLAN" in environ:
        [plan] = [document["data"]["plan.yaml"] for (_, name), document in objects.items() if name.endswith("-plan")]
        (directory / "plan.yaml").write_text(plan)
        name = "SIDECAR_PLAN" if "SIDECAR_PLAN" in environ else "SIDECAR_BILLING_PLAN"
        assert environ[name] == "/etc/sidecar/plan.yaml"
        environ[name] = str(directory / "plan.yaml")
    if "SIDECAR_BILLING_EXPORTS" in environ:
        assert environ["SIDECAR_BILLING_EXPORTS"] == "/etc/sidecar-exports/exports.yaml"
        files = [document["data"] for (_, name), document in objects.items() if name.endswith("-exports")]
        text = files[0]["exports.yaml"] if files else OWN_EXPORTS
        (directory / "stripe").write_text("sk_test")
        (directory / "exports.yaml").write_text(text.replace("/run/secrets/exports", str(directory)))
        environ["SIDECAR_BILLING_EXPORTS"] = str(directory / "exports.yaml")
    return environ


@pytest.mark.parametrize("values", [None, *VALUES], ids=lambda path: path.stem if path else "defaults")
def test_helm_lints_strictly(values):
    done = helm("lint", "--strict", CHART, *(["-f", values] if values else []))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_accepts_every_object(rendered, version):
    for document in rendered.values():
        if document["apiVersion"].startswith("monitoring.coreos.com/"):
            continue  # an operator's own kinds, which test_monitoring looks at
        kubernetes_validate.validate(document, version, strict=True)


def test_the_validator_would_refuse_a_wrong_object():
    document = render(MINIMAL)["Service", "demo-outcome-sidecar-signals"]
    document["spec"]["ports"][0]["port"] = "not a number"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, KUBERNETES[0], strict=True)


def test_the_sidecar_is_a_native_sidecar_that_the_kubelet_can_probe(rendered):
    sidecar = sidecar_of(rendered)
    assert sidecar["restartPolicy"] == "Always"
    names = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
    environ = {entry["name"]: entry.get("value") for entry in sidecar["env"]}
    assert environ["SIDECAR_ADMIN_LISTEN"] == f"0.0.0.0:{names['sidecar-admin']}"
    for probe, path in (("startupProbe", "/readyz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert sidecar[probe]["httpGet"] == {"path": path, "port": "sidecar-admin"}


def test_the_settings_understand_what_the_chart_says(rendered, tmp_path):
    environ = environment(sidecar_of(rendered), rendered, tmp_path)
    settings, warnings = load_settings(environ | {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert warnings == []
    assert settings.admin_token.get_secret_value() == "secret of admin-token"
    assert settings.billing_token.get_secret_value() == "secret of billing-token"
    assert all(route.listen.is_loopback for route in settings.all_routes)
    agent = pods(rendered)["agent"]["containers"][0]
    base_urls = [entry["value"] for entry in agent.get("env", []) if entry["name"] == "ANTHROPIC_BASE_URL"]
    listens = [f"http://{route.listen}" for route in settings.all_routes]
    assert not base_urls or base_urls[0] in listens


def test_the_billing_api_understands_what_the_chart_says(rendered, tmp_path):
    billing = pods(rendered).get("billing")
    if billing is None:
        assert not [name for kind, name in rendered if "billing" in name]
        return
    [container] = billing["containers"]
    environ = environment(container, rendered, tmp_path) | {"SIDECAR_DATA_DIR": str(tmp_path / "data")}
    settings = load_billing_settings(environ)
    assert settings.tokens.role("secret of billing-token") == "operator"
    assert settings.warnings == ()
    assert {entry["name"] for entry in container["env"]} >= {"SIDECAR_BILLING_GRACE_HOURS", "SIDECAR_LOG_LEVEL"}
    url = {entry["name"]: entry.get("value") for entry in sidecar_of(rendered)["env"]}["SIDECAR_BILLING_URL"]
    [service] = [name for kind, name in rendered if kind == "Service" and name.endswith("-billing")]
    assert url == f"http://{service}:{settings.listen.port}"


def test_nobody_is_root_and_nothing_is_writable_but_volumes(rendered):
    for component, pod in pods(rendered).items():
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            context = container["securityContext"]
            assert context["runAsNonRoot"] is True
            assert context["runAsUser"] > 0
            if component == "agent" and container["name"] == "agent" and context["runAsUser"] != 10001:
                continue  # a context that the values give for somebody's own agent
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert "memory" in container["resources"]["limits"]


def test_every_mount_has_a_volume_and_every_directory_a_mount(rendered):
    for pod in pods(rendered).values():
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= set(volumes)
    sidecar = sidecar_of(rendered)
    environ = {entry["name"]: entry.get("value") for entry in sidecar["env"]}
    mounts = {mount["mountPath"] for mount in sidecar["volumeMounts"]}
    assert environ["SIDECAR_QUEUE_DIR"] in mounts
    # Below the mount, not the mount itself: the sidecar makes its directory private, which only its owner may do.
    assert str(Path(environ["SIDECAR_DATA_DIR"]).parent) in mounts


def test_the_queue_lives_in_memory_with_room_beside_it(rendered):
    volumes = {volume["name"]: volume for volume in pods(rendered)["agent"]["volumes"]}
    queue = volumes["sidecar-queue"]["emptyDir"]
    environ = {entry["name"]: entry.get("value") for entry in sidecar_of(rendered)["env"]}
    assert queue["medium"] == "Memory"
    size = int(queue["sizeLimit"].removesuffix("Mi")) * 2**20
    assert size > 2 * parse_bytes(environ["SIDECAR_QUEUE_BYTES"])
    assert int(sidecar_of(rendered)["resources"]["limits"]["memory"].removesuffix("Mi")) * 2**20 > size


def test_a_pod_has_longer_to_go_than_the_sidecar_to_drain(rendered):
    environ = {entry["name"]: entry.get("value") for entry in sidecar_of(rendered)["env"]}
    assert pods(rendered)["agent"]["terminationGracePeriodSeconds"] > float(environ["SIDECAR_DRAIN_SECONDS"])


def test_services_find_their_pods(rendered):
    deployments = [document for (kind, _), document in rendered.items() if kind == "Deployment"]
    for (kind, _), service in rendered.items():
        if kind != "Service":
            continue
        selector = service["spec"]["selector"].items()
        chosen = [d for d in deployments if selector <= d["spec"]["template"]["metadata"]["labels"].items()]
        assert len(chosen) == 1
        pod = chosen[0]["spec"]["template"]["spec"]
        ports = {
            port["name"] for c in [*pod.get("initContainers", []), *pod["containers"]] for port in c.get("ports", [])
        }
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_no_secret_stands_in_an_environment_or_a_config_map():
    objects = render(CHART / "ci" / "everything-values.yaml")
    secrets = {"admin-secret", "billing-secret", "viewer-secret", "hash-secret", "one", "two", "three", ALERT_SECRET}
    for (kind, _), document in objects.items():
        if kind == "Secret":
            assert {base64.b64decode(value).decode() for value in document["data"].values()} == secrets
        else:
            assert not [secret for secret in secrets if f'"{secret}"' in json.dumps(document)]


def test_what_the_billing_api_is_told_reaches_its_settings(tmp_path):
    objects = render(CHART / "ci" / "everything-values.yaml")
    pod = pods(objects)["billing"]
    environ = environment(pod["containers"][0], objects, tmp_path) | {"SIDECAR_DATA_DIR": str(tmp_path / "data")}
    settings = load_billing_settings(environ)
    assert settings.grace_us == 96.5 * 3_600_000_000
    assert (settings.alert_url, settings.alert_secret) == ("https://alerts.example.com/hook", ALERT_SECRET)
    assert [(one.name, one.endpoint.secret) for one in settings.exports] == [
        ("stripe", "sk_test"), ("lago", "from-a-secret"),
    ]  # fmt: skip
    assert settings.log_level == "warning"
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["export-secrets"] == "/run/secrets/exports"
    assert {volume["name"]: volume for volume in pod["volumes"]}["export-secrets"]["secret"]["secretName"] == "meters"


def test_the_exports_file_may_be_in_a_secret_or_a_config_map_of_ones_own():
    def volume(*settings):
        pod = pods(render(MINIMAL, settings=settings))["billing"]
        return {one["name"]: one for one in pod["volumes"]}.get("exports")

    assert volume() is None
    items = [{"key": "meters.yaml", "path": "exports.yaml"}]
    key = "billing.exports.key=meters.yaml"
    assert volume("billing.exports.existingSecret=s", key)["secret"] == {
        "secretName": "s", "defaultMode": 0o440, "items": items,
    }  # fmt: skip
    assert volume("billing.exports.existingConfigMap=c", key)["configMap"] == {"name": "c", "items": items}


def test_only_the_billing_api_has_the_secret_of_alerts():
    objects = render(CHART / "ci" / "everything-values.yaml")
    for component, pod in pods(objects).items():
        keys = {
            item["key"]
            for volume in pod["volumes"]
            for item in volume.get("secret", {}).get("items", [])
            if volume["secret"]["secretName"] == "support"
        }
        for own in ("billing-alert-secret", "billing-viewer-token"):
            assert (own in keys) == (component == "billing")


def test_tokens_are_made_when_none_are_given():
    first, second = (render(MINIMAL)["Secret", "demo-outcome-sidecar"]["data"] for _ in range(2))
    assert set(first) == {"admin-token", "billing-token"}
    assert len(base64.b64decode(first["admin-token"])) == 40
    assert len({*first.values(), *second.values()}) == 4


def test_the_plan_reaches_both_and_loads():
    objects = render(CHART / "ci" / "everything-values.yaml")
    plan = objects["ConfigMap", "support-plan"]["data"]["plan.yaml"]
    assert load_plan(plan.encode(), "plan.yaml").name == "Chart's plan"
    for pod in pods(objects).values():
        assert "support-plan" in json.dumps(pod)


def test_a_database_of_ones_own_takes_the_volume_away_and_rolls():
    objects = render(CHART / "ci" / "everything-values.yaml")
    assert not [name for kind, name in objects if kind == "PersistentVolumeClaim"]
    assert objects["Deployment", "support-billing"]["spec"]["strategy"] == {"type": "RollingUpdate"}
    minimal = render(MINIMAL)
    assert minimal["Deployment", "demo-outcome-sidecar-billing"]["spec"]["strategy"] == {"type": "Recreate"}
    claim = minimal["PersistentVolumeClaim", "demo-outcome-sidecar-billing"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ([], "redis.url is needed"),
        (["redis.url=redis://r", "billing.enabled=false"], "billing.url is needed"),
        (["redis.url=http://r"], "redis.url"),
        (["redis.url=redis://r", "billing.replicas=2"], "billing.replicas above 1"),
        (["redis.url=redis://r", "billing.exports.file=a", "billing.exports.existingSecret=b"], "give one of"),
        (["redis.url=redis://r", "billing.graceHours=-1"], "billing.graceHours"),
        (["redis.url=redis://r", "secrets.billingAlertSecret=short"], "secrets.billingAlertSecret"),
        (["redis.url=redis://r", "sidecar.queue.mebibytes=64"], "sidecar.queue.volumeMebibytes"),
        (["redis.url=redis://r", "sidecar.journal.mebibytes=4096"], "sidecar.journal.volumeMebibytes"),
        (["redis.url=redis://r", "sidecar.upstream=https://api.openai.com/v1"], "sidecar.upstream"),
        (["redis.url=redis://r", "sidecar.mode=dry"], "sidecar.mode"),
        (["redis.url=redis://r", "sidecar.upstraem=x"], "upstraem"),
    ],
)
def test_a_mistake_is_told_before_anything_is_installed(settings, says):
    done = helm("template", "demo", CHART, *(part for setting in settings for part in ("--set", setting)))
    assert done.returncode != 0
    assert says in done.stderr.replace("/", ".")


def test_every_value_is_in_the_schema_and_every_schema_entry_a_value():
    def leaves(schema, path=""):
        for name, entry in schema["properties"].items():
            yield from leaves(entry, f"{path}{name}.") if "properties" in entry else [f"{path}{name}"]

    def paths(values, schema, path=""):
        for name, value in values.items():
            entry = schema["properties"][name]
            yield from paths(value, entry, f"{path}{name}.") if "properties" in entry else [f"{path}{name}"]

    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(paths(values, schema)) == set(leaves(schema)) - {"global"}


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_notes_name_services_and_secrets_that_are_there(values, tmp_path):
    # Helm shows notes after an installation alone; here they are rendered as the data of one more object.
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    notes = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "NOTES.txt").unlink()
    (chart / "templates" / "_notes.tpl").write_text('{{ define "notes" }}' + notes + "{{ end }}")
    (chart / "templates" / "notes.yaml").write_text(
        'apiVersion: v1\nkind: Notes\nmetadata: {name: notes}\ndata: {{ include "notes" . | toJson }}\n'
    )
    objects = render(values, chart=chart)
    text = objects["Notes", "notes"]["data"]
    named = re.findall(r"service/(\S+)", text)
    assert named
    assert {("Service", name) for name in named} <= set(objects)
    assert text.count("admin-token") == 1
