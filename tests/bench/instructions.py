"""Instructions that `volctl` takes from its start to its end, beside those of the baseline that is kept here.

They don't shake with the machine's load. UPDATE_BASELINE=1 keeps the new ones.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

BASELINE = Path(__file__).with_name("instructions.json")
# What moves by less says nothing: ids and times differ from run to run.
MOVED = 0.01


def count(volctl, words, environment):
    watched = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", volctl, *words]
    said = subprocess.run(watched, env={**os.environ, **environment}, check=True, capture_output=True, text=True).stderr
    return int(re.search(r"Collected : (\d+)", said)[1])


def compare(appliance, commands):
    """Counts each command, and gives the rows of a table: name, count, and how much that moved."""
    counted = {
        name: count(appliance.programs / "volctl", words, appliance.environment) for name, words in commands.items()
    }
    kept = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if os.environ.get("UPDATE_BASELINE"):
        BASELINE.write_text(json.dumps(counted, indent=4) + "\n")
        print(f"bench: kept in {BASELINE}", file=sys.stderr)
    return [(name, number, moved(number, kept.get(name))) for name, number in counted.items()]


def moved(number, before):
    if not before:
        return "new"
    change = number / before - 1
    return f"{change:+.1%} of {before:,}" if abs(change) > MOVED else f"as before ({before:,})"
