"""Recurrent networks of our own make: layers that no collection of image models has."""

import torch

from registry import Family, batch_of


class StackedRecurrent(torch.nn.Module):
    """A bidirectional LSTM of two layers, a GRU behind it, and a tagging and a sentence head."""

    def __init__(self, vocabulary: int = 200, width: int = 48, hidden: int = 64, tags: int = 9, classes: int = 5):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, width)
        self.lstm = torch.nn.LSTM(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = torch.nn.GRU(2 * hidden, hidden, batch_first=True)
        self.tagging = torch.nn.Linear(hidden, tags)
        self.sentence = torch.nn.Linear(hidden, classes)

    def forward(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Words N L to tags N L T and classes N C."""
        sequence, _ = self.lstm(self.embedding(words))
        sequence, last = self.gru(sequence)
        return self.tagging(torch.relu(sequence)), self.sentence(last[-1])


class ConvolutionalRecurrent(torch.nn.Module):
    """A text reader: convolutions, a bidirectional LSTM over the columns, one class per column (arXiv:1507.05717)."""

    def __init__(self, classes: int = 37, hidden: int = 64):
        super().__init__()
        layers: list[torch.nn.Module] = []
        before = 1
        for channels, pool in ((32, 2), (64, 2), (96, (2, 1)), (128, (2, 1))):
            layers += [torch.nn.Conv2d(before, channels, 3, padding=1), torch.nn.BatchNorm2d(channels)]
            layers += [torch.nn.ReLU(), torch.nn.MaxPool2d(pool)]
            before = channels
        self.features = torch.nn.Sequential(*layers)
        self.recurrent = torch.nn.LSTM(before * 2, hidden, bidirectional=True)
        self.classes = torch.nn.Linear(2 * hidden, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Images N 1 32 W to classes W/4 N C."""
        features = self.features(image).flatten(1, 2).permute(2, 0, 1)
        return self.classes(self.recurrent(features)[0])


class TemporalConvolution(torch.nn.Module):
    """Dilated causal convolutions over a series, with gates and skips as in WaveNet (arXiv:1609.03499)."""

    def __init__(self, channels: int = 32, blocks: int = 4, classes: int = 10):
        super().__init__()
        self.first = torch.nn.Conv1d(4, channels, 1)
        gates = [torch.nn.Conv1d(channels, 2 * channels, 3, dilation=2**block, padding=2 ** (block + 1)) for block in range(blocks)]
        self.gates = torch.nn.ModuleList(gates)
        self.skips = torch.nn.ModuleList(torch.nn.Conv1d(channels, 2 * channels, 1) for _ in range(blocks))
        self.last = torch.nn.Conv1d(channels, classes, 1)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """Series N 4 L to classes N C L."""
        length = series.shape[-1]
        residual, total = self.first(series), 0
        for gate, skip in zip(self.gates, self.skips):
            filtered, gated = gate(residual)[..., :length].chunk(2, 1)
            step, kept = skip(torch.tanh(filtered) * torch.sigmoid(gated)).chunk(2, 1)
            residual, total = residual + step, total + kept
        return self.last(torch.relu(total))


FAMILIES = [
    Family(
        name="bilstm2_gru",
        source="own",
        build=lambda: StackedRecurrent().eval(),
        inputs=lambda: (torch.randint(0, 200, (1, 16)),),
        input_names=("words",),
        output_names=("tags", "classes"),
        dynamic=batch_of("words", "tags", "classes"),
        exporters=("legacy", "dynamo"),
        tags=("multi-task",),
    ),
    Family(
        name="crnn",
        source="own",
        build=lambda: ConvolutionalRecurrent().eval(),
        inputs=lambda: (torch.randn(1, 1, 32, 96),),
        dynamic={"image": {0: "batch"}, "logits": {1: "batch"}},
        exporters=("legacy", "dynamo"),
    ),
    Family(
        name="wavenet",
        source="own",
        build=lambda: TemporalConvolution().eval(),
        inputs=lambda: (torch.randn(1, 4, 64),),
        input_names=("series",),
        dynamic={"series": {0: "batch", 2: "length"}, "logits": {0: "batch", 2: "length"}},
        exporters=("legacy", "dynamo"),
    ),
]
