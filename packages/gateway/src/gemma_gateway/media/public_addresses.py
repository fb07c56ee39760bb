"""Which IP addresses are public, as opposed to internal networks."""

import ipaddress
import re
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
# Python's own list of special networks differs between its versions; these are always refused.
_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; metadata service of some clouds
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's services for virtual machines
        "169.254.0.0/16",  # link-local; metadata service of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "2001::/23",  # protocol assignments; Teredo embeds an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4 embeds an IPv4 address
        "3fff::/20",
    )
)
_NAME: Final = re.compile(r"[a-z0-9_.-]{1,253}")
_NUMERIC: Final = re.compile(r"(?:\d+|0x[0-9a-f]*)")


def is_public(address: Address) -> bool:
    """Whether an address is public.

    For IPv6 only global unicast is public. This excludes loopback, unique local, link-local, site-local and
    multicast addresses, and those that embed an IPv4 address (mapped, compatible, NAT64).
    """
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    listed = any(address in network for network in _NOT_PUBLIC if network.version == address.version)
    return address.is_global and not listed


def is_canonical_host(host: str) -> bool:
    """Whether a host is a name, or an address in its usual notation.

    ``2130706433``, ``0x7f.1`` and ``0177.0.0.1`` are 127.0.0.1 to a resolver.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _NAME.fullmatch(host) is not None and _NUMERIC.fullmatch(host.rpartition(".")[2]) is None
    return True
