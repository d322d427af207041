"""The schedule against hand-computed rates, AdamW against its equations, and which parameters decay."""

import math

import pytest
import torch
from torch import nn

from evomask.engine.optim import (
    OptimConfig,
    build_adamw,
    build_lars,
    build_layer_decayed_adamw,
    build_sgd,
    learning_rate,
)
from evomask.models.classifier import add_classifier
from evomask.models.mae import MAEConfig
from evomask.models.simmim import SimMIMConfig, SwinSimMIMConfig
from evomask.models.swin import SwinConfig
from evomask.models.vit import ViTConfig, build_vit

BASE, LEAST = 1e-3, 1e-5


def rate(step: int, warmup_epochs: float = 2, batch_size: int = 512, epochs: int = 6) -> float:
    config = OptimConfig(base_lr=BASE, min_lr=LEAST, warmup_epochs=warmup_epochs)
    return learning_rate(step, config=config, batch_size=batch_size, steps_per_epoch=10, epochs=epochs)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (1, 1e-4),  # twice the base rate (512 = 2 * 256) times 1 / 20
        (10, 1e-3),
        (19, 1.9e-3),
        (20, 2e-3),  # the peak
        (30, 2 * (LEAST + (BASE - LEAST) * (1 + math.sqrt(0.5)) / 2)),  # a quarter of the way: cos 45 degrees
        (40, 2 * (LEAST + BASE) / 2),  # half way
        (50, 2 * (LEAST + (BASE - LEAST) * (1 - math.sqrt(0.5)) / 2)),
        (60, 2 * LEAST),  # the end, which no step reaches
    ],
)
def test_the_schedule_at_steps_computed_by_hand(step: int, expected: float) -> None:
    assert rate(step) == pytest.approx(expected, rel=1e-12)


def test_the_rate_rises_to_one_peak_and_falls() -> None:
    rates = [rate(step) for step in range(60)]
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert max(rates) == rates[20]


@pytest.mark.parametrize(("batch_size", "factor"), [(64, 0.25), (256, 1), (4096, 16)])
def test_the_rate_is_proportional_to_the_batch_size(batch_size: int, factor: float) -> None:
    for step in (5, 20, 37):
        assert rate(step, batch_size=batch_size) == pytest.approx(factor * rate(step, batch_size=256))


def test_the_warm_up_may_be_a_fraction_of_an_epoch() -> None:
    # 0.25 epochs are 2.5 steps: steps 0 to 2 rise, step 3 is 0.5 of 57.5 steps into the cosine.
    expected = [0, 2e-3 / 2.5, 2e-3 * 2 / 2.5, 2 * (LEAST + (BASE - LEAST) * (1 + math.cos(math.pi * 0.5 / 57.5)) / 2)]
    assert [rate(step, warmup_epochs=0.25) for step in range(4)] == pytest.approx(expected)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert rate(0, warmup_epochs=0) == pytest.approx(2 * BASE)


def test_a_warm_up_longer_than_the_run_only_rises() -> None:
    assert [rate(step, warmup_epochs=40, epochs=1) for step in range(10)] == pytest.approx([5e-6 * step for step in range(10)])


def test_in_steps_it_falls_to_a_tenth_and_a_hundredth() -> None:
    """A run of 12 epochs of 4 steps, as detectors are trained: after the 9th and the 11th epoch."""
    config = OptimConfig(base_lr=BASE, warmup_epochs=0.5, decay="steps")
    numbers = {"config": config, "batch_size": 512, "steps_per_epoch": 4, "epochs": 12}
    rates = [learning_rate(step, **numbers) for step in range(48)]
    assert rates[:2] == pytest.approx([0, BASE])
    assert rates[2:36] == pytest.approx([2 * BASE] * 34)
    assert rates[36:44] == pytest.approx([2 * BASE / 10] * 8)
    assert rates[44:] == pytest.approx([2 * BASE / 100] * 4)


def tiny_mae() -> nn.Module:
    vit = ViTConfig(image_size=(16, 16), patch_size=8, width=16, depth=1, heads=2, registers=2, qk_norm=True)
    return MAEConfig(encoder=vit, decoder_width=16, decoder_depth=1, decoder_heads=2).build()


def test_matrices_decay_and_biases_norms_and_tokens_do_not() -> None:
    model = tiny_mae()
    optimizer = build_adamw(model, OptimConfig(weight_decay=0.05))
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: decay_of.get(id(p)) for name, p in model.named_parameters() if p.requires_grad}

    def is_plain(name: str) -> bool:
        return name.endswith("bias") or "norm" in name or name in ("encoder.cls_token", "encoder.reg_token", "mask_token")

    assert named == {name: 0.0 if is_plain(name) else 0.05 for name in named}
    assert {"encoder.cls_token", "encoder.reg_token", "mask_token", "encoder.patch_embed.proj.weight"} <= set(named)
    assert len(decay_of) == len(named), "what is not trained has no place in the optimiser"


def test_the_fixed_positions_are_not_trained() -> None:
    model = tiny_mae()
    trained = {id(p) for group in build_adamw(model, OptimConfig()).param_groups for p in group["params"]}
    positions = [p for name, p in model.named_parameters() if "pos" in name]
    assert positions
    assert not any(id(p) in trained for p in positions)


def test_the_betas_of_the_configuration_are_used() -> None:
    optimizer = build_adamw(nn.Linear(2, 2), OptimConfig(betas=(0.8, 0.7)))
    assert [group["betas"] for group in optimizer.param_groups] == [(0.8, 0.7)] * 2


def test_steps_equal_the_equations_of_adamw() -> None:
    """Loshchilov and Hutter, 2019, algorithm 2, in float64 and by hand, with a rate that changes at every step."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    decay, beta1, beta2 = 0.05, 0.9, 0.95
    weights = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    first = {name: torch.zeros_like(w) for name, w in weights.items()}
    second = {name: torch.zeros_like(w) for name, w in weights.items()}
    optimizer = build_adamw(model, OptimConfig(weight_decay=decay, betas=(beta1, beta2)))

    for step, lr in enumerate((1e-2, 3e-3, 5e-2), start=1):
        for group in optimizer.param_groups:
            group["lr"] = lr
        gradients = {name: torch.randn_like(p) for name, p in model.named_parameters()}
        for name, p in model.named_parameters():
            p.grad = gradients[name].clone()
        optimizer.step()

        for name, w in weights.items():
            g = gradients[name].double()
            w *= 1 - lr * (decay if name == "weight" else 0.0)
            first[name] = beta1 * first[name] + (1 - beta1) * g
            second[name] = beta2 * second[name] + (1 - beta2) * g**2
            w -= lr * (first[name] / (1 - beta1**step)) / ((second[name] / (1 - beta2**step)).sqrt() + 1e-8)
        for name, p in model.named_parameters():
            torch.testing.assert_close(p.detach().double(), weights[name], rtol=1e-5, atol=1e-7)


def test_a_rate_that_was_never_set_moves_nothing() -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    optimizer = build_adamw(model, OptimConfig())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(model.weight, before)


def test_layer_decay_by_the_formula() -> None:
    vit = build_vit(ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), patch_size=8, width=48, depth=3, heads=3))
    classifier = add_classifier(vit, 5)
    optimizer = build_layer_decayed_adamw(classifier, OptimConfig(weight_decay=0.05), layer_decay=0.5)
    names = {id(parameter): name for name, parameter in classifier.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    # MAE: the embedding is layer 0, block i is layer i + 1, what is behind the blocks layer depth + 1 = 4.
    layer = {"cls_token": 0, "pos_embed": 0, "patch_embed": 0, "fc_norm": 4, "head": 4} | {
        f"blocks.{i}": i + 1 for i in range(3)
    }
    assert len(found) == len(names)
    for name, parameter in classifier.named_parameters():
        (own,) = [layer[prefix] for prefix in layer if name == prefix or name.startswith(prefix + ".")]
        decayed = parameter.ndim > 1 and name not in ("cls_token", "pos_embed")
        assert found[name] == (0.5 ** (4 - own), 0.05 if decayed else 0.0), name


def test_lars_by_its_formula() -> None:
    torch.manual_seed(0)
    heads = [nn.Linear(7, 3), nn.Linear(7, 3)]
    optimizer = build_lars(heads, (0.1, 0.4), OptimConfig(base_lr=0.1, weight_decay=0.0))
    mine = [{name: value.detach().double() for name, value in head.named_parameters()} for head in heads]
    momentum = [{name: torch.zeros_like(value) for name, value in one.items()} for one in mine]
    optimizer.found_inf = torch.zeros(())
    for step in range(4):
        lr = 0.3 * (step + 1)
        x, y = torch.randn(16, 7), torch.randint(0, 3, (16,))
        torch.stack([nn.functional.cross_entropy(head(x), y) for head in heads]).sum().backward()
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        for head, one, velocity, scale in zip(heads, mine, momentum, (1.0, 4.0), strict=True):
            for name, parameter in head.named_parameters():
                assert parameter.grad is not None
                gradient = parameter.grad.double()
                if parameter.ndim > 1:  # no adaptation of biases
                    gradient = gradient * 0.001 * one[name].norm() / gradient.norm()
                velocity[name] = 0.9 * velocity[name] + gradient
                one[name] = one[name] - lr * scale * velocity[name]
        optimizer.step()
        optimizer.zero_grad()
        for head, one in zip(heads, mine, strict=True):
            for name, parameter in head.named_parameters():
                torch.testing.assert_close(parameter.detach().double(), one[name], rtol=1e-5, atol=1e-6)


def test_lars_leaves_out_a_step_that_is_not_finite() -> None:
    head = nn.Linear(2, 2)
    before = head.weight.detach().clone()
    optimizer = build_lars([head], (0.1,), OptimConfig(base_lr=0.1))
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    head(torch.full((1, 2), torch.nan)).sum().backward()
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert torch.equal(head.weight, before)


def test_positions_and_their_biases_do_not_decay() -> None:
    """As BEiT's and SimMIM's code has it; of Swin v2 also what makes the bias and the scale of its attention."""
    small = {"image_size": (32, 32), "width": 8, "depths": (1, 1), "heads": (1, 1), "window": 4}
    vit = ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), patch_size=8, width=24, depth=1, heads=2)
    configs = {
        SimMIMConfig(encoder=vit): ("mask_token", "encoder.pos_embed", "encoder.cls_token"),
        SwinSimMIMConfig(encoder=SwinConfig(**small)): ("encoder.layers.1.blocks.0.attn.relative_position_bias_table",),
        SwinSimMIMConfig(encoder=SwinConfig(name="swinv2_tiny_window8_256", **small)): (
            "encoder.layers.0.blocks.0.attn.logit_scale",
            "encoder.layers.0.blocks.0.attn.cpb_mlp.0.weight",
        ),
    }
    for config, names in configs.items():
        host = config.build()
        groups = build_adamw(host, OptimConfig(weight_decay=0.1)).param_groups
        decaying = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
        parameters = dict(host.named_parameters())
        assert not any(id(parameters[name]) in decaying for name in names)
        matrices = [
            p for name, p in parameters.items() if name.endswith(("qkv.weight", "fc1.weight", "proj.weight", "head.weight"))
        ]
        assert all(id(p) in decaying for p in matrices)
        assert sum(len(group["params"]) for group in groups) == len(parameters)


def test_a_line_down_to_the_end_after_the_warm_up() -> None:
    config = OptimConfig(base_lr=1e-3, min_lr=1e-4, warmup_epochs=1, decay="linear")
    rates = [learning_rate(step, config=config, batch_size=256, steps_per_epoch=10, epochs=6) for step in (5, 10, 35, 60)]
    assert rates == pytest.approx([5e-4, 1e-3, (1e-3 + 1e-4) / 2, 1e-4])  # step 35 is half way from 10 to 60


def test_what_stands_beside_an_encoder_has_the_full_rate() -> None:
    encoder = ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), width=32, depth=2, heads=2).build()
    model = nn.ModuleDict({"encoder": encoder, "head": nn.Sequential(nn.Linear(32, 3), nn.BatchNorm1d(3))})
    optimizer = build_layer_decayed_adamw(model, OptimConfig(weight_decay=0.1), 0.5, encoder)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found.keys() == dict(model.named_parameters()).keys()
    assert found["head.0.weight"] == (1.0, 0.1)
    assert found["head.0.bias"] == found["head.1.weight"] == (1.0, 0.0)
    assert found["encoder.norm.weight"] == (0.5, 0.0)
    assert found["encoder.blocks.1.attn.qkv.weight"] == (0.5, 0.1)
    assert found["encoder.patch_embed.proj.weight"] == (0.125, 0.1)
    encoder.requires_grad_(False)
    left = build_layer_decayed_adamw(model, OptimConfig(weight_decay=0.1), 0.5, encoder).param_groups
    assert [len(group["params"]) for group in left] == [1, 3]


@pytest.mark.parametrize("build", [lambda model: build_sgd(model, 0.9), lambda model: build_adamw(model, OptimConfig())])
def test_a_first_step_that_is_left_out_leaves_nothing_behind(build) -> None:
    torch.manual_seed(0)
    models = [nn.Linear(300, 100) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model, gradients in zip(models, ([math.nan, 1.0, 2.0], [1.0, 2.0]), strict=True):
        garbage = [torch.full((300 * 100,), math.nan) for _ in range(8)]
        del garbage  # what fresh memory may hold
        optimizer = build(model)
        optimizer.param_groups[0]["lr"] = 0.1
        for gradient in gradients:
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, gradient)
            optimizer.found_inf = torch.tensor(float(math.isnan(gradient)))
            optimizer.grad_scale = None
            optimizer.step()
    for skipped, plain in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(skipped, plain)
