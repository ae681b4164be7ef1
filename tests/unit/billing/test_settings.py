"""The environment of `sidecar billing`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.billing.settings import BillingSettingsError, load_billing_settings, make_data_dir


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_billing_settings({})
    assert str(settings.listen) == "127.0.0.1:8095"
    assert not settings.tokens
    assert settings.database.database == str(Path(".sidecar/billing.sqlite3"))
    assert not (tmp_path / ".sidecar").exists()
    make_data_dir(settings)
    assert (tmp_path / ".sidecar").stat().st_mode & 0o777 == 0o700
    assert settings.plan.plan.all_charges()[0].included_free == 100


def test_what_is_given(tmp_path: Path) -> None:
    settings = load_billing_settings(
        {
            "SIDECAR_DATA_DIR": str(tmp_path),
            "SIDECAR_BILLING_LISTEN": "0.0.0.0:9000",
            "SIDECAR_BILLING_TOKEN": "t",
            "SIDECAR_BILLING_DATABASE_URL": "postgresql://user:secret@db/billing",
        }
    )
    assert (str(settings.listen), settings.tokens.role("t")) == ("0.0.0.0:9000", "operator")
    assert settings.database.drivername == "postgresql+asyncpg"
    assert "secret" not in str(settings.database)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SIDECAR_BILLING_LISTEN": "8095"}, "must be host:port"),
        ({"SIDECAR_BILLING_LISTEN": "[::]:8095"}, "SIDECAR_BILLING_TOKEN is needed"),
        ({"SIDECAR_BILLING_TOKEN": "a", "SIDECAR_BILLING_TOKEN_FILE": "/etc/hostname"}, "keep one"),
        ({"SIDECAR_LOG_FORMAT": "xml"}, "must be one of auto, json, text"),
    ],
)
def test_refused(tmp_path: Path, environ: dict[str, str], words: str) -> None:
    with pytest.raises(BillingSettingsError, match=words.replace("[", r"\[")) as caught:
        load_billing_settings({"SIDECAR_DATA_DIR": str(tmp_path), **environ})
    assert len(caught.value.problems) == 1


def test_unknown_names_are_warned_of_with_the_nearest_known_one(tmp_path: Path) -> None:
    environ = {
        "SIDECAR_DATA_DIR": str(tmp_path),
        "SIDECAR_BILLING_PLN": "x",
        "SIDECAR_BILLING_URL": "http://of-the-sidecar",
        "SIDECAR_BILLING_SERVICE_HOST": "10.0.0.1",
        "SIDECAR_BILLING_SERVICE_PORT_HTTP": "8095",
        "SIDECAR_BILLING_PORT": "tcp://10.0.0.1:8095",
        "SIDECAR_BILLING_PORT_8095_TCP_ADDR": "10.0.0.1",
    }
    assert load_billing_settings(environ).warnings == (
        "SIDECAR_BILLING_PLN is not known; did you mean SIDECAR_BILLING_PLAN?",
    )
