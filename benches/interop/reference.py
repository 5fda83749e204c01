"""The Python side of `scripts/interop-check`, with SpikingJelly. `reference.py write FOLDER`, then, when
`benches/interop/main.rs` has read what lies there and has written its own, `reference.py read FOLDER`.

Lines on the output are `row PART WHAT FILES WORST TOLERANCE`, separated by tabs.
"""

import collections
import json
import sys
import warnings
from pathlib import Path

sys.dont_write_bytecode = True
FIXTURES = Path(__file__).resolve().parent.parent.parent / "tests/fixtures"
sys.path.insert(0, str(FIXTURES))

import safetensors.torch  # noqa: E402
import torch  # noqa: E402
from make import OTTT, Redraw, gather, named, watched  # noqa: E402
from models import CLASSES, TIME_STEPS, build, step_loss  # noqa: E402
from spikingjelly.activation_based import functional, layer, neuron  # noqa: E402
from spikingjelly.activation_based.learning.online_learning import ottt_online_training  # noqa: E402
from torch import nn  # noqa: E402

import script_modules  # noqa: E402

KINDS = dict(f32=torch.float32, f64=torch.float64, f16=torch.float16, bf16=torch.bfloat16)
TOLERANCE = dict(f32=1e-4, f64=1e-5, f16=1e-4, bf16=1e-4)
INPUTS = 16


def vgg():
    return build(neuron.OTTTLIFNode, OTTT, cfg=[6, "A", 8], in_channels=2, fc_hw=2)


def over_time(target):
    return target[:, None].expand(-1, TIME_STEPS)


def logits(net, x):
    """The answers at each step, in evaluation."""
    functional.reset_net(net)
    with torch.no_grad():
        y = torch.stack([net.eval()(x[:, t]) for t in range(TIME_STEPS)], 1)
    functional.reset_net(net)
    return y


def draw(shape):
    return 1.5 * torch.randn(*shape[:1], TIME_STEPS, *shape[1:]), torch.randint(CLASSES, shape[:1])


def trained():
    """A small VGG, some steps on."""
    net = vgg().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(5):
        x, target = draw((4, 2, 8, 8))
        ottt_online_training(net, optimizer, x, over_time(target), step_loss, True)
        functional.reset_net(net)
    return net


def expected(net):
    """Answers, loss and gradients on an input that brings no membrane too near its threshold."""
    while True:
        net.zero_grad()
        x, target = draw((3, 2, 8, 8))
        still = torch.optim.SGD(net.parameters(), lr=0.0)
        try:
            with watched(net, 0.0, 1.0):
                y = logits(net, x)
                loss, outputs = ottt_online_training(
                    net.train(), still, x, over_time(target), step_loss, False)
        except Redraw:
            functional.reset_net(net)
            continue
        functional.reset_net(net)
        grads = named("grad", ((n, p.grad) for n, p in net.named_parameters()))
        inputs = draw((INPUTS, 2, 8, 8))[0]
        made = dict(x=x, target=target, logits=y, loss=loss, outputs=outputs, inputs=inputs) | grads
        return {name: tensor.detach().contiguous() for name, tensor in made.items()}


def wrapped(state, name):
    return collections.OrderedDict((name(key), value) for key, value in state.items())


def of_authors(key):
    """OTTT-SNN's name for it."""
    part, place, rest = key.split(".", 2)
    if part == "classifier":
        return f"classifier.{int(place) - 2}.op.{rest}"
    return key if place == "0" else f"features.{place}.op.{rest}"


def strided(t):
    """The same numbers, in another order in memory."""
    return t.transpose(0, -1).contiguous().transpose(0, -1)


def sliced(t):
    """The same numbers in the middle of a larger storage."""
    large = torch.zeros(t.shape[0] + 2, *t.shape[1:], dtype=t.dtype)
    large[1:-1] = t
    return large[1:-1]


def shared(state):
    """All in one storage."""
    flat = torch.cat([t.flatten() for t in state.values()])
    parts = flat.split([t.numel() for t in state.values()])
    return collections.OrderedDict((k, part.view_as(t)) for (k, t), part in zip(state.items(), parts))


def ways(net, state):
    """What is saved, by file name, with the key to give; a name that begins with `authors` has OTTT-SNN's names."""
    optimizer = torch.optim.Adam(net.parameters()).state_dict()
    checkpoint = dict(epoch=7, best=0.5, name="a run", optimizer=optimizer, history=[0.1, (2, None)])
    yield "dict.pt", dict(state), None
    yield "ordered_dict.pt", collections.OrderedDict(state), None
    yield "state_dict.pth", state, None
    yield "state_dict.bin", state, None
    yield "weights.safetensors", {k: t.contiguous() for k, t in state.items()}, None
    for key in ("state_dict", "model", "net"):
        yield f"checkpoint_{key}.pt", checkpoint | {key: state}, None
    yield "checkpoint_named.pt", checkpoint | {"ema weights": state}, "ema weights"
    yield "ddp.pt", wrapped(state, lambda k: f"module.{k}"), None
    yield "ddp.safetensors", wrapped(state, lambda k: f"module.{k}"), None
    yield "compiled.pt", wrapped(state, lambda k: f"_orig_mod.{k}"), None
    yield "compiled_ddp.pt", checkpoint | {"model": wrapped(state, lambda k: f"_orig_mod.module.{k}")}, None
    yield "op.pt", wrapped(state, lambda k: k.replace(".weight", ".op.weight")), None
    yield "authors.pt", checkpoint | {"net": wrapped(state, of_authors)}, None
    yield "parameters.pt", {k: nn.Parameter(t) for k, t in state.items()}, None
    yield "named_parameters.pt", {k: nn.Parameter(t, requires_grad=False) for k, t in state.items()}, None
    yield "strided.pt", {k: strided(t) for k, t in state.items()}, None
    yield "sliced.pt", {k: sliced(t) for k, t in state.items()}, None
    yield "shared.pt", shared(state), None
    yield "shared_checkpoint.bin", checkpoint | {"state_dict": shared(state)}, None


def write(folder):
    files = []
    for variant, dtype in KINDS.items():
        torch.set_default_dtype(torch.float64 if variant == "f64" else torch.float32)
        (folder / variant).mkdir()
        net = trained()
        state = collections.OrderedDict((k, t.to(dtype)) for k, t in net.state_dict().items())
        net.load_state_dict(state)  # what is computed with is what the file says
        safetensors.torch.save_file(expected(net), folder / f"{variant}.safetensors")
        for name, what, key in ways(net, state):
            path = folder / variant / name
            if path.suffix == ".safetensors":
                safetensors.torch.save_file(what, path, metadata={"format": "pt"})
            else:
                torch.save(what, path)
            files.append(dict(file=f"{variant}/{name}", variant=variant, key=key, authors=name.startswith("authors")))
    for suffix in ("f32", "f64"):
        torch.set_default_dtype(KINDS[suffix])
        script_modules.FOLDER = folder
        tensors, _ = gather(f"interop.{suffix}", lambda record: script_modules.script_modules(suffix, record))
        tensors = {name.removeprefix("net/"): tensor for name, tensor in tensors.items()}
        tensors["inputs"] = 2 * torch.randn(INPUTS, TIME_STEPS, 2, 6, 6)
        safetensors.torch.save_file(tensors, folder / f"scripts.{suffix}.safetensors")
    (folder / "plan.json").write_text(json.dumps(files))
    print(f"files\t{len(files)}")


def relative(got, wanted):
    return ((got - wanted).abs().max() / wanted.abs().max()).nan_to_num(nan=torch.inf).item()


def compared(net, answers):
    """The largest difference over the inputs that bring no membrane too near its threshold."""
    worst, count = 0.0, 0
    for x, y in zip(answers["inputs"].split(1), answers["logits"].split(1)):
        try:
            with watched(net, 0.0, 1.0):
                got = logits(net, x)
        except Redraw:
            functional.reset_net(net)
            continue
        worst, count = max(worst, relative(got, y)), count + 1
    assert count >= 3, f"only {count} inputs keep the membranes off their thresholds"
    return worst


def row(part, what, files, worst, variant):
    print("row", part, f"{what}, {variant}", files, worst, TOLERANCE[variant], sep="\t")


def read(folder):
    for variant in ("f32", "f64"):
        torch.set_default_dtype(KINDS[variant])
        before = safetensors.torch.load_file(folder / f"{variant}/weights.safetensors")
        answers = safetensors.torch.load_file(folder / f"ours.{variant}.safetensors")
        worst, paths = 0.0, sorted((folder / "ours").glob(f"{variant}.*"))
        for path in paths:
            if path.suffix == ".safetensors":
                state = safetensors.torch.load_file(path)
            else:
                state = torch.load(path, weights_only=True)
            net = vgg()
            net.load_state_dict(state, strict=True)
            assert list(state) == list(net.state_dict()) or path.suffix == ".safetensors", "another order"
            assert not any(t.equal(before[k]) for k, t in state.items()), "Rust trained nothing"
            worst = max(worst, compared(net, answers))
        row("b", "answers of what Rust wrote", len(paths), worst, variant)

        answers = safetensors.torch.load_file(folder / f"our_scripts.{variant}.safetensors")
        loaded = {name: torch.jit.load(folder / f"ours/{name}.{variant}.pt") for name in ("conv", "block", "mlp")}
        for name, module in loaded.items():
            first = torch.jit.load(folder / f"{name}.{variant}.pt")
            assert not any(p.equal(q) for p, q in zip(module.parameters(), first.parameters())), "not trained"
        pool = torch.jit.load(folder / f"ours/pool.{variant}.pt")
        net = layer.OTTTSequential(
            loaded["conv"], neuron.OTTTLIFNode(**OTTT), pool, loaded["block"], neuron.OTTTLIFNode(**OTTT),
            layer.Flatten(1), loaded["mlp"])
        row("c", "answers of the modules that Rust wrote", 4, compared(net, answers), variant)


warnings.simplefilter("ignore")
torch.set_num_threads(1)
torch.manual_seed(3)
{"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
