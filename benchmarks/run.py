"""Run every benchmark, one process each, so that none inherits another's warm caches."""

import subprocess
import sys
from pathlib import Path

for script in sorted(Path(__file__).parent.glob("*.py")):
    if script.name != "run.py":
        print(f"== {script.stem}", flush=True)
        subprocess.run([sys.executable, script], check=True)
