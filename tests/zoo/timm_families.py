"""Image classifiers of timm: small variants, or wide ones with fewer blocks of each kind.

A row is (name in timm, size of the image, options of the model, tags). The option "keep" is (pattern, count): of the sequences whose
name matches, only so many first entries stay. The tag "dynamo" asks for the second exporter as well, and "only-dynamo" for it alone, and
"dynbatch" for a variant with an open batch.
"""

import fnmatch
import functools

import torch

from registry import Family, batch_of, image

CLASSES = 100

# The row of each family; the first ones spell attention, mixing and recurrence in ways of their own.
ROWS: list[tuple[str, int, dict, str]] = [
    ("cspdarknet53", 64, {"keep": ("stages.*.blocks", 1)}, ""),
    ("res2net50_14w_8s", 64, {"layers": (1, 1, 1, 1)}, ""),
    ("mixer_s32_224", 64, {"img_size": 64, "keep": ("blocks", 2)}, ""),
    ("xcit_nano_12_p16_224", 64, {"img_size": 64, "depth": 4}, "dynbatch"),
    ("levit_128s", 224, {}, ""),
    ("convnext_atto", 64, {}, ""),
    ("efficientformer_l1", 224, {}, ""),
    ("efficientformerv2_s0", 224, {}, ""),
    ("mobilevit_xxs", 64, {}, "dynamo"),
    ("swin_tiny_patch4_window7_224", 112, {"img_size": 112, "embed_dim": 48, "depths": (2, 2, 2)}, "dynbatch"),
    ("maxvit_pico_rw_256", 128, {"img_size": 128}, ""),
    ("sequencer2d_s", 64, {"img_size": 64, "layers": (1, 1, 2, 1), "embed_dims": (96, 192, 192, 192)}, ""),
    ("cs3darknet_s", 64, {}, ""),
    ("gmlp_s16_224", 64, {"img_size": 64, "keep": ("blocks", 4)}, ""),
    ("resmlp_12_224", 64, {"img_size": 64, "keep": ("blocks", 2)}, ""),
    ("coat_lite_tiny", 64, {"img_size": 64}, ""),
    ("convnextv2_atto", 64, {}, ""),
    ("mobilevitv2_050", 64, {}, "dynamo"),
    ("edgenext_xx_small", 64, {}, "dynbatch"),
    ("pit_ti_224", 64, {"img_size": 64}, ""),
    ("cait_xxs24_224", 64, {"img_size": 64, "depth": 3}, ""),
    ("tnt_s_patch16_224", 64, {"img_size": 64, "depth": 2}, ""),
    ("deit_tiny_distilled_patch16_224", 64, {"img_size": 64, "depth": 4}, "dynamo"),
    ("vit_tiny_patch16_224", 64, {"img_size": 64, "depth": 4}, "dynamo dynamo-dynbatch dynbatch"),
    ("crossvit_tiny_240", 240, {"depth": ((1, 2, 0), (1, 2, 0))}, ""),
    ("poolformer_s12", 64, {"keep": ("stages.*.blocks", 1)}, ""),
    ("caformer_s18", 64, {"keep": ("stages.*.blocks", 1)}, ""),
    ("dpn48b", 64, {}, ""),
    ("skresnet18", 64, {"keep": ("layer[1-4]", 1)}, ""),
    ("resnest14d", 64, {}, ""),
    ("hrnet_w18_small", 64, {}, ""),
    ("dla46_c", 64, {}, ""),
    ("ese_vovnet19b_slim_dw", 64, {}, "dynbatch"),
    ("repvgg_a0", 64, {}, ""),
    ("ghostnet_050", 64, {}, "batch-norm dynamo"),
    ("tinynet_e", 106, {}, ""),
    ("mobileone_s0", 64, {}, ""),
    ("mobilenetv4_conv_small_050", 64, {}, "dynbatch"),
    ("fastvit_t8", 64, {}, ""),
    ("nf_regnet_b0", 64, {"keep": ("stages.[0-9]", 1)}, "dynamo"),
    ("gcresnet33ts", 64, {"keep": ("stages.[0-9]", 1)}, ""),
    ("halonet26t", 256, {"keep": ("stages.[0-9]", 1)}, "only-dynamo"),
    ("botnet26t_256", 128, {"img_size": 128, "keep": ("stages.[0-9]", 1)}, "dynbatch"),
    ("bat_resnext26ts", 256, {"keep": ("stages.[0-9]", 1)}, ""),
    ("swinv2_tiny_window8_256", 64, {"img_size": 64, "embed_dim": 48, "depths": (2, 2, 2), "window_size": 4}, "dynamo"),
    ("focalnet_tiny_srf", 64, {"keep": ("layers.*.blocks", 1)}, ""),
    ("davit_tiny", 64, {"embed_dims": (48, 96, 192, 384), "num_heads": (2, 4, 8, 16), "depths": (1, 1, 1, 1)}, ""),
    ("nest_tiny", 64, {"img_size": 64, "keep": ("levels.*.transformer_encoder", 1)}, ""),
    ("twins_pcpvt_small", 64, {"img_size": 64, "depths": (1, 1, 1, 1)}, ""),
    ("twins_svt_small", 64, {"img_size": 64, "depths": (2, 2, 2, 1)}, ""),
    ("volo_d1_224", 64, {"img_size": 64, "keep": ("network.[024]", 1)}, "only-dynamo"),
    ("beit_base_patch16_224", 64, {"img_size": 64, "depth": 3, "embed_dim": 192, "num_heads": 4}, "dynbatch"),
    ("eva02_tiny_patch14_224", 56, {"img_size": 56, "depth": 4}, "dynamo"),
    ("maxxvit_rmlp_nano_rw_256", 128, {"img_size": 128, "keep": ("stages.*.blocks", 1)}, ""),
    ("coatnet_pico_rw_224", 64, {"img_size": 64, "keep": ("stages.*.blocks", 1)}, "dynbatch"),
    ("inception_next_atto", 64, {}, ""),
    ("rexnet_100", 64, {}, ""),
    ("hardcorenas_a", 64, {}, ""),
    ("vitamin_small_224", 64, {"img_size": 64, "depth": 3}, ""),
    ("hiera_tiny_224", 224, {"stages": (1, 1, 1, 1), "embed_dim": 48}, ""),
    ("tiny_vit_5m_224", 224, {}, ""),
    ("efficientvit_b0", 64, {}, ""),
    ("efficientvit_m0", 64, {"img_size": 64}, "dynamo"),
    ("repghostnet_050", 64, {}, "dynamo"),
    ("starnet_s050", 64, {}, "dynamo dynbatch"),
    ("pvt_v2_b0", 64, {}, ""),
    ("mixnet_s", 64, {}, ""),
    ("lcnet_050", 64, {}, "dynbatch"),
    ("swiftformer_xs", 64, {}, ""),
    ("convmixer_768_32", 64, {"keep": ("blocks", 4)}, ""),
    ("fasternet_t0", 64, {}, ""),
    ("gcvit_xxtiny", 224, {"keep": ("stages.*.blocks", 1)}, ""),
    ("resnetv2_18", 64, {"keep": ("stages.*.blocks", 1)}, ""),
    ("seresnet18", 64, {"keep": ("layer[1-4]", 1)}, ""),
]


def build(name: str, options: dict) -> torch.nn.Module:
    """A model of timm with random weights, without branches that no exporter can follow."""
    import timm

    pattern, count = options.get("keep", ("", 0))
    options = {key: value for key, value in options.items() if key != "keep"}
    network = timm.create_model(name, pretrained=False, num_classes=CLASSES, exportable=True, **options)
    for path, module in list(network.named_modules()):
        if pattern and fnmatch.fnmatchcase(path, pattern) and isinstance(module, (torch.nn.Sequential, torch.nn.ModuleList)):
            owner, _, own = path.rpartition(".")
            setattr(network.get_submodule(owner), own, module[:count])
    return network.eval()


def family(name: str, size: int, options: dict, tags: str) -> Family:
    """The family of a row."""
    words = tags.split()
    return Family(
        name=name,
        source="timm",
        build=functools.partial(build, name, options),
        inputs=image(size),
        dynamic=batch_of("image", "logits") if "dynbatch" in words else {},
        exporters=("dynamo",) if "only-dynamo" in words else ("legacy", "dynamo") if "dynamo" in words else ("legacy",),
        tags=tuple(word for word in words if word not in ("dynamo", "only-dynamo", "dynbatch")),
    )


FAMILIES = [family(*row) for row in ROWS]
