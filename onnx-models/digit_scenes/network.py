"""The network: one shared convolutional trunk, three heads (classification, regression, dense).

It carries on purpose what a pruning tool meets in real files: residual sums with and without projection, depthwise-separable blocks,
U-Net concatenations, a Flatten before a linear layer, ConvTranspose, Resize, and BatchNormalization kept apart from its convolution.
"""

import torch
from torch import nn


def unit(inputs, outputs, kernel=3, stride=1, groups=1, active=True):
    """Convolution without bias, batch normalisation, and ReLU unless `active` is false."""
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, nn.ReLU()) if active else nn.Sequential(*layers)


def separable(inputs, outputs):
    """Depthwise 3x3, then pointwise 1x1, each with batch normalisation and ReLU."""
    return nn.Sequential(unit(inputs, inputs, groups=inputs), unit(inputs, outputs, kernel=1))


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the shortcut is projected when the shape changes."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.body = nn.Sequential(unit(inputs, outputs, stride=stride), unit(outputs, outputs, active=False))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else unit(inputs, outputs, kernel=1, stride=stride, active=False)

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


class DigitScenes(nn.Module):
    """`image` [n, 1, 48, 48] -> `digit` [n, 10] logits, `position` [n, 4] in 0..1, `segmentation` [n, 3, 48, 48] logits."""

    def __init__(self):
        super().__init__()
        self.stem = unit(1, 32, stride=2)
        self.fine = Residual(32, 32)  # [32, 24, 24], first skip
        self.middle = nn.Sequential(Residual(32, 64, stride=2), separable(64, 96))  # [96, 12, 12], second skip
        self.coarse = nn.Sequential(Residual(96, 128, stride=2), separable(128, 128))  # [128, 6, 6], end of the trunk
        self.digit = nn.Sequential(
            Residual(128, 96), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10)
        )
        self.position = nn.Sequential(
            unit(128, 32, stride=2), nn.Flatten(), nn.Linear(32 * 9, 64), nn.ReLU(), nn.Linear(64, 4), nn.Sigmoid()
        )
        self.widen = nn.Sequential(nn.ConvTranspose2d(128, 64, 2, 2, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.join = nn.Sequential(separable(64 + 96, 64), nn.Upsample(scale_factor=2, mode="nearest"), unit(64, 32, kernel=1))
        self.refine = unit(32 + 32, 32)
        self.segmentation = nn.Sequential(
            nn.ConvTranspose2d(32, 32, 2, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 3, 1)
        )

    def forward(self, image):
        fine = self.fine(self.stem(image))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        half = self.join(torch.cat([self.widen(coarse), middle], 1))
        dense = self.segmentation(self.refine(torch.cat([half, fine], 1)))
        return self.digit(coarse), self.position(coarse), dense
