#!/usr/bin/env python3
"""SpikingJelly 2.0.0 on the PyTorch that spiketrace runs on, in an environment of its own: for `compare` and
`interop-check`, which import this."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTORCH = {"0.24": "2.11.0", "0.25": "2.12.0", "0.26": "2.13.0"}


def wanted_pytorch():
    lock = (ROOT / "Cargo.lock").read_text()
    version = lock.split('name = "tch"\nversion = "')[1].split('"')[0]
    return PYTORCH[version.rsplit(".", 1)[0]]


def reference_python():
    """A Python with the reference: COMPARE_PYTHON, or target/compare-env, which the first call makes (3 GB)."""
    torch = wanted_pytorch()
    python = os.environ.get("COMPARE_PYTHON")
    if not python:
        folder = ROOT / "target/compare-env"
        python = str(folder / "bin/python")
        packages = [f"torch=={torch}", "spikingjelly==2.0.0", "safetensors"]
        done = folder / "packages"
        if not done.exists() or done.read_text() != " ".join(packages):
            print(f"making {folder.relative_to(ROOT)} with {', '.join(packages)}", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
            done.write_text(" ".join(packages))
    found = subprocess.run([python, "-c", "import torch; print(torch.__version__.split('+')[0])"],
                           capture_output=True, text=True, check=True).stdout.strip()
    if found != torch:
        sys.exit(f"{python} has PyTorch {found}, but ours runs on {torch}; install that there")
    return python


def our_binary(bench, *options, root=ROOT):
    """The binary of one of our benches, built of the sources in `root`."""
    command = [ROOT / "scripts/with-libtorch", "cargo", "bench", "--no-run", "--bench", bench, *options]
    build = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if build.returncode:
        sys.exit(build.stderr)
    return root / build.stderr.rsplit("(", 1)[1].split(")")[0]
