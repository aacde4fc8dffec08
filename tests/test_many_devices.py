"""A run on eight devices, or in two processes, has the losses of a run on one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = [
    *(
        "copy_task_32",
        "--steps",
        "4",
        "--save-every",
        "4",
        "--evaluate-every",
        "4",
        "--evaluate-windows",
        "8",
    ),
    *("--domain.length", "16", "--domain.symbols", "5", "--model.vocab-size", "8", "--model.context", "16"),
    *("--model.latents", "8", "--model.width", "16", "--model.layers", "2", "--model.heads", "2"),
    *(
        "--model.cross-heads",
        "2",
        "--model.position-shape",
        "16",
        "--model.dropout",
        "0",
        "--optim.warmup",
        "1",
        "--optim.decay",
        "0",
    ),
    *("--stages.0.context", "16", "--stages.0.batch", "16"),
]


def start(workdir: Path, *more: str, devices: int = 1) -> subprocess.Popen:
    """A run in a process of its own, which sees so many CPU devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "training", *RUN, "--workdir", str(workdir), *more],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(workdir: Path, *runs: subprocess.Popen) -> list[float]:
    """The run's figures when all its processes have ended: mean training loss, and validation NLL."""
    for run in runs:
        _, said = run.communicate(timeout=240)
        assert run.returncode == 0, said
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = {name: value for line in lines for name, value in line.items()}
    return [found["loss"], found["validation_nll"]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    workdir = tmp_path_factory.mktemp("alone")
    return losses(workdir, start(workdir))


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--shard", "--accumulate", "2"]], ids=["whole", "sharded, in parts"])
def test_eight_devices_agree_with_one(alone: list[float], more: list[str], tmp_path: Path) -> None:
    assert losses(tmp_path, start(tmp_path, *more, devices=8)) == pytest.approx(alone, abs=1e-5)


@pytest.mark.slow
def test_two_processes_agree_with_one(alone: list[float], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = ["--cluster.coordinator", f"127.0.0.1:{port}", "--cluster.processes", "2"]
    runs = [start(tmp_path, *cluster, "--cluster.process", str(number), "--shard") for number in range(2)]
    assert losses(tmp_path, *runs) == pytest.approx(alone, abs=1e-5)
