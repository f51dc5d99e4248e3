"""Audit the packages of this environment against known vulnerabilities; fail if one of them could not be audited.

    python tests/audit.py PIP_AUDIT [FOLDER]

PIP_AUDIT is the program, in an environment of its own; FOLDER holds the packages, by default those of this Python.
pip-audit alone succeeds where the advisory service does not know a package, even if it knows none.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions

#: This package, which no index has.
OWN = "ean-zoo"


def main(program: str, folder: str) -> str | None:
    """Run pip-audit; return the reason to fail, or None if every package was audited and has no known vulnerability."""
    installed = {_normalized(found.metadata["Name"]) for found in distributions(path=[folder])} - {OWN}
    done = subprocess.run(
        [program, "--format", "json", "--progress-spinner", "off", "--path", folder],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError, TypeError):
        return f"nothing was audited: pip-audit ended with {done.returncode} and no report"
    vulnerable = [
        f"{each['name']} {each['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no version'}"
        for each in found
        for flaw in each.get("vulns", [])
    ]
    audited = {_normalized(each["name"]) for each in found if "skip_reason" not in each}
    missed = sorted(installed - audited)
    print(f"{len(audited & installed)} of {len(installed)} packages audited, {len(vulnerable)} known vulnerabilities")
    if missed:
        vulnerable.append(f"not audited: {', '.join(missed)}")
    if not installed:
        vulnerable.append(f"there are no packages in {folder}")
    if done.returncode and not vulnerable:
        vulnerable.append(f"pip-audit ended with {done.returncode}")
    return "\n".join(vulnerable) or None


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else sysconfig.get_path("purelib")))
