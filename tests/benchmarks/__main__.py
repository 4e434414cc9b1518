"""All benchmarks, one after the other, and a table of their ratios."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

from tests import benchmarks

NOT_BENCHMARKS = {"__main__", "harness"}


def main() -> int:
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    failed = 0
    for name in names:
        if name in NOT_BENCHMARKS:
            continue
        command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        failed += done.returncode != 0
        found = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else {}
        print(name, json.dumps(found) if found else "FAILED", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
