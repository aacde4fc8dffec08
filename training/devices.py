"""Where a run's arrays lie: examples spread over all devices, the state whole on each of them or spread as well."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental.multihost_utils import sync_global_devices
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


def mesh() -> Mesh:
    """All devices of all processes along one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), (jax.sharding.AxisType.Auto,))


def whole(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """A share of the examples on every device."""
    return NamedSharding(mesh, PartitionSpec("data"))


def placed(tree: Tree, mesh: Mesh, shard: bool) -> Tree:
    """A sharding for every array (or its shape) of a tree.

    Spread arrays are cut along their longest axis that the devices divide evenly (Rajbhandari et al. 2020, stage 3; XLA
    gathers each when it is used); those without one, a norm's on many devices say, are whole on each.
    """
    devices = mesh.size

    def place(x: Any) -> NamedSharding:
        axes = [axis for axis, size in enumerate(x.shape) if shard and size % devices == 0]
        if not axes:
            return whole(mesh)
        longest = max(axes, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "data"))

    return jax.tree.map(place, tree)


def rows(batch: int) -> range:
    """Which examples of a batch are this process's.

    Raises:
        ValueError: the devices do not divide the batch.
    """
    if batch % jax.device_count():
        raise ValueError(
            f"a batch of {batch} examples cannot be shared evenly by {jax.device_count()} devices"
        )
    mine = batch // jax.process_count()
    return range(jax.process_index() * mine, (jax.process_index() + 1) * mine)


def spread(tree: Any, mesh: Mesh) -> Any:
    """Arrays of this process's examples as parts of the whole batch's arrays."""
    sharding = by_example(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def gathered(tree: Tree, mesh: Mesh) -> Tree:
    """The arrays, whole, on this process's first device: for work that processes do each on their own."""
    everywhere = jax.jit(lambda x: x, out_shardings=whole(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), everywhere)


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through this before any other begins it, so that they need not all make the same files."""
    if jax.process_index():
        sync_global_devices("the first process is through")
    try:
        yield
    finally:  # what the first process cannot do the others will find out as well, rather than wait for ever
        if not jax.process_index():
            sync_global_devices("the first process is through")


@dataclass(frozen=True)
class Cluster:
    """The processes of a run on several machines, each started with the same command."""

    coordinator: str | None = None
    """Address and port of the first process, such as `10.0.0.1:1234`; `auto` where Slurm, Kubernetes or Cloud TPUs
    tell it, and the rest; None on one machine. All of them share the workdir."""
    processes: int | None = None
    """How many there are."""
    process: int | None = None
    """This one's number, from 0."""

    def join(self) -> None:
        """Wait for the others; to be called before anything is computed.

        Raises:
            ValueError: processes without a coordinator.
        """
        if self.coordinator == "auto":
            jax.distributed.initialize()
        elif self.coordinator:
            jax.distributed.initialize(self.coordinator, self.processes, self.process)
        elif self.processes is not None or self.process is not None:
            raise ValueError(
                "processes must find each other: give --cluster.coordinator ADDRESS:PORT as well"
            )
