"""What a training loads late, loaded and used once: torch's compiler, fonts, event files."""

import io

import tensorboard.compat.proto.event_pb2
import tensorboard.compat.proto.summary_pb2
import tensorboard.summary.writer.record_writer  # noqa: F401
import torch._inductor  # noqa: F401
from matplotlib.figure import Figure

figure = Figure()
figure.subplots().plot([1, 2], label="a")
figure.legend()
figure.savefig(io.BytesIO())
