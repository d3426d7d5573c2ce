"""Networks of torchvision: classifiers, and those for segmentation, detection, optical flow and video. Deep and wide ones are cut."""

from collections.abc import Callable

import torch

from registry import Family, batch_of, image

CLASSES = 100
BOTH = ("legacy", "dynamo")


def classifier(name: str, size: int, dynamic: bool = False, exporters: tuple[str, ...] = ("legacy",), tags: tuple[str, ...] = ()) -> Family:
    """A classifier that torchvision builds by its name, with random weights."""

    def build() -> torch.nn.Module:
        import torchvision

        extra = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **extra).eval()

    return made(name, build, size, dynamic, exporters, tags)


def made(
    name: str,
    build: Callable[[], torch.nn.Module],
    size: int,
    dynamic: bool = False,
    exporters: tuple[str, ...] = ("legacy",),
    tags: tuple[str, ...] = (),
) -> Family:
    """A classifier of square images."""
    return Family(
        name, "torchvision", build, image(size), dynamic=batch_of("image", "logits") if dynamic else {}, exporters=exporters, tags=tags,
    )


def alexnet() -> torch.nn.Module:
    """AlexNet with narrow dense layers: the original's are 90 % of it."""
    import torchvision

    network = torchvision.models.alexnet(weights=None)
    network.avgpool = torch.nn.AdaptiveAvgPool2d(1)
    network.classifier[1] = torch.nn.Linear(256, 512)
    network.classifier[4] = torch.nn.Linear(512, 256)
    network.classifier[6] = torch.nn.Linear(256, CLASSES)
    return network.eval()


def vgg11_bn() -> torch.nn.Module:
    """VGG-11 with half of the channels and narrow dense layers."""
    from torchvision.models.vgg import VGG, make_layers

    network = VGG(make_layers([32, "M", 64, "M", 128, 128, "M", 256, 256, "M", 256, 256, "M"], batch_norm=True))
    network.avgpool = torch.nn.AdaptiveAvgPool2d((2, 2))
    network.classifier[0] = torch.nn.Linear(256 * 4, 512)
    network.classifier[3] = torch.nn.Linear(512, 256)
    network.classifier[6] = torch.nn.Linear(256, CLASSES)
    return network.eval()


def resnet10() -> torch.nn.Module:
    """A ResNet of one basic block in each stage."""
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES).eval()


def resnet(groups: int = 1, width: int = 64) -> Callable[[], torch.nn.Module]:
    """A ResNet of one bottleneck in each of three stages."""

    def build() -> torch.nn.Module:
        from torchvision.models.resnet import Bottleneck, ResNet

        network = ResNet(Bottleneck, [1, 1, 1, 1], groups=groups, width_per_group=width)
        network.layer4 = torch.nn.Identity()  # three quarters of the weights
        network.fc = torch.nn.Linear(1024, CLASSES)
        return network.eval()

    return build


def convnext() -> torch.nn.Module:
    """ConvNeXt, narrow."""
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    stages = [CNBlockConfig(32, 64, 2), CNBlockConfig(64, 128, 2), CNBlockConfig(128, 256, 2), CNBlockConfig(256, None, 1)]
    return ConvNeXt(stages, num_classes=CLASSES).eval()


def vision_transformer() -> torch.nn.Module:
    """A vision transformer of four layers."""
    from torchvision.models import VisionTransformer

    network = VisionTransformer(image_size=64, patch_size=16, num_layers=4, num_heads=4, hidden_dim=192, mlp_dim=576, num_classes=CLASSES)
    torch.nn.init.normal_(network.heads.head.weight, std=0.05)
    return network.eval()


def swin(second: bool) -> Callable[[], torch.nn.Module]:
    """Swin or Swin v2, two blocks in each stage, so that half of the windows are shifted."""

    def build() -> torch.nn.Module:
        from torchvision.models import swin_transformer as swins

        extra = {"block": swins.SwinTransformerBlockV2, "downsample_layer": swins.PatchMergingV2} if second else {}
        return swins.SwinTransformer([4, 4], 48, [2, 2, 2], [2, 4, 8], [7, 7], num_classes=CLASSES, **extra).eval()

    return build


def maxvit() -> torch.nn.Module:
    """MaxViT with one block in each stage."""
    from torchvision.models import MaxVit

    return MaxVit((64, 64), 32, 4, [32, 64, 128], [1, 1, 2], 16, 0.0, num_classes=CLASSES).eval()


def inception_v3() -> torch.nn.Module:
    """Inception v3 without the head for training alone, and with one block of each kind that repeats."""
    import torchvision

    network = torchvision.models.inception_v3(weights=None, num_classes=CLASSES, aux_logits=False, init_weights=True)
    for repeated in ("Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7c"):
        setattr(network, repeated, torch.nn.Identity())
    return network.eval()


def googlenet() -> torch.nn.Module:
    """GoogLeNet without the heads for training alone."""
    import torchvision

    return torchvision.models.googlenet(weights=None, num_classes=CLASSES, aux_logits=False, init_weights=True).eval()


DYNAMO = {"exporters": BOTH}
FAMILIES = [
    classifier("shufflenet_v2_x1_0", 64, True, BOTH, ("batch-norm", "dynamo-dynbatch")),
    made("swin_t_narrow", swin(False), 112, True, BOTH),
    made("maxvit_t_narrow", maxvit, 64, True, BOTH),
    made("convnext_narrow", convnext, 64, True, BOTH),
    made("alexnet_narrow", alexnet, 64),
    made("vgg11_bn_half", vgg11_bn, 64),
    made("resnet10", resnet10, 64, False, BOTH, ("batch-norm",)),
    made("resnet11_bottleneck", resnet(), 64, False, BOTH),
    made("resnext11_32x4d", resnet(groups=32, width=4), 64, True),
    made("wide_resnet11_2", resnet(width=128), 64),
    classifier("densenet121", 64),
    made("googlenet", googlenet, 64),
    made("inception_v3", inception_v3, 96),
    classifier("mobilenet_v2", 64, True, ("legacy",), ("batch-norm",)),
    classifier("mobilenet_v3_small", 64, True, BOTH),
    classifier("mnasnet0_5", 64, False, BOTH),
    classifier("regnet_y_400mf", 64),
    classifier("squeezenet1_1", 64, True, BOTH),
    classifier("efficientnet_b0", 64),
    made("vit_b_narrow", vision_transformer, 64, True, BOTH),
    made("swin_v2_t_narrow", swin(True), 112, True),
]
