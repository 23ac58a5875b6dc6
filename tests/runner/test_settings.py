"""A misspelt variable of a runner is refused: a restriction that nothing reads would be a permission."""

from __future__ import annotations

import pytest

from lensway.errors import ErrorCode, LenswayError
from lensway.runner.settings import read_settings

GOOD = {
    "LENSWAY_RUNNER_ID": "run_x",
    "LENSWAY_RUNNER_TOKEN": "rk_" + "x" * 43,
    "LENSWAY_GATEWAY_URL": "ws://127.0.0.1:1/connect",
}
SERVICE_LINKS = {
    "LENSWAY_RUNNER_SERVICE_HOST": "10.0.0.1",
    "LENSWAY_RUNNER_SERVICE_PORT": "8081",
    "LENSWAY_RUNNER_SERVICE_PORT_GATEWAY": "8081",
    "LENSWAY_RUNNER_PORT": "tcp://10.0.0.1:8081",
    "LENSWAY_RUNNER_PORT_8081_TCP": "tcp://10.0.0.1:8081",
    "LENSWAY_RUNNER_PORT_8081_TCP_PROTO": "tcp",
    "LENSWAY_RUNNER_PORT_8081_TCP_PORT": "8081",
    "LENSWAY_RUNNER_PORT_8081_TCP_ADDR": "10.0.0.1",
    "LENSWAY_RUNNER_PORT_53_UDP": "udp://10.0.0.1:53",
    "LENSWAY_RUNNER_METRICS_SERVICE_HOST": "10.0.0.2",
    "LENSWAY_RUNNER_METRICS_SERVICE_PORT_HTTP_METRICS": "9090",
    "LENSWAY_RUNNER_METRICS_PORT": "tcp://10.0.0.2:9090",
    "LENSWAY_RUNNER_METRICS_PORT_9090_TCP_ADDR": "10.0.0.2",
}
MISSPELT = {
    "LENSWAY_RUNNER_POLICIES": "LENSWAY_RUNNER_POLICY",
    "LENSWAY_RUNNER_POLICY_FILE": "LENSWAY_RUNNER_POLICY",
    "LENSWAY_RUNNER_POLCY": "LENSWAY_RUNNER_POLICY",
    "lensway_runner_policy": "LENSWAY_RUNNER_POLICY",
    "LENSWAY_RUNNER_Policy": "LENSWAY_RUNNER_POLICY",
    "LENSWAY_RUNER_POLICY": "LENSWAY_RUNNER_POLICY",
    "LENSWAY_RUNNERS_POLICY": "LENSWAY_RUNNER_POLICY",
    "LENSWAY_RUNNER_TOKEN_FILES": "LENSWAY_RUNNER_TOKEN_FILE",
    "LENSWAY_RUNNER_CAPACITYS": "LENSWAY_RUNNER_CAPACITY",
    "LENSWAY_RUNNER_PORT": None,
    "LENSWAY_RUNNER_SOMETHING_ELSE_ENTIRELY": None,
    "LENSWAY_RUNNER_": None,
}


@pytest.mark.parametrize("name", MISSPELT)
def test_an_unknown_variable_is_refused_with_the_nearest_known_one(name: str) -> None:
    with pytest.raises(LenswayError) as error:
        read_settings({**GOOD, name: "/etc/lensway/policy.toml"})
    assert error.value.code is ErrorCode.INVALID_REQUEST
    text = f"{error.value} {error.value.hint}"
    assert name in text
    if (meant := MISSPELT[name]) is not None:
        assert f"{meant}?" in text
    assert "policy.toml" not in text, "values may be secrets"


def test_several_are_named_at_once() -> None:
    with pytest.raises(LenswayError) as error:
        read_settings({**GOOD, "LENSWAY_RUNNER_B": "", "LENSWAY_RUNNER_A": ""})
    assert "LENSWAY_RUNNER_A, LENSWAY_RUNNER_B" in str(error.value)


def test_service_links_of_kubernetes_and_other_peoples_variables_are_let_alone() -> None:
    others = {
        "LENSWAY_SOURCE_RUNNER_URL": "postgresql://h/d",
        "LENSWAY_URL": "http://127.0.0.1:8080",
        "LENSWAY_API_KEY": "ak_x",
        "LENSWAY_ENVIRONMENT": "default",
        "LENSWAY_MASTER_KEY": "x",
        "LENSWAY_SERVE_GATEWAY_URL": "ws://127.0.0.1:8081/connect",
        "LENSWAY_CA_FILE_OWNER": "x",
        "MY_LENSWAY_RUNNER_POLICY": "x",
    }
    assert read_settings({**GOOD, **SERVICE_LINKS, **others}).runner == "run_x"


def test_a_policy_that_is_set_to_nothing_is_no_policy() -> None:
    with pytest.raises(LenswayError, match="LENSWAY_RUNNER_POLICY"):
        read_settings({**GOOD, "LENSWAY_RUNNER_POLICY": ""})
