"""Which addresses belong to the public Internet, and to nobody's inner network."""

import ipaddress
import re
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
# Python knows most of the special networks, but each of its versions others; these are refused by any.
_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers; some clouds keep their metadata here
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's own services, as a virtual machine sees them
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "2001::/23",  # protocol assignments, Teredo among them: an IPv4 address in disguise
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",
    )
)
_NAME: Final = re.compile(r"[a-z0-9_.-]{1,253}")
_NUMERIC: Final = re.compile(r"(?:\d+|0x[0-9a-f]*)")


def is_public(address: Address) -> bool:
    """Whether it can be fetched from.

    Of IPv6 only global unicast can be: loopback, unique local, link-local, site-local and multicast addresses
    are outside of it, and so are the disguises of IPv4 ones (mapped, compatible, NAT64).
    """
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    listed = any(address in network for network in _NOT_PUBLIC if network.version == address.version)
    return address.is_global and not listed


def is_usual(host: str) -> bool:
    """Whether a host is an address or a name, each written as it usually is.

    ``2130706433``, ``0x7f.1`` and ``0177.0.0.1`` are 127.0.0.1 to a resolver; nobody writes a URL so.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _NAME.fullmatch(host) is not None and _NUMERIC.fullmatch(host.rpartition(".")[2]) is None
    return True
