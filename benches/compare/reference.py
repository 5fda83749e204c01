"""The other side of `scripts/compare`: SpikingJelly. `reference.py CASE FILE THREADS`, as main.rs.

It draws input and weights, and writes them to FILE before it is ready.
"""

import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.learning import online_learning
from spikingjelly.activation_based.model.spiking_vggws_ottt import Scale, ottt_spiking_vggws
from torch import nn

TIME_STEPS = 6


def mlp():
    return layer.OTTTSequential(
        nn.Linear(784, 512), neuron.OTTTLIFNode(), nn.Linear(512, 512), neuron.OTTTLIFNode(),
        nn.Linear(512, 10))


def conv():
    def block(channels, out):
        return [layer.WSConv2d(channels, out, 3, padding=1), neuron.OTTTLIFNode(), Scale(2.74),
                layer.AvgPool2d(2)]
    return layer.OTTTSequential(*block(1, 24), *block(24, 48), layer.Flatten(1), layer.Linear(48 * 49, 10))


NETWORKS = {  # how to build it, the shape of a batch
    "vgg": (lambda: ottt_spiking_vggws(num_classes=10), (16, 3, 32, 32)),
    "mlp64": (mlp, (64, 784)),
    "mlp1": (mlp, (1, 784)),
    "conv": (conv, (64, 1, 28, 28)),
}


def loss_fn(y, label):
    squares = F.mse_loss(y, F.one_hot(label, 10).to(y))
    return (0.95 * F.cross_entropy(y, label) + 0.05 * squares) / TIME_STEPS


def resident_mb(name):
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024
    except OSError:
        return float("nan")


def main(case, file, threads):
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    network, mode = case.split("-", 1)
    build, shape = NETWORKS[network]
    net = build().train()
    x, label = torch.randn(shape), torch.randint(10, shape[:1])
    stored = {"x": x, "label": label}
    weighted = [m for m in net.modules() if next(m.parameters(recurse=False), None) is not None]
    for i, module in enumerate(weighted):
        stored |= {f"{i}.{name}": p.detach() for name, p in module.named_parameters(recurse=False)}
    save_file(stored, file)
    x_seq = x.unsqueeze(1).expand(-1, TIME_STEPS, *x.shape[1:])
    label_seq = label.unsqueeze(1).expand(-1, TIME_STEPS)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    loaded = resident_mb("VmRSS")
    try:
        with open("/proc/self/clear_refs", "w") as refs:
            refs.write("5")  # the peak counts from here
    except OSError:
        pass
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            loss, _ = online_learning.ottt_online_training(
                net, optimizer, x_seq, label_seq, loss_fn, mode == "online")
            functional.reset_net(net)
            loss = loss.item()
        seconds = (time.perf_counter() - start) / int(line)
        print(seconds, loss, resident_mb("VmHWM") - loaded, flush=True)


main(*sys.argv[1:])
