"""A model to measure: a shipped one, an exported folder, or a run that is not exported."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from perceiver_ar.checkpoint import load
from perceiver_ar.codecs.base import Codec
from perceiver_ar.model import PerceiverAR, from_params
from perceiver_ar.registry import resolve
from training.data.domain import Domain, domain_class
from training.devices import mesh
from training.state import CHECKPOINTS, Checkpoints, read_config

DOMAIN = "domain.json"
"""In an exported folder: the fields of the run's domain, of which the codec is only a part."""


class Opened(NamedTuple):
    """What is measured, and with which data."""

    model: PerceiverAR
    domain: Domain


def opened(name: str, best: bool = False) -> Opened:
    """The model of that name, or of a folder; of a run its newest checkpoint, or the best.

    Raises:
        FileNotFoundError: neither a shipped model nor a folder with one.
        ValueError: a damaged folder, or a run without a checkpoint.
    """
    folder = resolve(name)
    if (folder / CHECKPOINTS).is_dir():
        config = read_config(folder)
        state = Checkpoints(folder).read(config, mesh(), best=best, fresh=False)
        return Opened(from_params(config.model, state.weights), config.domain)
    found = load(name)
    return Opened(found.model, _domain(folder, found.codec, found.config.context))


def write_domain(domain: Domain, folder: Path) -> None:
    """Keep the domain's fields in an exported folder."""
    (folder / DOMAIN).write_text(json.dumps(domain.to_dict(), indent=1) + "\n")


def _domain(folder: Path, codec: Codec, context: int) -> Domain:
    """The codec's domain, with the fields that the run chose."""
    domain, path = domain_class(codec.name).of(codec, context), folder / DOMAIN
    if not path.is_file():
        return domain
    try:
        kept = json.loads(path.read_text())
        return replace(domain, **{name: kept[name] for name in kept.keys() - codec.to_dict().keys()})
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): export the run again") from error
