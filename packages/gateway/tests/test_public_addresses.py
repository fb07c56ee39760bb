"""Which hosts and addresses are public."""

import ipaddress

import pytest

from gemma_gateway.media.public_addresses import is_canonical_host, is_public

PUBLIC = "93.184.215.14"


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
        *("168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1"),
        *("192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
        *("239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:93.184.215.14", "64:ff9b::7f00:1"),
        *("64:ff9b::5db8:d70e", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:5db8:d70e::1", "2001:10::1"),
        *("2001:db8::1", "2002:7f00:1::", "2002:5db8:d70e::1", "3fff::1", "5f00::1", "fc00::1"),
        *("fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1"),
    ],
)
def test_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", [PUBLIC, "1.1.1.1", "172.32.0.1", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


def test_odd_hosts() -> None:
    odd = (
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "1.2.3",
        "a b",
        "%5b",
        "",
    )
    assert [host for host in odd if is_canonical_host(host)] == []
    usual = ("example.org", "1.example.org", "a_b-c.example", PUBLIC, "::1", "a1")
    assert [host for host in usual if not is_canonical_host(host)] == []
