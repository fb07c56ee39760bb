"""Stand-ins for the base images, made from Debian's packages, where no registry of images is reached.

``python deploy/tests/base_images.py FOLDER``: three images in buildah's store in FOLDER. They have the
layout of the originals, as far as the Dockerfiles and docker-compose.yml depend on it: Python 3.11 in place
of 3.12; the Triton of the ``nvidia-pytriton`` wheel, without CUDA, in place of NVIDIA's; Debian's Prometheus.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gemma_launcher.processes import triton_server

PYTHON = "localhost/python:stand-in"
TRITON = "nvcr.io/nvidia/tritonserver:stand-in"
PROMETHEUS = "localhost/prometheus:stand-in"
SUITE = "bookworm"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
NEEDED = ("buildah", "debootstrap")
UNUSED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")

KEEPS_NO_PACKAGES = """DPkg::Post-Invoke {"rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin";};\n"""
"""A setting of apt, as in the original images of Ubuntu and Debian: an installed package is deleted."""


@dataclass(frozen=True)
class Buildah:
    """Buildah with its images in a folder of their own."""

    folder: Path

    def command(self, *arguments: str | Path) -> list[str | Path]:
        """The command line."""
        store = ("--root", self.folder / "store", "--runroot", self.folder / "run")
        return ["buildah", *store, "--storage-driver", "overlay", *arguments]

    def __call__(self, *arguments: str | Path) -> str:
        """Run one command; its output.

        Raises:
            RuntimeError: it failed; with what it said last.
        """
        run = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise RuntimeError(f"buildah {arguments[0]}: {(run.stdout + run.stderr)[-4000:]}")
        return run.stdout.strip()

    def unmount(self) -> None:
        """Undo the bind mount that a build may leave on its store, so that the folder can be deleted."""
        subprocess.run(["umount", self.folder / "store" / "overlay"], check=False, capture_output=True)

    def has(self, image: str) -> bool:
        """Whether the image is there."""
        return image in self("images", "--format", "{{.Name}}:{{.Tag}}").split()

    @contextmanager
    def changed(self, base: str, image: str) -> Iterator[str]:
        """A container of the base; what it is in the end becomes the image."""
        container = self("from", "--pull-never", base)
        try:
            yield container
            self("commit", "--format", "docker", container, image)
        finally:
            self("rm", container)

    def install(self, container: str, *packages: str) -> None:
        """Install Debian's packages, and leave no package lists."""
        script = (
            "apt-get update -qq && apt-get install -qq --no-install-recommends "
            f"{' '.join(packages)} >/dev/null && rm -rf {' '.join('/' + path + '/*' for path in UNUSED)}"
        )
        self("run", "--isolation", "chroot", "--network", "host", container, "--", "sh", "-euc", script)


def make_python(buildah: Buildah) -> None:
    """Python with venv, as in ``python:3.12-slim``; it trusts the certificates that this machine trusts."""
    with buildah.changed("scratch", PYTHON) as container:
        root = Path(buildah("mount", container))
        packages = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(
            ["debootstrap", "--variant=minbase", packages, SUITE, root], check=True, stdout=subprocess.DEVNULL
        )
        for path in UNUSED:
            shutil.rmtree(root / path)
            (root / path).mkdir()
        shutil.copyfile(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        trusted = (
            f"--env={name}={CERTIFICATES}" for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
        )
        buildah("config", *trusted, "--cmd", json.dumps(["python3"]), container)
        buildah("unmount", container)


def make_triton(buildah: Buildah) -> None:
    """The server of the wheel in ``/opt/tritonserver``, as NVIDIA's image has it."""
    wheel = triton_server.find_wheel()
    with buildah.changed(PYTHON, TRITON) as container:
        buildah.install(container, "libpython3.11", "libnuma1", "libb64-0d", "libcurl4", "libgomp1")
        root = Path(buildah("mount", container))
        (root / "etc/apt/apt.conf.d/docker-clean").write_text(KEEPS_NO_PACKAGES, encoding="utf-8")
        home = root / "opt/tritonserver"
        backend = home / "backends/python"
        shutil.copytree(wheel.backend, backend)
        shutil.copytree(wheel.libraries, home / "lib")
        (home / "bin").mkdir()
        for program, folder in ((wheel.server, home / "bin"), (wheel.stub, backend)):
            shutil.copyfile(program, folder / program.name)
            (folder / program.name).chmod(0o755)
        buildah("unmount", container)
        path = "/opt/tritonserver/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        buildah(
            *("config", f"--env=PATH={path}", "--env=LD_LIBRARY_PATH=/opt/tritonserver/lib"),
            *("--workingdir", "/opt/tritonserver", container),
        )


def make_prometheus(buildah: Buildah) -> None:
    """Debian's Prometheus, with the user, the folder and the entrypoint of ``prom/prometheus``.

    Debian changed the default folder of the data.
    """
    with buildah.changed(PYTHON, PROMETHEUS) as container:
        buildah.install(container, "prometheus", "wget")
        data = "mkdir -p /prometheus && chown nobody:nogroup /prometheus"
        buildah("run", "--isolation", "chroot", container, "--", "sh", "-euc", data)
        buildah(
            *("config", "--user", "nobody", "--workingdir", "/prometheus", "--volume", "/prometheus"),
            *("--entrypoint", json.dumps(["/bin/prometheus", "--storage.tsdb.path=data/"]), container),
        )


def make(buildah: Buildah) -> None:
    """Make the images that are not there yet."""
    for image, how in ((PYTHON, make_python), (TRITON, make_triton), (PROMETHEUS, make_prometheus)):
        if not buildah.has(image):
            how(buildah)


if __name__ == "__main__":
    make(Buildah(Path(sys.argv[1]).resolve()))
