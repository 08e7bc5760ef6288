"""Run every benchmark, one process each, so that none inherits another's warm caches.

python benchmarks/run.py [options of metrics.py]
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

for script, options in (("cave", []), ("training", []), ("alignment", []), ("weights", []), ("metrics", sys.argv[1:])):
    print(f"== {script}", flush=True)
    subprocess.run([sys.executable, HERE / f"{script}.py", *options], check=True)
