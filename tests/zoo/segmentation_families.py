"""Networks of segmentation-models-pytorch: decoders of each kind on small encoders, some with a second task."""

import functools

import torch

from registry import Family, batch_of, image

BOTH = ("legacy", "dynamo")
CLASSES = 7


def build(architecture: str, encoder: str, options: dict) -> torch.nn.Module:
    """A network with random weights."""
    import segmentation_models_pytorch

    maker = getattr(segmentation_models_pytorch, architecture)
    return maker(encoder_name=encoder, encoder_weights=None, classes=CLASSES, **options).eval()


def family(
    name: str,
    architecture: str,
    encoder: str,
    options: dict | None = None,
    dynamic: bool = False,
    exporters: tuple[str, ...] = ("legacy",),
    tags: tuple[str, ...] = (),
    size: int = 64,
) -> Family:
    """A family; with auxiliary parameters, the encoder has a head for the whole image as well."""
    options = options or {}
    outputs = ("masks", "label") if "aux_params" in options else ("masks",)
    return Family(
        name=name,
        source="segmentation-models-pytorch",
        build=functools.partial(build, architecture, encoder, options),
        inputs=image(size),
        output_names=outputs,
        dynamic=batch_of("image", *outputs) if dynamic else {},
        exporters=exporters,
        tags=(*tags, "multi-task") if len(outputs) > 1 else tags,
    )


LABEL = {"aux_params": {"classes": 5, "pooling": "avg"}}
FAMILIES = [
    family("smp_unet_two_tasks", "Unet", "timm-mobilenetv3_small_100", LABEL, True),
    family("smp_unet", "Unet", "mobilenet_v2", {"decoder_attention_type": "scse"}),
    family("smp_unetplusplus", "UnetPlusPlus", "mobilenet_v2"),
    family("smp_linknet", "Linknet", "mobilenet_v2", None),
    family("smp_fpn", "FPN", "mobilenet_v2", LABEL),
    family("smp_pspnet", "PSPNet", "mobilenet_v2", None, False, ("dynamo",)),
    family("smp_deeplabv3plus", "DeepLabV3Plus", "mobilenet_v2"),
    family("smp_manet", "MAnet", "resnet18", {"encoder_depth": 4, "decoder_channels": (64, 48, 32, 16)}),
    family("smp_pan", "PAN", "mobilenet_v2", None, False, ("legacy",), size=128),
    family("smp_segformer", "Segformer", "mobilenet_v2"),
]
