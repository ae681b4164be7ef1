"""The environment: every wrong variable at once, secrets from files, warnings with the nearest name."""

import pytest

from sidecar.settings import BY_SOURCE, Settings, SettingsError, load_settings
from sidecar.settings_reference import describe
from sidecar.settings_types import parse_bytes


def load(**environ):
    return load_settings({f"SIDECAR_{name}": value for name, value in environ.items()})


def problems(**environ):
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    return caught.value.problems


def test_nothing_set_is_the_intake_only_role_on_embedded_defaults():
    settings, warnings = load()
    assert settings.all_routes == ()
    assert (settings.redis_url, settings.billing_url) == ("embedded", "embedded")
    assert warnings == []


def test_one_upstream_is_one_route():
    settings, _ = load(UPSTREAM="https://api.openai.com", LISTEN="127.0.0.1:9000")
    assert [(str(route.listen), str(route.upstream)) for route in settings.all_routes] == [
        ("127.0.0.1:9000", "https://api.openai.com")
    ]


def test_several_routes():
    settings, _ = load(ROUTES="127.0.0.1:8080=https://api.openai.com, unix:/run/a=http://127.0.0.1:3000")
    assert [str(route.listen) for route in settings.all_routes] == ["127.0.0.1:8080", "unix:/run/a"]


def test_every_wrong_variable_is_named_at_once():
    found = problems(
        UPSTREAM="api.openai.com",
        QUEUE_BYTES="lots",
        MODE="dry",
        CUSTOMER="head:x",
        DRAIN_SECONDS="-1",
        TENANT="a b",
        REDIS_URL="localhost:6379",
        ROUTES="127.0.0.1:8080",
    )
    named = {problem.split(":")[0] for problem in found}
    assert named == {
        f"SIDECAR_{name}"
        for name in ("UPSTREAM", "QUEUE_BYTES", "MODE", "CUSTOMER", "DRAIN_SECONDS", "TENANT", "REDIS_URL", "ROUTES")
    }


def test_what_is_wrong_between_variables_is_named_with_what_is_wrong_in_one():
    found = problems(
        MODE="dry",
        ADMIN_LISTEN="0.0.0.0:8090",
        UPSTREAM="http://a",
        ROUTES="127.0.0.1:1=http://a",
    )
    assert [problem.split(":")[0] for problem in found] == ["SIDECAR_MODE", "SIDECAR_ROUTES", "SIDECAR_ADMIN_TOKEN"]


def test_a_token_whose_file_cannot_be_read_is_not_called_missing_too(tmp_path):
    found = problems(ADMIN_LISTEN="0.0.0.0:8090", ADMIN_TOKEN_FILE=str(tmp_path / "none"))
    assert len(found) == 1
    assert "cannot be read" in found[0]


@pytest.mark.parametrize("variable", ["ADMIN_TOKEN_FILE", "WEBHOOK_SECRET_CRM_FILE"])
def test_an_empty_file_is_no_secret_and_not_no_secret_either(tmp_path, variable):
    (tmp_path / "empty").write_text("\n")
    (found,) = problems(**{variable: str(tmp_path / "empty")})
    assert found == f"SIDECAR_{variable}: {tmp_path / 'empty'} is empty"


def test_an_empty_webhook_secret_is_none_at_all():
    settings, _ = load(WEBHOOK_SECRET_CRM="")
    assert settings.webhook_secrets == {}


def test_a_misspelt_name_is_said_beside_the_errors():
    assert any("did you mean SIDECAR_UPSTREAM?" in problem for problem in problems(UPSTEAM="http://a", MODE="dry"))


def test_a_name_that_is_near_to_none_gets_no_suggestion():
    _, warnings = load(FOO="x", TENNANT="acme")
    assert ["did you mean" in warning for warning in warnings] == [False, True]


def test_traffic_and_administration_need_an_address_each():
    assert "SIDECAR_ADMIN_LISTEN" in problems(UPSTREAM="http://a", LISTEN="127.0.0.1:8090")[0]
    load(UPSTREAM="http://a", LISTEN="127.0.0.1:0", ADMIN_LISTEN="127.0.0.1:0")


def test_upstream_and_routes_exclude_each_other():
    assert "not both" in problems(UPSTREAM="http://a", ROUTES="127.0.0.1:1=http://a")[0]


def test_the_same_listener_twice():
    assert "twice" in problems(ROUTES="127.0.0.1:1=http://a,127.0.0.1:1=http://b")[0]


def test_an_upstream_that_is_the_sidecar_itself():
    assert (
        "SIDECAR_UPSTREAM: http://localhost:8080 is where the sidecar itself listens"
        in problems(UPSTREAM="http://localhost:8080")[0]
    )
    (found,) = problems(ROUTES="127.0.0.1:1=http://a,127.0.0.1:2=http://127.0.0.1:1,127.0.0.1:3=http://[::1]:8090")[0:1]
    assert found.startswith("SIDECAR_ROUTES: http://127.0.0.1:1 ")
    load(UPSTREAM="http://localhost:8081")


def test_an_admin_address_that_others_reach_needs_a_token(tmp_path):
    assert "SIDECAR_ADMIN_TOKEN" in problems(ADMIN_LISTEN="0.0.0.0:8090")[0]
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    settings, _ = load(ADMIN_LISTEN="0.0.0.0:8090", ADMIN_TOKEN_FILE=str(token))
    assert settings.admin_token.get_secret_value() == "s3cret"


def test_secrets_are_never_shown(tmp_path):
    settings, _ = load(BILLING_TOKEN="hunter2", WEBHOOK_SECRET_ZENDESK="hunter3")
    assert "hunter" not in repr(settings) + str(settings.model_dump())
    (tmp_path / "a").write_text("x")
    found = problems(BILLING_TOKEN="hunter2", BILLING_TOKEN_FILE=str(tmp_path / "a"), HASH_KEY_FILE="/nowhere/x")
    assert "hunter" not in str(found)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BILLING_URL", "https://user:hunter2@billing.example/?x"),
        ("UPSTREAM", "https://user:hunter2@api.example"),
        ("ROUTES", "127.0.0.1:1=https://user:hunter2@api.example"),
    ],
)
def test_credentials_in_a_url_are_refused_and_not_shown(variable, value):
    (found,) = problems(**{variable: value})
    assert found.startswith(f"SIDECAR_{variable}: ")
    assert "//***@" in found
    assert "hunter2" not in found


@pytest.mark.parametrize("text", ["inf", "nan", "1e300", "-1"])
def test_hours_and_seconds_are_finite(text):
    names = [name for name, field in Settings.model_fields.items() if field.annotation is float]
    assert len(names) >= 7
    found = problems(**{name.upper(): text for name in names})
    assert [problem.partition(":")[0] for problem in found] == [f"SIDECAR_{name.upper()}" for name in names]


def test_a_redis_url_may_hold_a_password_and_so_may_be_a_file(tmp_path):
    (tmp_path / "url").write_text("redis://:hunter2@cache:6379\n")
    settings, _ = load(REDIS_URL_FILE=str(tmp_path / "url"))
    assert settings.redis_url == "redis://:hunter2@cache:6379"
    assert "hunter" not in str(problems(REDIS_URL="rediss+x://:hunter2@cache"))


def test_webhooks_are_set_up_by_source():
    environ = {
        "SIDECAR_WEBHOOK_SECRET_ZENDESK": "z",
        "SIDECAR_WEBHOOK_CONVERSATION_ZENDESK": "payload.detail.external_id",
        "SIDECAR_WEBHOOK_CONVERSATION_FRONT": "payload.x",
        "SIDECAR_WEBHOOK_BASE_URL": "https://hooks.example.com/a/",
    }
    settings, warnings = load_settings(environ)
    facts = {"payload": {"detail": {"external_id": "c-1", "id": "2"}}}
    assert list(settings.webhook_endpoints()) == ["zendesk"]
    assert settings.webhook_endpoints()["zendesk"].conversation(facts) == "c-1"
    assert settings.webhook_base_url == "https://hooks.example.com/a"
    assert warnings == ["SIDECAR_WEBHOOK_CONVERSATION_FRONT has no effect: SIDECAR_WEBHOOK_SECRET_FRONT is not set"]


def test_webhooks_that_are_set_up_wrongly_are_named():
    environ = {
        "SIDECAR_WEBHOOK_SECRET_OUTREACH": "whsec_no base64",
        "SIDECAR_WEBHOOK_SECRET_FRONT": "x",
        "SIDECAR_WEBHOOK_CONVERSATION_FRONT": "payload[",
        "SIDECAR_WEBHOOK_BASE_URL": "hooks.example.com",
    }
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    assert {problem.partition(":")[0] for problem in caught.value.problems} == {
        "SIDECAR_WEBHOOK_BASE_URL",
        "SIDECAR_WEBHOOK_SECRET_OUTREACH",
        "SIDECAR_WEBHOOK_CONVERSATION_FRONT",
    }
    assert "no base64" not in str(caught.value).replace("has no base64 after", "")


def test_webhook_secrets_rotate():
    settings, _ = load(WEBHOOK_SECRET_ZENDESK_PREVIOUS="old", WEBHOOK_SECRET_ZENDESK="new")
    assert [secret.get_secret_value() for secret in settings.webhook_secrets["zendesk"]] == ["new", "old"]


def test_an_unknown_name_is_a_warning_with_the_nearest():
    _, warnings = load(UPSTREEM="http://a")
    assert warnings == [
        "SIDECAR_UPSTREEM is not a setting of the sidecar and has no effect; did you mean SIDECAR_UPSTREAM?"
    ]


def test_what_kubernetes_makes_for_services_is_not_a_mistake():
    _, warnings = load(SERVICE_HOST="10.0.0.1", SERVICE_PORT_HTTP="80", PORT="tcp://10.0.0.1:80", PORT_80_TCP_ADDR="x")
    assert warnings == []


def test_names_of_other_commands_are_known():
    _, warnings = load(BILLING_LISTEN="127.0.0.1:1", BILLING_PLAN="x", BILLING_DATABASE_URL="y")
    assert warnings == []


def test_a_pod_must_say_embedded():
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["SIDECAR_REDIS_URL", "SIDECAR_BILLING_URL"]
    said = environ | {"SIDECAR_REDIS_URL": "embedded", "SIDECAR_BILLING_URL": "http://billing:8095/"}
    settings, _ = load_settings(said)
    assert settings.billing_url == "http://billing:8095"


@pytest.mark.parametrize(
    ("text", "count"), [("1", 1), ("32MiB", 2**25), ("1GiB", 2**30), ("1.5 KiB", 1536), ("2MB", 2000000)]
)
def test_sizes(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "1mib", "-1", "1 000"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("no", False), ("False", False)])
def test_booleans(text, value):
    assert load(PRESERVE_HOST=text)[0].preserve_host is value


def test_the_description_names_every_variable():
    text = describe()
    for name in Settings.model_fields:
        shown = BY_SOURCE[name][0] + "<SOURCE>" if name in BY_SOURCE else f"SIDECAR_{name.upper()}"
        assert shown in text
