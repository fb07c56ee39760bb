import os
import socket
from collections.abc import Iterator

import pytest

from gemma_launcher.errors import CommandError
from gemma_launcher.processes import ports
from gemma_launcher.processes.ports import PortBinding


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_free_ports() -> None:
    ports.check_ports((PortBinding("the API", "127.0.0.1", ports.find_free_port("127.0.0.1"), "--port"),))


def test_a_free_port_is_outside_the_range_of_outgoing_connections() -> None:
    assert {ports.find_free_port("127.0.0.1") for _ in range(50)} <= {*ports.PORT_RANGE}


def test_excluded_ports_are_not_chosen() -> None:
    few = range(20_000, 20_021)
    assert ports.find_free_port("127.0.0.1", exclude={*ports.PORT_RANGE} - {*few}) in few


def test_an_address_without_free_ports() -> None:
    with pytest.raises(CommandError, match=r"no port of 192\.0\.2\.1 is free: cannot assign"):
        ports.find_free_port("192.0.2.1")


def test_a_port_in_use_is_reported_with_its_owner(taken: int) -> None:
    with pytest.raises(CommandError) as caught:
        ports.check_ports((PortBinding("the API", "127.0.0.1", taken, "--port or API_PORT"),))
    message = str(caught.value)
    assert f"the API cannot listen on 127.0.0.1:{taken}: port {taken} is taken by " in message
    assert f"(process {os.getpid()})" in message
    assert message.endswith("choose another with --port or API_PORT")


def test_every_interface_collides_with_one(taken: int) -> None:
    assert "taken" in ports.bind_error("0.0.0.0", taken)


def test_two_services_on_one_port() -> None:
    port = ports.find_free_port("127.0.0.1")
    pair = PortBinding("the API", "127.0.0.1", port, "a"), PortBinding("Triton", "127.0.0.1", port, "b")
    with pytest.raises(CommandError, match="used twice, by the API and by Triton; choose another with b"):
        ports.check_ports(pair)


def test_an_address_of_another_machine() -> None:
    assert "cannot assign" in ports.bind_error("192.0.2.1", 8080)
    assert ports.bind_error("no.such.host.invalid", 8080)


def test_a_connection_in_time_wait_is_ignored() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as every server does
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        client.connect(("127.0.0.1", port))
        server.accept()[0].close()  # the side that closes first waits in TIME_WAIT
    assert ports.bind_error("127.0.0.1", port) == ""
