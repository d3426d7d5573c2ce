"""Networks of transformers from tiny configurations: encoders, decoders, both, speech, images, and several tasks on one encoder."""

import dataclasses
import functools

import torch

from registry import Family, batch_of

VOCABULARY = 256
BOTH = ("legacy", "dynamo")
SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192,
    "max_position_embeddings": 64,
}
DECODER = {**SMALL, "num_key_value_heads": 2, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IMAGE = {"image_size": 32, "patch_size": 8, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


class Called(torch.nn.Module):
    """A network that is called with named tensors, and of whose results some are returned as a tuple."""

    def __init__(self, network: torch.nn.Module, given: tuple[str, ...], wanted: tuple[str, ...]):
        super().__init__()
        self.network, self.given, self.wanted = network, given, wanted

    def call(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Calls the network by name."""
        results = self.network(**dict(zip(self.given, tensors)), return_dict=True)
        return tuple(results[name] for name in self.wanted)


class One(Called):
    """Of one input."""

    def forward(self, first):
        """See `Called`."""
        return self.call(first)


class Two(Called):
    """Of two inputs."""

    def forward(self, first, second):
        """See `Called`."""
        return self.call(first, second)


class Three(Called):
    """Of three inputs."""

    def forward(self, first, second, third):
        """See `Called`."""
        return self.call(first, second, third)


@dataclasses.dataclass(frozen=True)
class Row:
    """A family: names of the classes in transformers, the configuration, and what goes in and out."""

    name: str
    model: str
    config: str
    options: dict
    given: tuple[str, ...] = ("input_ids", "attention_mask")
    wanted: tuple[str, ...] = ("logits",)
    exporters: tuple[str, ...] = BOTH
    dynamic: bool = True
    tags: tuple[str, ...] = ()
    length: int = 12
    attention: str = "eager"
    experts: str = "eager"


def build(row: Row) -> torch.nn.Module:
    """The network of a row behind a call without names."""
    import transformers

    config = getattr(transformers, row.config)(**row.options)
    config._attn_implementation = row.attention
    config._experts_implementation = row.experts
    network = getattr(transformers, row.model)(config)
    return (One, Two, Three)[len(row.given) - 1](network, row.given, row.wanted).eval()


def example(row: Row, name: str) -> torch.Tensor:
    """A tensor for an input, by its name in transformers."""
    match name:
        case "input_ids" | "decoder_input_ids":
            return torch.randint(3, VOCABULARY, (1, row.length if name == "input_ids" else 6))
        case "attention_mask":
            mask = torch.ones(1, row.length, dtype=torch.int64)
            mask[:, -2:] = 0  # padding at the end, so that masking shows
            return mask
        case "bbox":
            corner = torch.randint(0, 500, (1, row.length, 2))
            return torch.cat([corner, corner + torch.randint(1, 400, (1, row.length, 2))], 2)
        case "input_values":
            return torch.randn(1, 1600)
        case "pixel_values":
            size = row.options.get("image_size", 64)
            return torch.randn(1, 3, *(size if isinstance(size, list) else (size, size)))
        case "past_values":
            return torch.randn(1, row.options["context_length"], row.options["num_input_channels"])
    raise ValueError(f"{row.name}: no example for {name}")


def axes(row: Row) -> dict[str, dict[int, str]]:
    """The open axes: the batch, and the length of a text."""
    names = {name: {0: "batch"} for name in (*row.given, *row.wanted)}
    for name in ("input_ids", "attention_mask", "bbox"):
        if name in names:
            names[name][1] = "length"
    return names


def family(row: Row) -> Family:
    """The family of a row."""
    return Family(
        name=row.name,
        source="transformers",
        build=functools.partial(build, row),
        inputs=lambda: tuple(example(row, name) for name in row.given),
        input_names=row.given,
        output_names=row.wanted,
        dynamic=axes(row) if row.dynamic else {},
        exporters=row.exporters,
        tags=row.tags,
    )


class TwoTasks(torch.nn.Module):
    """One BERT, a head for every word (slots) and one for the sentence (intent)."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.encoder = BertModel(BertConfig(**SMALL, attn_implementation="eager"))
        self.slots = torch.nn.Sequential(torch.nn.Linear(96, 64), torch.nn.GELU(), torch.nn.Linear(64, 17))
        self.intent = torch.nn.Sequential(torch.nn.Linear(96, 48), torch.nn.ReLU(), torch.nn.Linear(48, 7))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Words and mask N L to slots N L S and intents N I."""
        found = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return self.slots(found.last_hidden_state), self.intent(found.pooler_output)


def detr() -> torch.nn.Module:
    """DETR with a small ResNet whose weights come from its configuration."""
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 96, 128], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"],
    )
    config = DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        num_queries=10,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        num_labels=7,
    )
    config._attn_implementation = "eager"
    return One(DetrForObjectDetection(config), ("pixel_values",), ("logits", "pred_boxes")).eval()


def mask2former() -> torch.nn.Module:
    """Mask2Former on a small Swin: deformable attention over a pyramid, queries, masks."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(
        image_size=64, embed_dim=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=64, encoder_layers=1,
        decoder_layers=2, num_attention_heads=4, dim_feedforward=64, num_queries=6, num_labels=5,
    )  # fmt: skip
    return One(Mask2FormerForUniversalSegmentation(config), ("pixel_values",), ("class_queries_logits", "masks_queries_logits")).eval()


def clip() -> torch.nn.Module:
    """CLIP: two encoders that meet in one matrix of similarities."""
    from transformers import CLIPConfig, CLIPModel

    text = {**SMALL, "projection_dim": 48, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    config = CLIPConfig(text_config=text, vision_config={**IMAGE, "projection_dim": 48}, projection_dim=48)
    config._attn_implementation = "eager"
    given, wanted = ("input_ids", "pixel_values", "attention_mask"), ("logits_per_image", "text_embeds", "image_embeds")
    return Three(CLIPModel(config), given, wanted).eval()


def text_and_image() -> tuple[torch.Tensor, ...]:
    """Words that end with the end, an image, a mask without padding."""
    words = torch.cat([torch.randint(3, VOCABULARY, (1, 11)), torch.full((1, 1), 2)], 1)
    return words, torch.randn(1, 3, 32, 32), torch.ones(1, 12, dtype=torch.int64)


def whisper() -> torch.nn.Module:
    """The encoder of Whisper: convolutions over the spectrum, then a transformer."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(**BART, num_mel_bins=16, max_source_positions=32, bos_token_id=1)
    config._attn_implementation = "eager"
    return One(WhisperEncoder(config), ("input_features",), STATE).eval()


SEQUENCE = {"vocab_size": VOCABULARY, "d_model": 96, "use_cache": False, "pad_token_id": 0, "decoder_start_token_id": 1, "eos_token_id": 2}
BART = {
    **SEQUENCE, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 192, "decoder_ffn_dim": 192,
}
T5 = {**SEQUENCE, "d_kv": 24, "d_ff": 192, "num_layers": 2, "num_heads": 4}
SPEECH = {
    **SMALL, "conv_dim": (32, 32, 32), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3), "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
BOTH_TEXTS = ("input_ids", "attention_mask", "decoder_input_ids")
STATE = ("last_hidden_state",)
PICTURE = ("pixel_values",)
STAGES = {
    "num_encoder_blocks": 4, "depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 48, 64], "num_attention_heads": [1, 2, 3, 4],
    "decoder_hidden_size": 48,
}

ROWS = [
    Row("llama_gqa", "LlamaForCausalLM", "LlamaConfig", DECODER),
    Row("bert", "BertForSequenceClassification", "BertConfig", {**SMALL, "num_labels": 7}, tags=("dynamo-dynbatch",)),
    Row("bert_sdpa", "BertModel", "BertConfig", SMALL, wanted=("last_hidden_state", "pooler_output"), attention="sdpa"),
    Row(
        "distilbert", "DistilBertForTokenClassification", "DistilBertConfig",
        {"vocab_size": VOCABULARY, "dim": 96, "n_layers": 2, "n_heads": 4, "hidden_dim": 192, "num_labels": 7},
    ),
    Row("roberta", "RobertaForMaskedLM", "RobertaConfig", SMALL),
    Row("albert", "AlbertForSequenceClassification", "AlbertConfig", {**SMALL, "embedding_size": 48}),
    Row("electra", "ElectraForTokenClassification", "ElectraConfig", {**SMALL, "embedding_size": 48}),
    Row(
        "mobilebert", "MobileBertForSequenceClassification", "MobileBertConfig",
        {**SMALL, "embedding_size": 32, "intra_bottleneck_size": 48},
    ),
    Row(
        "deberta_v2", "DebertaV2ForSequenceClassification", "DebertaV2Config",
        {**SMALL, "relative_attention": True, "pos_att_type": "p2c|c2p", "position_buckets": 8, "max_relative_positions": 16},
    ),
    Row("layoutlm", "LayoutLMForTokenClassification", "LayoutLMConfig", SMALL, given=("input_ids", "bbox", "attention_mask")),
    Row(
        "modernbert", "ModernBertForSequenceClassification", "ModernBertConfig",
        {**SMALL, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2, "local_attention": 8},
    ),
    Row(
        "gpt2", "GPT2LMHeadModel", "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": 96, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False},
    ),
    Row("gpt_neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", {**SMALL, "use_cache": False}),
    Row("qwen2", "Qwen2ForCausalLM", "Qwen2Config", DECODER, attention="sdpa"),
    Row("qwen3", "Qwen3ForCausalLM", "Qwen3Config", {**DECODER, "head_dim": 24}),
    Row("mistral", "MistralForCausalLM", "MistralConfig", {**DECODER, "sliding_window": 8}),
    Row("phi", "PhiForCausalLM", "PhiConfig", DECODER),
    Row("phi3", "Phi3ForCausalLM", "Phi3Config", DECODER),
    Row("gemma", "GemmaForCausalLM", "GemmaConfig", {**DECODER, "num_key_value_heads": 1, "head_dim": 24}),
    # Where each expert runs over the tokens it was given, tracing would freeze how many those are.
    Row(
        "mixtral", "MixtralForCausalLM", "MixtralConfig", {**DECODER, **EXPERTS}, dynamic=False, exporters=BOTH,
        experts="batched_mm",
    ),
    Row("t5_encoder", "T5EncoderModel", "T5Config", T5, wanted=STATE),
    Row("t5", "T5ForConditionalGeneration", "T5Config", T5, given=BOTH_TEXTS),
    Row("bart", "BartForConditionalGeneration", "BartConfig", {**BART, "max_position_embeddings": 64}, given=BOTH_TEXTS),
    Row("wav2vec2", "Wav2Vec2ForCTC", "Wav2Vec2Config", {**SPEECH, "num_feat_extract_layers": 3}, given=("input_values",)),
    Row("vit_transformers", "ViTForImageClassification", "ViTConfig", {**IMAGE, "num_labels": 11}, given=PICTURE),
    Row("segformer", "SegformerForSemanticSegmentation", "SegformerConfig", {**STAGES, "num_labels": 9}, given=PICTURE),
    Row(
        "mobilevit_transformers", "MobileViTForImageClassification", "MobileViTConfig",
        {"image_size": 64, "hidden_sizes": [48, 64, 80], "neck_hidden_sizes": [16, 24, 32, 40, 48, 56, 160], "num_labels": 11},
        given=PICTURE,
    ),
    Row(
        "yolos", "YolosForObjectDetection", "YolosConfig", {**IMAGE, "image_size": [32, 32], "num_detection_tokens": 8, "num_labels": 7},
        given=PICTURE, wanted=("logits", "pred_boxes"), tags=("multi-task",), dynamic=False,
    ),
    Row("fnet", "FNetForSequenceClassification", "FNetConfig", SMALL, given=("input_ids",), exporters=("dynamo",)),
    Row(
        "patchtst", "PatchTSTForPrediction", "PatchTSTConfig",
        {
            "num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8, "prediction_length": 6, "d_model": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 96, "loss": "mse",
        },
        given=("past_values",), wanted=("prediction_outputs",), exporters=("dynamo",),
    ),
    Row(
        "mamba", "MambaForCausalLM", "MambaConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "use_cache": False, "use_mambapy": False},
        given=("input_ids",), dynamic=False,
    ),
]

TEXT_AXES = {0: "batch", 1: "length"}
FAMILIES = [
    *(family(row) for row in ROWS[:1]),
    Family(
        "detr", "transformers", detr, lambda: (torch.randn(1, 3, 64, 64),), PICTURE, ("logits", "pred_boxes"), exporters=BOTH,
        tags=("multi-task",),
    ),
    Family(
        "bert_two_tasks",
        "transformers",
        lambda: TwoTasks().eval(),
        lambda: (torch.randint(3, VOCABULARY, (1, 12)), torch.ones(1, 12, dtype=torch.int64)),
        ("input_ids", "attention_mask"),
        ("slots", "intent"),
        dynamic={"input_ids": TEXT_AXES, "attention_mask": TEXT_AXES, "slots": TEXT_AXES, "intent": {0: "batch"}},
        exporters=BOTH,
        tags=("multi-task",),
    ),
    *(family(row) for row in ROWS[1:]),
    Family(
        "clip",
        "transformers",
        clip,
        text_and_image,
        ("input_ids", "pixel_values", "attention_mask"),
        ("logits_per_image", "text_embeds", "image_embeds"),
        exporters=BOTH,
        tags=("multi-task",),
    ),
    Family(
        "whisper_encoder", "transformers", whisper, lambda: (torch.randn(1, 16, 64),), ("input_features",), STATE,
        batch_of("input_features", *STATE), BOTH,
    ),
    Family(
        # The GridSample that tracing writes is one that ONNX Runtime does not implement.
        "mask2former", "transformers", mask2former, lambda: (torch.randn(1, 3, 64, 64),), PICTURE, ("classes", "masks"),
        exporters=("dynamo",), tags=("multi-task",),
    ),
]
