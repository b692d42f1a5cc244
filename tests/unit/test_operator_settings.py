"""The operator's settings are read from environment variables."""

import pytest

from rft_operator.settings import BadSettings, from_env


def test_settings_have_defaults() -> None:
    settings = from_env({"RFT_TRAINER_IMAGE": "trainer:1"})
    assert settings.namespaces == ()
    assert settings.ingest_url is None
    assert settings.certificate_names == ()


def test_nodes_are_read_by_default() -> None:
    image = {"RFT_TRAINER_IMAGE": "trainer:1"}
    assert from_env(image).read_nodes is True
    assert from_env({**image, "RFT_READ_NODES": "false"}).read_nodes is False


def test_node_labels_of_accelerators_are_read_as_json() -> None:
    given = '{"nvidia-l4-24gb": [{"example.com/gpu": ["l4", "L4"], "example.com/shared": []}]}'
    read = from_env({"RFT_TRAINER_IMAGE": "t", "RFT_ACCELERATOR_LABELS": given}).accelerator_labels
    assert read == {"nvidia-l4-24gb": ({"example.com/gpu": ("l4", "L4"), "example.com/shared": ()},)}
    assert from_env({"RFT_TRAINER_IMAGE": "t"}).accelerator_labels == {}


def test_the_host_of_the_url_is_in_the_certificate() -> None:
    settings = from_env(
        {
            "RFT_TRAINER_IMAGE": "t",
            "RFT_INGEST_URL": "https://10.96.0.50:8443/",
            "RFT_TLS_NAMES": "a.svc, 10.96.0.50",
            "RFT_WATCH_NAMESPACES": "x,y",
        }
    )
    assert settings.certificate_names == ("10.96.0.50", "a.svc")
    assert settings.ingest_url == "https://10.96.0.50:8443"
    assert settings.namespaces == ("x", "y")


@pytest.mark.parametrize(
    "wrong",
    [
        {"RFT_TRAINER_IMAGE": ""},
        {"RFT_INGEST_URL": "http://plain"},
        {"RFT_INGEST_PORT": "many"},
        {"RFT_METRICS_PORT": "70000"},
        {"RFT_HEALTH_PORT": "0"},
        {"RFT_WORKERS": "0"},
        {"RFT_WORKERS": "²"},
        {"RFT_WORKERS": "-1"},
        {"RFT_NO_PROGRESS_SECONDS": "9" * 20},
        {"RFT_INGEST_BIND": "everywhere"},
        {"RFT_READ_NODES": "perhaps"},
        {"RFT_ASSIGNS_USERS": "perhaps"},
        {"RFT_ACCELERATOR_LABELS": "nvidia-l4-24gb"},
        {"RFT_ACCELERATOR_LABELS": '["nvidia-l4-24gb"]'},
        {"RFT_ACCELERATOR_LABELS": '{"nvidia-l5": []}'},
        {"RFT_ACCELERATOR_LABELS": '{"nvidia-l4-24gb": [{}]}'},
        {"RFT_ACCELERATOR_LABELS": '{"nvidia-l4-24gb": [{"a": [1]}]}'},
        {"RFT_ACCELERATOR_LABELS": '{"nvidia-l4-24gb": [{"a": "l4"}]}'},
        {"RFT_LEASE_SECONDS": "2"},
        {"RFT_WATCH_SECONDS": "180", "RFT_STALE_SECONDS": "190"},
    ],
)
def test_an_invalid_setting_is_named_in_the_error(wrong: dict[str, str]) -> None:
    with pytest.raises(BadSettings, match=next(iter(wrong))):
        from_env({"RFT_TRAINER_IMAGE": "t", **wrong})
