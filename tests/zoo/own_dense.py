"""Multi-task networks for images, in plain torch.

Each class is the smallest network that has the couplings of its paper: what is shared, mixed, gated or concatenated
between tasks. `width` is the number of channels of the first stage; a width of 4 gives files of a few kilobytes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU; the extent stays for stride 1."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def twice(x: Tensor) -> Tensor:
    """Twice the height and width."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class HardSharing(nn.Module):
    """One encoder and decoder for segmentation, depth and surface normals (Caruana 1997)."""

    def __init__(self, width: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.stem = conv(3, width, stride=2)
        self.down = conv(width, 2 * width, stride=2)
        self.deep = nn.Sequential(conv(2 * width, 4 * width), conv(4 * width, 2 * width))
        self.join = conv(3 * width, width)
        heads = {"segmentation": classes, "depth": 1, "normals": 3}
        self.heads = nn.ModuleDict({n: nn.Sequential(conv(width, width), nn.Conv2d(width, k, 1)) for n, k in heads.items()})

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class scores, positive depth, unit normals, at half the extent of the image."""
        fine = self.stem(image)
        coarse = self.down(fine)
        x = self.join(torch.cat([fine, twice(coarse + self.deep(coarse))], 1))
        normals = self.heads["normals"](x)
        return self.heads["segmentation"](x), F.softplus(self.heads["depth"](x)), F.normalize(normals, dim=1)


class Stitch(nn.Module):
    """A cross-stitch unit: every channel of a task becomes a learned mixture over the tasks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.rand(2, 2, channels, 1, 1))

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Both mixtures."""
        mix = self.mix
        return mix[0, 0] * a + mix[0, 1] * b, mix[1, 0] * a + mix[1, 1] * b


class CrossStitch(nn.Module):
    """Two columns that exchange channels after every stage (Misra et al., arXiv 1604.03539)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        extents = [3, width, 2 * width, 4 * width]
        stages = list(zip(extents, extents[1:]))
        self.columns = nn.ModuleList(nn.ModuleList(conv(i, o, stride=2) for i, o in stages) for _ in range(2))
        self.stitches = nn.ModuleList(Stitch(o) for _, o in stages)
        self.attributes = nn.Linear(4 * width, 6)
        self.segmentation = nn.Conv2d(4 * width, 5, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Attribute scores of the image and class scores of every place."""
        a = b = image
        for left, right, stitch in zip(*self.columns, self.stitches):
            a, b = stitch(left(a), right(b))
        return self.attributes(a.mean((2, 3))), self.segmentation(b)


class TaskAttention(nn.Module):
    """One attention module of MTAN: a mask for the second features of a block from the first ones and the last result."""

    def __init__(self, inputs: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.mask = nn.Sequential(conv(inputs, channels, 1), nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.Sigmoid())
        self.after = conv(channels, outputs)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """The attended features at half the extent."""
        return F.max_pool2d(self.after(self.mask(x) * features), 2)


class Mtan(nn.Module):
    """A shared trunk and one chain of attention masks per task (Liu et al., arXiv 1803.10704)."""

    def __init__(self, width: int = 16, tasks: tuple[int, ...] = (5, 1, 3)) -> None:
        super().__init__()
        extents = [width, 2 * width, 4 * width]
        self.first = nn.ModuleList(conv(i, o) for i, o in zip([3, *extents], extents))
        self.second = nn.ModuleList(conv(o, o) for o in extents)
        self.attention = nn.ModuleList(
            nn.ModuleList(TaskAttention(o + (i and o), o, 2 * o) for i, o in zip([0, *extents], extents)) for _ in tasks
        )
        self.heads = nn.ModuleList(nn.Conv2d(2 * extents[-1], k, 1) for k in tasks)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """One map per task, at an eighth of the extent."""
        features, x = [], image
        for first, second in zip(self.first, self.second):
            u = first(x)
            p = second(u)
            features.append((u, p))
            x = F.max_pool2d(p, 2)
        results = []
        for chain, head in zip(self.attention, self.heads):
            attended: Tensor | None = None
            for module, (u, p) in zip(chain, features):
                attended = module(u if attended is None else torch.cat([u, attended], 1), p)
            assert attended is not None
            results.append(head(attended))
        return tuple(results)


class Nddr(nn.Module):
    """Two columns; after each stage both are concatenated and reduced by 1x1 convolutions (Gao et al., arXiv 1801.08297)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        extents = [3, width, 2 * width, 4 * width]
        stages = list(zip(extents, extents[1:]))
        self.columns = nn.ModuleList(nn.ModuleList(conv(i, o, stride=2) for i, o in stages) for _ in range(2))
        self.reduce = nn.ModuleList(nn.ModuleList(conv(2 * o, o, 1) for _ in range(2)) for _, o in stages)
        self.normals = nn.Conv2d(7 * width, 3, 1)
        self.age = nn.Linear(4 * width, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Normals from the features of all stages, and one number."""
        a = b = image
        skips = []
        for left, right, (to_a, to_b) in zip(*self.columns, self.reduce):
            both = torch.cat([left(a), right(b)], 1)
            a, b = to_a(both), to_b(both)
            skips.append(a)
        size = skips[-1].shape[-2:]
        pyramid = torch.cat([F.adaptive_avg_pool2d(s, (int(size[0]), int(size[1]))) for s in skips], 1)
        return self.normals(pyramid), self.age(b.flatten(2).mean(-1))


class Residual(nn.Module):
    """Part of the channels passes residual blocks, the rest goes around them (CSP, arXiv 1911.11929)."""

    def __init__(self, channels: int, blocks: int = 1) -> None:
        super().__init__()
        half = channels // 2
        self.split, self.join = conv(channels, channels, 1), conv((2 + blocks) * half, channels, 1)
        self.blocks = nn.ModuleList(nn.Sequential(conv(half, half), conv(half, half)) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same extents."""
        parts = list(self.split(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.join(torch.cat(parts, 1))


class DrivingPerception(nn.Module):
    """A feature pyramid with a detector on three levels and two segmentation branches (YOLOP, arXiv 2108.11250)."""

    def __init__(self, width: int = 8, anchors: int = 3, classes: int = 2) -> None:
        super().__init__()
        self.anchors, self.values = anchors, 5 + classes
        extents = [width, 2 * width, 4 * width, 8 * width]
        self.stem = conv(3, width, stride=2)
        self.stages = nn.ModuleList(nn.Sequential(conv(i, o, stride=2), Residual(o)) for i, o in zip(extents, extents[1:]))
        self.lateral = nn.ModuleList(nn.Conv2d(o, 2 * width, 1) for o in extents[1:])
        self.smooth = nn.ModuleList(conv(2 * width, 2 * width) for _ in extents[1:])
        self.down = nn.ModuleList(conv(2 * width, 2 * width, stride=2) for _ in extents[2:])
        self.detect = nn.ModuleList(nn.Conv2d(2 * width, anchors * self.values, 1) for _ in extents[1:])
        self.areas, self.lanes = (self.branch(width, 2) for _ in range(2))

    @staticmethod
    def branch(width: int, classes: int) -> nn.Sequential:
        """A segmentation branch that enlarges fourfold."""
        up = nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False)
        return nn.Sequential(conv(2 * width, width), up, conv(width, width), up, nn.Conv2d(width, classes, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes, class scores of all levels, and the two maps at half the extent."""
        x, levels = self.stem(image), []
        for stage, lateral in zip(self.stages, self.lateral):
            x = stage(x)
            levels.append(lateral(x))
        for i in (1, 0):
            levels[i] = levels[i] + twice(levels[i + 1])
        levels = [smooth(level) for smooth, level in zip(self.smooth, levels)]
        bottom = [levels[0]]
        for down, level in zip(self.down, levels[1:]):
            bottom.append(level + down(bottom[-1]))
        found = []
        for detect, level in zip(self.detect, bottom):
            y = detect(level)
            y = y.view(y.shape[0], self.anchors, self.values, y.shape[2] * y.shape[3]).permute(0, 1, 3, 2)
            found.append(y.reshape(y.shape[0], -1, self.values))
        detections = torch.cat(found, 1)
        return detections[..., :4], detections[..., 4:].sigmoid(), self.areas(levels[0]), self.lanes(levels[0])


class PadNet(nn.Module):
    """First predictions are embedded again and exchanged under attention before the last ones (arXiv 1805.04409)."""

    def __init__(self, width: int = 16, tasks: tuple[int, ...] = (5, 1, 3)) -> None:
        super().__init__()
        self.encoder = nn.Sequential(conv(3, width, stride=2), conv(width, 2 * width, stride=2), conv(2 * width, 2 * width))
        self.first = nn.ModuleList(nn.Sequential(conv(2 * width, width), nn.Conv2d(width, k, 1)) for k in tasks)
        self.embed = nn.ModuleList(conv(k, width) for k in tasks)
        self.gates = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in tasks)
        self.messages = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in tasks[1:]) for _ in tasks
        )
        self.last = nn.ModuleList(nn.Sequential(conv(width, width), nn.Conv2d(width, k, 1)) for k in tasks)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """First and last predictions of every task."""
        x = self.encoder(image)
        first = [head(x) for head in self.first]
        features = [embed(y) for embed, y in zip(self.embed, first)]
        last = []
        for own, (gate, messages, head) in enumerate(zip(self.gates, self.messages, self.last)):
            attention = torch.sigmoid(gate(features[own]))
            others = [f for i, f in enumerate(features) if i != own]
            given = torch.stack([message(f) * attention for message, f in zip(messages, others)]).sum(0)
            last.append(head(features[own] + given))
        return (*first, *last)


class GroupNormUNet(nn.Module):
    """A U-Net (arXiv 1505.04597) with GroupNorm and two heads: a mask and what the image is."""

    def __init__(self, width: int = 16, groups: int = 4) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for i in (inputs, outputs):
                layers += [nn.Conv2d(i, outputs, 3, padding=1), nn.GroupNorm(groups, outputs), nn.SiLU()]
            return nn.Sequential(*layers)

        self.enter, self.down, self.deep = block(3, width), block(width, 2 * width), block(2 * width, 4 * width)
        self.up1, self.up0 = (nn.ConvTranspose2d(2 * w, w, 2, 2) for w in (2 * width, width))
        self.leave1, self.leave0 = block(4 * width, 2 * width), block(2 * width, width)
        self.mask = nn.Conv2d(width, 2, 1)
        self.kind = nn.Sequential(nn.Linear(4 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 4))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The mask at full extent and four scores."""
        fine = self.enter(image)
        middle = self.down(F.max_pool2d(fine, 2))
        deep = self.deep(F.max_pool2d(middle, 2))
        x = self.leave1(torch.cat([self.up1(deep), middle], 1))
        x = self.leave0(torch.cat([self.up0(x), fine], 1))
        return self.mask(x), self.kind(F.adaptive_avg_pool2d(deep, 1).flatten(1))


class SqueezeMobile(nn.Module):
    """Inverted residuals with depthwise convolutions and squeeze-and-excitation (arXiv 1905.02244), two heads."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = conv(3, width, stride=2)
        self.blocks = nn.ModuleList(self.block(width, 4 * width) for _ in range(3))
        self.landmarks, self.identity = nn.Linear(width, 10), nn.Sequential(nn.Linear(width, 32), nn.PReLU(), nn.Linear(32, 16))

    @staticmethod
    def block(width: int, hidden: int) -> nn.ModuleDict:
        """Expand, filter each channel, weigh the channels, project."""
        squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, hidden // 4, 1), nn.ReLU(), nn.Conv2d(hidden // 4, hidden, 1), nn.Hardsigmoid()
        )
        project = nn.Sequential(nn.Conv2d(hidden, width, 1, bias=False), nn.BatchNorm2d(width))
        features = nn.Sequential(conv(width, hidden, 1), conv(hidden, hidden, 5, groups=hidden))
        return nn.ModuleDict({"features": features, "squeeze": squeeze, "project": project})

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Ten coordinates and an embedding of length one."""
        x = self.stem(image)
        for block in self.blocks:
            y = block["features"](x)
            x = x + block["project"](y * block["squeeze"](y))
        x = x.mean((2, 3))
        return self.landmarks(x), F.normalize(self.identity(x), dim=-1)
