"""Network addresses: loopback, and the URLs of the services as seen from this machine."""

from ipaddress import ip_address

from gemma_launcher.settings import LauncherSettings

LOOPBACK = "127.0.0.1"


def api_url(settings: LauncherSettings) -> str:
    """The gateway's base URL, as seen from this machine."""
    return _local_url(settings.api_host, settings.api_port)


def playground_url(settings: LauncherSettings) -> str:
    """The playground's URL, as seen from this machine."""
    return _local_url(settings.playground_host, settings.playground_port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on ``host``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _local_url(host: str, port: int) -> str:
    host = {"0.0.0.0": LOOPBACK, "::": "::1", "": LOOPBACK}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
