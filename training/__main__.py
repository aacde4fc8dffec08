"""`python -m training PRESET --data ARCHIVE --workdir DIR`: train; the same command again resumes."""

import importlib
import pkgutil
import sys
from typing import Annotated

import tyro

from training import presets
from training.config import Paths, TrainConfig
from training.loop import Diverged, train


def main() -> int:
    """Train a preset; its fields can be overridden."""
    names = [module.name for module in pkgutil.iter_modules(presets.__path__)]
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        print(f"usage: python -m training {{{','.join(names)}}} --help", file=sys.stderr)
        return 2
    preset: TrainConfig = importlib.import_module(f"training.presets.{sys.argv[1]}").PRESET

    unnamed = tyro.conf.arg(name="")

    def run(paths: Annotated[Paths, unnamed], config: Annotated[TrainConfig, unnamed] = preset) -> int:
        try:
            train(config, paths)
        except (ValueError, OSError, Diverged) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    return tyro.cli(run, args=sys.argv[2:], prog=f"python -m training {sys.argv[1]}")


if __name__ == "__main__":
    sys.exit(main())
