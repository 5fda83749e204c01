"""Wrote checkpoint.pt beside it: a small spiking VGG that has learned upright digits with SpikingJelly.

    python examples/finetune/pretrain.py        (needs torch and spikingjelly 2.0.0; a minute)
"""

import gzip
from pathlib import Path

import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.learning.online_learning import ottt_online_training
from spikingjelly.activation_based.model.spiking_vggws_ottt import OTTTSpikingVGG
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
TIME_STEPS, EPOCHS = 6, 15

torch.manual_seed(1)
with gzip.open(HERE.parent.parent / "src/data/digits.csv.gz", "rt") as file:
    rows = torch.tensor([[int(number) for number in line.split(",")] for line in file])
images, labels = rows[:, :64].view(-1, 1, 8, 8) / 16.0, rows[:, 64]
train, test = slice(0, 1437), slice(1437, None)

# SpikingJelly's network for three channels and 512 features, made for one and 32.
net = OTTTSpikingVGG([16, "A", 32], spiking_neuron=neuron.OTTTLIFNode, num_classes=10)
net.features[0] = layer.WSConv2d(1, 16, kernel_size=3, padding=1)
net.classifier = layer.OTTTSequential(
    layer.AdaptiveAvgPool2d((2, 2)), layer.Flatten(1), layer.Linear(32 * 4, 10))


def loss_fn(y, label):
    return F.cross_entropy(y, label) / TIME_STEPS


optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
for epoch in range(EPOCHS):
    net.train()
    for batch in torch.randperm(1437).split(64):
        x_seq = images[train][batch][:, None].expand(-1, TIME_STEPS, -1, -1, -1)
        label_seq = labels[train][batch][:, None].expand(-1, TIME_STEPS)
        ottt_online_training(net, optimizer, x_seq, label_seq, loss_fn, True)
        functional.reset_net(net)
    with torch.no_grad():
        net.eval()
        answer = sum(net(images[test]) for _ in range(TIME_STEPS))
        functional.reset_net(net)
    accuracy = (answer.argmax(1) == labels[test]).double().mean().item()
    print(f"epoch {epoch}: accuracy {accuracy:.3f}")

torch.save({"epoch": EPOCHS, "accuracy": accuracy, "state_dict": net.state_dict()}, HERE / "checkpoint.pt")
