"""`docs/add-a-domain.md`, followed to the letter."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "add-a-domain.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_three_files_add_a_domain(tmp_path: Path) -> None:
    for package in ("perceiver_ar", "training"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    files = re.findall(r"^`(\S+\.py)`:\n\n```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(files) == 4
    for name, source in files:
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(source)
    [commands] = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    printed = ""
    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        assert program == "python"
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed = done.stdout
    found = json.loads(printed)
    assert found["bits_per_base"] < 0.6
    assert len(list((tmp_path / "seen").iterdir())) == 2
