"""The peers as contestants, in an environment of their own: `perceiver-ar-pytorch`, and GPT-2 of `transformers`.

Both run eagerly and in float32, as their packages come.
"""
# These packages are not in the environment that the types are checked in.
# pyright: reportMissingImports=false

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from perceiver_ar_pytorch import PerceiverAR
from perceiver_ar_pytorch.autoregressive_wrapper import AutoregressiveWrapper
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from benchmarks.contest import Measurement, Shape, serve, steady

FIRST_DATA = 3


def prepare(task: dict[str, Any]) -> Callable[[], Measurement]:
    """What measures a task of `generate.py` (it has `tokens`), `learning.py` (`windows`) or `train_step.py`."""
    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    shape = Shape(**task["shape"])
    if "windows" in task:
        return learning(shape, task)
    if "steps" in task:
        return training(shape, task["peer"], task["steps"])
    if task["peer"] == "gpt2":
        return gpt2_generation(shape, task["tokens"])
    return perceiver_generation(shape, task["tokens"])


def gpt2(shape: Shape) -> GPT2LMHeadModel:
    """A decoder of the same width and heads, with a layer in the cross-attend's place; no dropout."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=shape.vocab,
            n_positions=shape.context,
            n_embd=shape.width,
            n_layer=shape.layers + 1,
            n_head=shape.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def perceiver(shape: Shape, prefix: int) -> PerceiverAR:
    """The other Perceiver AR; what lies behind the first `prefix` tokens are its latents."""
    return PerceiverAR(
        num_tokens=shape.vocab,
        dim=shape.width,
        depth=shape.layers,
        max_seq_len=shape.context,
        cross_attn_seq_len=prefix,
        dim_head=shape.width // shape.heads,
        heads=shape.heads,
        cross_attn_dropout=0.0,
    )


def random_tokens(shape: Shape, rows: int, length: int) -> torch.Tensor:
    """Data tokens, int64 (rows, length)."""
    return torch.randint(FIRST_DATA, shape.vocab, (rows, length))


def gpt2_generation(shape: Shape, count: int) -> Callable[[], Measurement]:
    """Seconds to the first token, and tokens a second of the `count` after it, with the cache of keys and values."""
    model = gpt2(shape).eval()
    primer = random_tokens(shape, 1, shape.primer)

    def draw(tokens: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        logits = model(tokens, cache=cache, use_cache=True, logits_to_keep=1).logits
        return torch.multinomial(logits[:, -1].softmax(-1), 1)

    @torch.inference_mode()
    def measure() -> Measurement:
        cache = DynamicCache(config=model.config)
        begin = time.perf_counter()
        token = draw(primer, cache)
        first = time.perf_counter() - begin
        begin = time.perf_counter()
        for _ in range(count):
            token = draw(token, cache)
        return {"first": first, "rate": count / (time.perf_counter() - begin)}

    return measure


def perceiver_generation(shape: Shape, count: int) -> Callable[[], Measurement]:
    """The same of the package's own `generate`, which runs the whole model again for every token.

    It begins with half as many latents as the config has, as this project does; all other tokens are its prefix.
    """
    model = AutoregressiveWrapper(perceiver(shape, shape.primer - shape.latents // 2))
    primer = random_tokens(shape, 1, shape.primer)

    @torch.inference_mode()
    def measure() -> Measurement:
        begin = time.perf_counter()
        token = model.generate(primer, 1, filter_thres=0.0)
        first = time.perf_counter() - begin
        longer = torch.cat([primer, token], dim=1)
        begin = time.perf_counter()
        model.generate(longer, count, filter_thres=0.0)
        return {"first": first, "rate": count / (time.perf_counter() - begin)}

    return measure


def student(shape: Shape, peer: str) -> tuple[Module, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """A peer to train, and what gives its loss and its mean NLL of the last `latents` targets.

    The two are one, but for GPT-2, which learns from all targets.
    """
    model = gpt2(shape) if peer == "gpt2" else perceiver(shape, shape.context - shape.latents)
    model.train()

    def losses(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if peer == "gpt2":
            nll = cross_entropy(model(inputs, use_cache=False).logits.mT, targets, reduction="none")
            return nll.mean(), nll[:, -shape.latents :].mean()
        nll = model(inputs, labels=targets)
        return nll, nll

    return model, losses


def training(shape: Shape, peer: str, steps: int) -> Callable[[], Measurement]:
    """Latents a second and seconds a step: forward, backward and Adam on one random batch.

    GPT-2 predicts the whole context; its rate counts the last `latents` of each example, as the others' does.
    """
    tokens = random_tokens(shape, shape.batch, shape.context + 1)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    model, losses = student(shape, peer)
    adam = torch.optim.Adam(model.parameters(), lr=3e-4)

    def one() -> None:
        adam.zero_grad()
        value, _ = losses(inputs, targets)
        value.backward()
        adam.step()
        assert torch.isfinite(value), "the loss is not finite"

    def measure() -> Measurement:
        seconds = steady(one, steps)
        return {"rate": shape.batch * shape.latents / seconds, "step": seconds}

    return measure


def learning(shape: Shape, task: dict[str, Any]) -> Callable[[], Measurement]:
    """The next steps on a run's windows: mean loss, NLL of held-out windows behind them, latents a second.

    Both NLLs are of the last `latents` of each window, which is what all contestants predict.
    """
    model, losses = student(shape, task["peer"])
    adam = torch.optim.Adam(model.parameters(), lr=task["rate"])
    rate = LambdaLR(adam, lambda step: min(step / task["warmup"], 1.0))
    steps = iter(torch.from_numpy(np.load(task["windows"]).astype(np.int64)))
    held_out = torch.from_numpy(np.load(task["held_out"]).astype(np.int64)).split(shape.batch)

    def measure() -> Measurement:
        begin, found = time.perf_counter(), []
        for _ in range(task["steps"]):
            windows = next(steps)
            adam.zero_grad()
            value, nll = losses(windows[:, :-1], windows[:, 1:])
            value.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            rate.step()
            found.append(nll.item())
        seconds = time.perf_counter() - begin
        with torch.inference_mode():
            looks = [losses(windows[:, :-1], windows[:, 1:])[1].item() for windows in held_out]
        return {
            "loss": sum(found) / len(found),
            "validation": sum(looks) / len(looks),
            "rate": task["steps"] * shape.batch * shape.latents / seconds,
        }

    return measure


if __name__ == "__main__":
    serve(prepare)
