"""Video networks of torchvision, narrow or cut: convolutions and windows in three dimensions."""

import torch

from registry import Family, batch_of

BOTH = ("legacy", "dynamo")
CLASSES = 40


def resnet(kind: str) -> torch.nn.Module:
    """A video ResNet of its first two stages, which hold a tenth of the weights."""
    import torchvision

    network = torchvision.models.get_model(kind, weights=None)
    network.layer3, network.layer4 = torch.nn.Identity(), torch.nn.Identity()
    network.fc = torch.nn.Linear(128, CLASSES)
    return network.eval()


def swin3d() -> torch.nn.Module:
    """Video Swin of two stages."""
    from torchvision.models.video import SwinTransformer3d

    return SwinTransformer3d([2, 4, 4], 48, [2, 2], [3, 6], [2, 7, 7], num_classes=CLASSES).eval()


def mvit() -> torch.nn.Module:
    """MViT v2 of four blocks, whose third halves the image and doubles the width."""
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    def block(heads: int, before: int, after: int, query: int, key: int) -> MSBlockConfig:
        return MSBlockConfig(heads, before, after, [3, 3, 3], [3, 3, 3], [1, query, query], [1, key, key])

    blocks = [block(1, 48, 48, 1, 4), block(1, 48, 48, 1, 4), block(2, 48, 96, 2, 2), block(2, 96, 96, 1, 2)]
    network = MViT(
        (64, 64), 8, blocks, residual_pool=True, residual_with_cls_embed=False, rel_pos_embed=True, proj_after_attn=True,
        num_classes=CLASSES,
    )
    return network.eval()


def family(name: str, build, dynamic: bool = False, exporters: tuple[str, ...] = ("legacy",)) -> Family:
    """A classifier of clips N 3 T H W."""
    axes = batch_of("clip", "logits") if dynamic else {}
    return Family(name, "torchvision", build, lambda: (torch.randn(1, 3, 8, 64, 64),), ("clip",), dynamic=axes, exporters=exporters)


FAMILIES = [
    family("r3d_cut", lambda: resnet("r3d_18"), dynamic=True, exporters=BOTH),
    family("mc3_cut", lambda: resnet("mc3_18")),
    family("r2plus1d_cut", lambda: resnet("r2plus1d_18")),
    # What tracing writes for its pooling of class tokens (If around Squeeze) does not run in ONNX Runtime.
    family("mvit_v2_narrow", mvit, exporters=("dynamo",)),
    family("swin3d_narrow", swin3d, exporters=BOTH),
]
