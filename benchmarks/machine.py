"""In words, what the timings were taken on: printed as JSON, in a process of its own."""

import json
import os
from importlib import metadata
from pathlib import Path

NAMED = ("torch", "numpy", "scipy", "scikit-learn", "POT")  # what ours is made of, and peers too


def peers() -> list[str]:
    """Packages that are installed for the benchmark only."""
    lines = (Path(__file__).parent / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("==")[0] for line in lines if "==" in line]


def versions() -> dict[str, str]:
    """Name -> version, or "not installed"."""
    found = {}
    for name in (*NAMED, *peers()):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def linear_algebra() -> str:
    """The BLAS of NumPy, SciPy and torch and the kernels each chose for this processor."""
    import numpy  # noqa: F401  # loads its library, which is then listed
    import scipy.linalg  # noqa: F401
    import torch

    chosen = {torch.backends.cpu.get_cpu_capability()}
    text = f"torch: {'MKL' if torch.backends.mkl.is_available() else 'no MKL'}, {chosen.pop()}"
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        return text
    blas = [entry for entry in threadpool_info() if entry["user_api"] == "blas"]
    owners = {"numpy" if "numpy" in entry["filepath"] else "SciPy": entry for entry in blas}
    for owner, entry in sorted(owners.items()):
        text += (
            f"; {owner.replace('numpy', 'NumPy')}: {entry['internal_api']} {entry['version']}, {entry['architecture']}"
        )
    return text


def describe() -> dict[str, str]:
    """Processor, cores, memory, software: no path, no name of the machine."""
    from convergent import results

    told = results.provenance("benchmarks")
    kept = {name: told[name] for name in ("code", "device", "date")}
    installed = ", ".join(f"{name} {version}" for name, version in versions().items())
    software = told["software"].split(",")[0]
    return kept | {
        "software": f"{software}, {installed}",
        "linear algebra": linear_algebra(),
        "cores": str(os.cpu_count()),
    }


if __name__ == "__main__":
    print(json.dumps(describe()))
