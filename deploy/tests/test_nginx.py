"""The nginx configuration, by a real nginx with a certificate made for the test, before the real stack."""

import base64
import getpass
import hashlib
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from stack import ROOT, eventually, free_ports, running

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = [
    pytest.mark.skipif(not NGINX or not shutil.which("openssl"), reason="nginx or openssl is not installed"),
    pytest.mark.xdist_group("nginx"),
]
KEY, NAMES = "sk-of-the-api", ("api.example.org", "play.example.org")


@dataclass(frozen=True)
class Proxy:
    """nginx on a port of the loopback."""

    port: int
    certificate: Path

    def client(self, name: str, key: str = "", auth: tuple[str, str] | None = None) -> httpx.Client:
        """A client that reaches this port under the public name, with a key of the API or a password."""
        tls = ssl.create_default_context(cafile=str(self.certificate))
        transport = httpx.HTTPTransport(verify=tls)
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            headers={"Host": name, **({"Authorization": f"Bearer {key}"} if key else {})},
            auth=auth,
            transport=transport,
            timeout=60,
            trust_env=False,
        )


def configuration(folder: Path, port: int, api_port: int, playground_port: int) -> str:
    """The file as it is delivered, with the ports and paths of this test."""
    text = (ROOT / "deploy" / "nginx" / "gemma-triton.conf").read_text(encoding="utf-8")
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("127.0.0.1:8080", f"127.0.0.1:{api_port}"),
        ("127.0.0.1:7860", f"127.0.0.1:{playground_port}"),
        ("/etc/nginx/playground.htpasswd", f"{folder}/htpasswd"),
    ):
        assert old in text
        text = text.replace(old, new)
    text = re.sub(r"/etc/nginx/tls/\S+\.(crt|key);", rf"{folder}/tls.\1;", text)
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy"))
    unused = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("fastcgi", "uwsgi", "scgi"))
    head = f"user {getpass.getuser()};\ndaemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
    return f"{head}events {{}}\nhttp {{\naccess_log off;\n{paths}{unused}{text}}}\n"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("nginx")
    names = ",".join(f"DNS:{name}" for name in NAMES)
    subject = ("-subj", "/CN=test", "-addext", f"subjectAltName={names},IP:127.0.0.1")
    files = ("-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt")
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files)
    subprocess.run(command, check=True, capture_output=True)
    digest = base64.b64encode(hashlib.sha1(b"secret").digest()).decode()
    (folder / "htpasswd").write_text(f"guest:{{SHA}}{digest}\n", encoding="utf-8")
    with running(folder / "log", playground=True, API_KEYS=KEY, PLAYGROUND_ALLOWED_HOSTS=NAMES[1]) as stack:
        (port,) = free_ports(1)
        text = configuration(folder, port, stack.api_port, stack.playground_port)
        (folder / "nginx.conf").write_text(text, encoding="utf-8")
        assert NGINX
        process = subprocess.Popen([NGINX, "-p", str(folder), "-c", f"{folder}/nginx.conf"])
        try:
            proxy = Proxy(port, folder / "tls.crt")
            assert eventually(lambda: _is_ready(proxy, process), 60), (folder / "error.log").read_text()
            yield proxy
        finally:
            process.terminate()
            process.wait(30)


def _is_ready(proxy: Proxy, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "nginx ended"
    try:
        with proxy.client(NAMES[1], auth=("guest", "secret")) as client:
            return client.get("/").is_success
    except httpx.HTTPError:
        return False


def test_tokens_come_one_by_one_through_nginx(proxy: Proxy) -> None:
    body = {"model": "gemma3n", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 24}
    with proxy.client(NAMES[0], key=KEY) as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        body |= {"max_tokens": 400, "ignore_eos": True}  # more than a client reads at once
        with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as stream:
            pieces = [piece for piece in stream.iter_raw() if piece.startswith(b"data: ")]
    assert len(pieces) > 3, "nginx does not collect the stream"
    assert pieces[-1].endswith(b"data: [DONE]\n\n")


def test_the_api_asks_for_its_key_and_tells_no_metrics(proxy: Proxy) -> None:
    with proxy.client(NAMES[0]) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/metrics").status_code == 404
        assert client.get("/health").status_code == 200


def test_a_body_may_be_as_large_as_the_api_allows(proxy: Proxy) -> None:
    """nginx's own limit is 1 MB; an image of a camera has more."""
    image = "data:image/png;base64," + "A" * 3_000_000
    parts = [{"type": "image_url", "image_url": {"url": image}}]
    body = {"model": "gemma3n", "messages": [{"role": "user", "content": parts}]}
    with proxy.client(NAMES[0], key=KEY) as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert (answer.status_code, "error" in answer.json()) == (400, True)


def test_the_playground_asks_for_a_password(proxy: Proxy) -> None:
    with proxy.client(NAMES[1]) as client:
        assert client.get("/").status_code == 401
    with proxy.client(NAMES[1], auth=("guest", "secret")) as client:
        assert "text/html" in client.get("/").headers["content-type"]
        assert client.get("/config").is_success
        origin = {"Origin": f"https://{NAMES[1]}", "Sec-Fetch-Site": "same-origin"}
        upload = client.post("/gradio_api/upload", headers=origin, files={"files": ("a.png", b"\x89PNG")})
        assert upload.status_code == 200, upload.text
