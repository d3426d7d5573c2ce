"""Networks of torchvision that answer for every pixel or object: segmentation, detection with its post-processing, optical flow."""

import torch

from registry import Family, batch_of, image

BOTH = ("legacy", "dynamo")


class Named(torch.nn.Module):
    """A segmentation network of torchvision, whose outputs in a dictionary become a tuple."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Images N 3 H W to maps N C H W."""
        return tuple(self.network(image).values())


class Detector(torch.nn.Module):
    """A detector of torchvision on one image: boxes, scores and labels after suppression."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """An image 1 3 H W to boxes D 4, scores D and labels D."""
        found = self.network([image[0]])[0]
        return found["boxes"], found["scores"], found["labels"]


class Flow(torch.nn.Module):
    """RAFT with two updates, of which the last flow is returned."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Two images N 3 H W to their flow N 2 H W."""
        return self.network(first, second, num_flow_updates=2)[-1]


def raft() -> torch.nn.Module:
    """RAFT, small."""
    import torchvision

    return Flow(torchvision.models.optical_flow.raft_small(weights=None)).eval()


def lraspp() -> torch.nn.Module:
    """LR-ASPP on MobileNet v3."""
    import torchvision

    return Named(torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)).eval()


def fcn() -> torch.nn.Module:
    """FCN on ResNet-10, with its second head."""
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.resnet import BasicBlock, ResNet
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    backbone = IntermediateLayerGetter(ResNet(BasicBlock, [1, 1, 1, 1]), {"layer4": "out", "layer3": "aux"})
    return Named(FCN(backbone, FCNHead(512, 21), FCNHead(256, 21))).eval()


def pyramid() -> torch.nn.Module:
    """A feature pyramid on a ResNet of one block in each stage, with fixed normalisation, as detectors have it."""
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.models.resnet import BasicBlock, ResNet
    from torchvision.ops import FrozenBatchNorm2d

    return _resnet_fpn_extractor(ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=FrozenBatchNorm2d), 5)


def ssdlite() -> torch.nn.Module:
    """SSDlite on MobileNet v3; scores near zero still count, for random weights find nothing else."""
    import torchvision

    network = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=21, score_thresh=0.001,
    )
    return Detector(network).eval()


def faster_rcnn() -> torch.nn.Module:
    """Faster R-CNN on ResNet-10 with a pyramid."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.faster_rcnn import TwoMLPHead

    network = FasterRCNN(
        pyramid(), num_classes=11, min_size=128, max_size=128, box_score_thresh=0.0, rpn_pre_nms_top_n_test=50, rpn_post_nms_top_n_test=20
    )
    network.roi_heads.box_head = TwoMLPHead(256 * 7 * 7, 128)
    network.roi_heads.box_predictor.cls_score = torch.nn.Linear(128, 11)
    network.roi_heads.box_predictor.bbox_pred = torch.nn.Linear(128, 44)
    return Detector(network).eval()


def fcos() -> torch.nn.Module:
    """FCOS, a detector without anchors, on ResNet-10 with a pyramid."""
    from torchvision.models.detection import FCOS

    return Detector(FCOS(pyramid(), num_classes=11, min_size=128, max_size=128, score_thresh=0.0, topk_candidates=50)).eval()


def detector(name: str, build, size: int) -> Family:
    """A detector of one image, whose outputs are as long as what it finds."""
    outputs = ("boxes", "scores", "labels")
    return Family(
        name, "torchvision", build, lambda: (torch.rand(1, 3, size, size),), output_names=outputs, tags=("detector", "multi-task"),
    )


FAMILIES = [
    Family(
        "raft_small",
        "torchvision",
        raft,
        lambda: (torch.rand(1, 3, 128, 128) * 2 - 1, torch.rand(1, 3, 128, 128) * 2 - 1),
        input_names=("first", "second"),
        output_names=("flow",),
        exporters=BOTH,
    ),
    Family("lraspp_mobilenet", "torchvision", lraspp, image(64), output_names=("classes",), dynamic=batch_of("image", "classes")),
    Family("fcn_resnet10", "torchvision", fcn, image(64), output_names=("classes", "second"), tags=("multi-task",)),
    detector("ssdlite320_mobilenet", ssdlite, 320),
    detector("faster_rcnn_resnet10", faster_rcnn, 128),
    detector("fcos_resnet10", fcos, 128),
]
