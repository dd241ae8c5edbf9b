"""What scripts/faults and scripts/drill have in common: test binaries, one test a process, and tables in documents."""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def build(name):
    """The test binary of that name."""
    command = ["cargo", "test", "--locked", "--no-run", "--message-format=json-render-diagnostics", "--test", name]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    messages = (json.loads(line) for line in built.splitlines())
    return next(made["executable"] for made in messages if made.get("executable") and made["profile"]["test"])


def start(executable, test, rows, **options):
    """One test, alone in a process: nothing of one fault may be left for the next."""
    command = [executable, "--exact", test, "--nocapture", "--test-threads=1"]
    # Debian keeps haproxy where only root looks.
    environment = os.environ | rows | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", **options,
    )


def machine(build="debug build"):
    cores, memory = os.cpu_count(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    today = datetime.date.today().isoformat()
    kind = f"{platform.system()} {platform.machine()}"
    return f"Measured on {today}: {cores} cores, {memory:.0f} GiB, {kind}, {build}, everything on one machine."


def table(heads, rows):
    cell = lambda text: str(text).replace("|", "\\|")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows])


def keep(document, name, text):
    """Puts the text between <!-- name --> and <!-- /name -->."""
    place = re.compile(rf"(<!-- {name} -->\n).*(<!-- /{name} -->)", re.DOTALL)
    before = document.read_text()
    if not place.search(before):
        sys.exit(f"{name}: {document.name} has no place for the table")
    document.write_text(place.sub(lambda match: match[1] + text + "\n" + match[2], before))
