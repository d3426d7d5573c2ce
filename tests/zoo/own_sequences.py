"""Multi-task networks for tables and sequences, in plain torch: mixtures of experts, recurrent networks, transformers.

As in own_dense.py every class is the smallest network that has the couplings of its paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Experts(nn.Module):
    """`count` two-layer networks over the same input, in one of three spellings: einsum, bmm, modules."""

    def __init__(self, inputs: int, hidden: int, outputs: int, count: int, spelling: str) -> None:
        super().__init__()
        self.spelling, self.count = spelling, count
        if spelling == "modules":
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs), nn.ReLU()) for _ in range(count)
            )
            return
        self.first = nn.Parameter(torch.randn(count, inputs, hidden) / inputs**0.5)
        self.first_bias = nn.Parameter(torch.randn(count, 1, hidden) / 8)
        self.second = nn.Parameter(torch.randn(count, hidden, outputs) / hidden**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Of (batch, inputs): (batch, experts, outputs)."""
        if self.spelling == "modules":
            return torch.stack([expert(x) for expert in self.experts], 1)
        if self.spelling == "einsum":
            hidden = F.relu(torch.einsum("bi,eih->beh", x, self.first) + self.first_bias.squeeze(1))
            return F.relu(torch.einsum("beh,eho->beo", hidden, self.second))
        hidden = F.relu(torch.bmm(x.unsqueeze(0).expand(self.count, -1, -1), self.first) + self.first_bias)
        return F.relu(torch.bmm(hidden, self.second)).transpose(0, 1)


class Mmoe(nn.Module):
    """Experts shared by all tasks and a softmax gate per task (Ma et al., KDD 2018)."""

    def __init__(self, spelling: str, inputs: int = 24, width: int = 32, experts: int = 4, tasks: int = 2) -> None:
        super().__init__()
        self.experts = Experts(inputs, 2 * width, width, experts, spelling)
        self.gates = nn.ModuleList(nn.Linear(inputs, experts, bias=False) for _ in range(tasks))
        self.towers = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)) for _ in range(tasks))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """One probability per task."""
        experts = self.experts(features)
        results = []
        for gate, tower in zip(self.gates, self.towers):
            weights = torch.softmax(gate(features), -1)
            mixed = torch.einsum("be,beo->bo", weights, experts)
            results.append(torch.sigmoid(tower(mixed)))
        return tuple(results)


class Extraction(nn.Module):
    """One level of PLE: experts per task and shared ones; every task mixes its own and the shared, the shared mix all."""

    def __init__(self, spelling: str, inputs: int, width: int, experts: int, tasks: int, last: bool) -> None:
        super().__init__()
        self.own = nn.ModuleList(Experts(inputs, 2 * width, width, experts, spelling) for _ in range(tasks))
        self.shared = Experts(inputs, 2 * width, width, experts, spelling)
        self.gates = nn.ModuleList(nn.Linear(inputs, 2 * experts) for _ in range(tasks))
        self.shared_gate = None if last else nn.Linear(inputs, (tasks + 1) * experts)

    def forward(self, streams: list[Tensor]) -> list[Tensor]:
        """The streams of the tasks, and after them the shared one unless this level is the last."""
        own = [experts(x) for experts, x in zip(self.own, streams)]
        shared = self.shared(streams[-1])
        mixed = []
        for gate, x, experts in zip(self.gates, streams, own):
            weights = torch.softmax(gate(x), -1).unsqueeze(-1)
            mixed.append((weights * torch.cat([experts, shared], 1)).sum(1))
        if self.shared_gate is not None:
            weights = torch.softmax(self.shared_gate(streams[-1]), -1).unsqueeze(1)
            mixed.append(torch.matmul(weights, torch.cat([*own, shared], 1)).squeeze(1))
        return mixed


class Ple(nn.Module):
    """Progressive layered extraction with two levels (Tang et al., RecSys 2020)."""

    def __init__(self, spelling: str, inputs: int = 24, width: int = 24, experts: int = 2, tasks: int = 3) -> None:
        super().__init__()
        self.tasks = tasks
        self.first = Extraction(spelling, inputs, width, experts, tasks, last=False)
        self.second = Extraction(spelling, width, width, experts, tasks, last=True)
        self.towers = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)) for _ in range(tasks))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """One number per task."""
        streams = self.second(self.first([features] * (self.tasks + 1)))
        return tuple(tower(x) for tower, x in zip(self.towers, streams))


class TopKExperts(nn.Module):
    """A mixture in which only the k best experts of a row count (Shazeer et al., arXiv 1701.06538), and two heads."""

    def __init__(self, inputs: int = 24, width: int = 32, experts: int = 4, k: int = 2) -> None:
        super().__init__()
        self.k = k
        self.embed = nn.Linear(inputs, width)
        self.gate = nn.Linear(width, experts)
        self.experts = Experts(width, 2 * width, width, experts, "einsum")
        self.a, self.b = nn.Linear(width, 3), nn.Linear(width, 2)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of both tasks."""
        x = F.gelu(self.embed(features))
        scores = self.gate(x)
        best, places = torch.topk(scores, self.k, dim=-1)
        weights = torch.zeros_like(scores).scatter(-1, places, torch.softmax(best, -1))
        x = x + (weights.unsqueeze(-1) * self.experts(x)).sum(1)
        return self.a(x), self.b(x)


class BiLstmGru(nn.Module):
    """Two bidirectional LSTM layers and a GRU, a label per step and one for all of them."""

    def __init__(self, words: int = 60, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(2 * width, width, batch_first=True)
        self.labels, self.kind = nn.Linear(2 * width, 7), nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 4))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, steps, labels) and (batch, kinds)."""
        x, _ = self.lstm(self.embed(tokens))
        y, last = self.gru(x)
        return self.labels(x), self.kind(last[0] + y.mean(1))


class Transducer(nn.Module):
    """An RNN transducer (Graves, arXiv 1211.3711): encoder, prediction network, joint network; and speaker scores."""

    def __init__(self, inputs: int = 20, width: int = 24, symbols: int = 12) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv1d(inputs, width, 3, 2, 1), nn.BatchNorm1d(width), nn.ReLU())
        self.encoder = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.embed = nn.Embedding(symbols, width)
        self.prediction = nn.LSTM(width, width, batch_first=True)
        self.left, self.right = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width, bias=False)
        self.joint, self.speaker = nn.Linear(2 * width, symbols), nn.Linear(width, 5)

    def forward(self, audio: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, symbols said, symbols) and (batch, speakers)."""
        heard, (last, _) = self.encoder(self.before(audio).transpose(1, 2))
        context, _ = self.prediction(self.embed(said))
        both = torch.tanh(self.left(heard).unsqueeze(2) + self.right(context).unsqueeze(1))
        return torch.log_softmax(self.joint(both), -1), self.speaker(last[-1])


class Attention(nn.Module):
    """Multi-head attention over (batch, steps, width) with separate or fused projections."""

    def __init__(self, width: int, heads: int, fused: bool = False) -> None:
        super().__init__()
        self.heads, self.each = heads, width // heads
        self.fused = nn.Linear(width, 3 * width) if fused else None
        self.parts = None if fused else nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """Attends to `memory`, or to `x` itself."""
        source = x if memory is None else memory
        if self.fused is not None:
            qkv = self.fused(x).reshape(x.shape[0], x.shape[1], 3, self.heads, self.each).permute(2, 0, 3, 1, 4)
            q, k, v = qkv[0], qkv[1], qkv[2]
        else:
            assert self.parts is not None
            projected = [part(s) for part, s in zip(self.parts, (x, source, source))]
            q, k, v = (p.view(p.shape[0], p.shape[1], self.heads, self.each).transpose(1, 2) for p in projected)
        weights = torch.softmax(q @ k.transpose(-2, -1) / self.each**0.5, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(x.shape[0], x.shape[1], self.heads * self.each))


class Block(nn.Module):
    """Attention, optional cross attention, and a feed-forward network, each with a norm before it."""

    def __init__(self, width: int, heads: int, fused: bool = False, cross: bool = False) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 + cross))
        self.attention = Attention(width, heads, fused)
        self.cross = Attention(width, heads) if cross else None
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """The residual stream after this block."""
        x = x + self.attention(self.norms[0](x))
        if self.cross is not None:
            x = x + self.cross(self.norms[-1](x), memory)
        return x + self.feed(self.norms[1](x))


class IntentSlots(nn.Module):
    """A transformer encoder with an intent for the utterance and a slot per word (JointBERT, arXiv 1902.10909)."""

    def __init__(self, words: int = 80, steps: int = 16, width: int = 32, fused: bool = False) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(words, width), nn.Parameter(torch.randn(steps, width) / 4)
        self.blocks = nn.ModuleList(Block(width, 4, fused) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.intent, self.slots = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 6)), nn.Linear(width, 9)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, intents) and (batch, steps, slots)."""
        x = self.embed(tokens) + self.places[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.intent(x[:, 0]), self.slots(x)


class DetectionTransformer(nn.Module):
    """Convolutions, an encoder, and queries that attend to it; classes and boxes (DETR, arXiv 2005.12872)."""

    def __init__(self, width: int = 32, queries: int = 10) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, width, 4, 4), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU()
        )
        self.project = nn.Conv2d(2 * width, width, 1)
        self.encoder, self.decoder = Block(width, 4), Block(width, 4, cross=True)
        self.queries = nn.Parameter(torch.randn(1, queries, width))
        self.classes = nn.Linear(width, 5)
        self.boxes = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, queries, classes) and (batch, queries, 4)."""
        memory = self.encoder(self.project(self.backbone(image)).flatten(2).transpose(1, 2))
        x = self.decoder(self.queries.expand(memory.shape[0], -1, -1), memory)
        return self.classes(x), self.boxes(x).sigmoid()


class RmsNorm(nn.Module):
    """Root mean square normalisation (arXiv 1910.07467), spelled out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class GroupedQueryDecoder(nn.Module):
    """A causal decoder with grouped-query attention, rotary embedding and gated feed-forward; words and a value."""

    def __init__(self, words: int = 64, width: int = 32, heads: int = 4, shared: int = 2, layers: int = 2) -> None:
        super().__init__()
        self.heads, self.shared, self.each = heads, shared, width // heads
        self.embed, self.norm = nn.Embedding(words, width), RmsNorm(width)
        parts = {"q": heads * self.each, "k": shared * self.each, "v": shared * self.each, "gate": 2 * width, "up": 2 * width}
        self.layers = nn.ModuleList()
        for _ in range(layers):
            layer = nn.ModuleDict({name: nn.Linear(width, n, bias=False) for name, n in parts.items()})
            layer["out"], layer["down"] = nn.Linear(width, width, bias=False), nn.Linear(2 * width, width, bias=False)
            layer["before"], layer["after"] = RmsNorm(width), RmsNorm(width)
            self.layers.append(layer)
        self.words, self.value = nn.Linear(width, words, bias=False), nn.Linear(width, 1)

    def turn(self, x: Tensor) -> Tensor:
        """Rotates pairs of dimensions by angles that grow with the position (arXiv 2104.09864)."""
        half = self.each // 2
        rates = 10000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
        angles = torch.arange(x.shape[2]).unsqueeze(1) * rates
        angles = torch.cat([angles, angles], -1)
        swapped = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * angles.cos() + swapped * angles.sin()

    def attend(self, layer: nn.ModuleDict, x: Tensor) -> Tensor:
        """Attention in which `heads / shared` query heads use one key and value head."""
        b, n = x.shape[:2]
        q, k, v = (layer[p](x).view(b, n, -1, self.each).transpose(1, 2) for p in "qkv")
        repeat = self.heads // self.shared
        k, v = (t.unsqueeze(2).expand(-1, -1, repeat, -1, -1).reshape(b, self.heads, n, self.each) for t in (self.turn(k), v))
        mask = torch.full((n, n), -1e4).triu(1)
        weights = torch.softmax(self.turn(q) @ k.transpose(-2, -1) / self.each**0.5 + mask, -1)
        return layer["out"]((weights @ v).transpose(1, 2).reshape(b, n, self.heads * self.each))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, steps, words) and (batch, 1)."""
        x = self.embed(tokens)
        for layer in self.layers:
            x = x + self.attend(layer, layer["before"](x))
            y = layer["after"](x)
            x = x + layer["down"](F.silu(layer["gate"](y)) * layer["up"](y))
        x = self.norm(x)
        return self.words(x), self.value(x[:, -1])
