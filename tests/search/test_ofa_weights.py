"""Published once-for-all supernets, on weights made up in their layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hwprof.errors import DataError, IncompatibleRunError, SpaceError
from hwprof.search.learning.checkpoint import load_checkpoint
from hwprof.search.scoring.accuracy import network_from_checkpoint, open_accuracy
from hwprof.search.scoring.ofa_accuracy import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    OfaAccuracy,
    imagenet_task,
)
from hwprof.search.supernets import ofa_weights
from hwprof.search.supernets.ofa_weights import OfaSupernet, is_published
from hwprof.space import Architecture, get_space
from hwprof.space.mbconv import parse_mbconv
from tests.search.ofa_reference import (
    MOBILES,
    State,
    run_mobile,
    run_resnet,
    write_mobile,
    write_resnet,
)

SIDE = 64
"""Published layouts take any resolution; small images keep the tests short."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, State]]:
    """Every published layout, as the released files are: under ``state_dict``."""
    folder = tmp_path_factory.mktemp("ofa")
    states = {name: write_mobile(net) for name, net in MOBILES.items()}
    states["ofa-resnet50"] = write_resnet()
    for name, state in states.items():
        torch.save({"state_dict": state}, folder / name)
    return {name: (folder / name, state) for name, state in states.items()}


@pytest.fixture(scope="module")
def supernets(files: dict[str, tuple[Path, State]]) -> dict[str, OfaSupernet]:
    return {name: OfaSupernet.open(path) for name, (path, _) in files.items()}


def random_archs(space: str, n: int) -> list[Architecture]:
    rng = np.random.default_rng(3)
    found = get_space(space, SIDE)
    return [found.sample(rng) for _ in range(n)]


def images() -> torch.Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def expected_logits(name: str, state: State, arch: Architecture) -> torch.Tensor:
    if name == "ofa-resnet50":
        ratios = [[float(b.removeprefix("bottleneck_e")) for b in unit] for unit in arch.units]
        assert arch.stem_depth is not None
        assert arch.widths is not None
        return run_resnet(state, images(), ratios, arch.stem_depth, arch.widths)
    units = [[parse_mbconv(block) for block in unit] for unit in arch.units]
    return run_mobile(MOBILES[name], state, images(), units)


@pytest.mark.parametrize("name", [*MOBILES, "ofa-resnet50"])
def test_sub_networks_compute_what_the_published_definition_says(name, files, supernets):
    assert supernets[name].space.name == name
    for arch in random_archs(name, 3):
        with torch.inference_mode():
            found = supernets[name].network(arch)(images())
            expected = expected_logits(name, files[name][1], arch)
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def respelt(name: str) -> str:
    """Return the other spelling that the public loader takes."""
    name = name.replace(".mobile_inverted_conv.", ".conv.").replace(".bn.bn.", ".bn.")
    name = name.replace(".linear.linear.", ".linear.")
    return name.replace(".conv.conv.weight", ".conv.weight")


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.2", "ofa-resnet50"])
def test_a_bare_state_dict_in_the_other_spelling_is_the_same_supernet(
    name, files, supernets, tmp_path
):
    other = tmp_path / "bare"
    torch.save({respelt(n): t for n, t in files[name][1].items()}, other)
    (arch,) = random_archs(name, 1)
    with torch.inference_mode():
        found = OfaSupernet.open(other).network(arch)(images())
        torch.testing.assert_close(found, supernets[name].network(arch)(images()))


def test_a_kernel_of_three_goes_through_both_matrices(files, tmp_path):
    """Identity matrices leave the middle of the kernel; doubling each gives four times that."""
    _, state = files["ofa-mbv3-w1.0"]
    state = dict(state)
    block = "blocks.1.mobile_inverted_conv.depth_conv.conv"
    state[f"{block}.7to5_matrix"] = 2.0 * torch.eye(25)
    state[f"{block}.5to3_matrix"] = 2.0 * torch.eye(9)
    torch.save(state, tmp_path / "doubled")
    arch = Architecture(
        space="ofa-mbv3-w1.0", resolution_px=SIDE, units=(("mbconv_k3_e4",) * 2,) * 5
    )
    network = OfaSupernet.open(tmp_path / "doubled").network(arch)
    found = network.get_parameter("u0.l0.depthwise.conv.weight")
    # 16 channels enter the first unit: 64 are active.
    expected = 4.0 * state[f"{block}.conv.weight"][:64, :, 2:5, 2:5]
    torch.testing.assert_close(found.detach(), expected)


class TestRefusals:
    def changed(self, files, tmp_path: Path, **changes: torch.Tensor | None) -> Path:
        _, state = files["ofa-mbv3-w1.2"]
        state = dict(state)
        for name, tensor in changes.items():
            if tensor is None:
                del state[name]
            else:
                state[name] = tensor
        torch.save(state, tmp_path / "changed")
        return tmp_path / "changed"

    def test_a_missing_tensor_is_named(self, files, tmp_path):
        name = "blocks.3.mobile_inverted_conv.depth_conv.conv.5to3_matrix"
        path = self.changed(files, tmp_path, **{name: None})
        with pytest.raises(DataError, match=r"lacks the tensor 'blocks\.3\.conv\..*5to3_matrix'"):
            OfaSupernet.open(path)

    def test_a_tensor_of_another_shape_is_named(self, files, tmp_path):
        path = self.changed(files, tmp_path, **{"first_conv.conv.weight": torch.zeros(16, 3, 3, 3)})
        with pytest.raises(DataError, match=r"first_conv\.conv\.weight.*\(16, 3, 3, 3\)"):
            OfaSupernet.open(path)

    def test_an_unknown_tensor_is_named(self, files, tmp_path):
        path = self.changed(files, tmp_path, **{"blocks.21.conv.weight": torch.zeros(1)})
        with pytest.raises(DataError, match=r"blocks\.21\.conv\.weight.*no network"):
            OfaSupernet.open(path)

    def test_another_width_is_named(self, files, tmp_path):
        wide = torch.zeros(777, 192, 1, 1)
        path = self.changed(files, tmp_path, **{"final_expand_layer.conv.weight": wide})
        with pytest.raises(DataError, match="777 channels"):
            OfaSupernet.open(path)

    def test_a_network_of_another_space_is_refused(self, supernets):
        supernet = supernets["ofa-mbv3-w1.2"]
        (arch,) = random_archs("ofa-mbv3-w1.0", 1)
        with pytest.raises(IncompatibleRunError, match=r"ofa-mbv3-w1\.0"):
            supernet.network(arch)

    def test_a_network_outside_its_space_is_refused(self, supernets):
        supernet = supernets["ofa-mbv3-w1.2"]
        arch = Architecture(
            space="ofa-mbv3-w1.2", resolution_px=SIDE, units=(("mbconv_k9_e4",) * 2,) * 5
        )
        with pytest.raises(SpaceError, match="mbconv_k9_e4"):
            supernet.network(arch)

    def test_other_files_are_not_taken_for_one(self, tmp_path):
        (tmp_path / "text").write_text("no tensors")
        torch.save({"format": 1, "meta": "{}", "weights": {}}, tmp_path / "ours.pt")
        assert not is_published(tmp_path / "text")
        assert not is_published(tmp_path / "ours.pt")
        with pytest.raises(DataError, match="no supernet that once-for-all published"):
            OfaSupernet.open(tmp_path / "ours.pt")

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(DataError, match="nowhere"):
            OfaSupernet.open(tmp_path / "nowhere")

    def test_images_are_asked_for(self, files):
        with pytest.raises(DataError, match="--data"):
            open_accuracy(f"supernet:{files['ofa-mbv3-w1.2'][0]}")

    def test_training_does_not_write_over_one(self, files):
        with pytest.raises(DataError, match="published once-for-all supernet, which needs no"):
            load_checkpoint(files["ofa-mbv3-w1.2"][0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for ImageNet: two of its classes, a few small images each."""
    root = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        for name in ("n01440764", "n01443537"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, size=(80, 100, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def test_images_are_cut_and_normalised_as_for_imagenet(folder: Path):
    task = imagenet_task(str(folder), 56, n_classes=2)
    whole = imagenet_task(str(folder), 64, n_classes=2)
    assert task.train.images.shape[1:] == (56, 56, 3)
    assert whole.resolution_px == 64
    np.testing.assert_allclose(task.mean, IMAGENET_MEAN)
    np.testing.assert_allclose(task.std, IMAGENET_STD)
    with pytest.raises(DataError, match="has 2 classes; the supernet tells 1000 apart"):
        imagenet_task(str(folder), 56)


def two_classes(state: State) -> State:
    """Keep two of the thousand outputs, so that a folder of two classes can be judged."""
    names = ("classifier.linear.weight", "classifier.linear.bias")
    return {n: t[:2] if n in names else t for n, t in state.items()}


def test_accuracy_is_that_of_the_recalibrated_network(files, folder, tmp_path, monkeypatch):
    """Scored by hand: batch norm over the training images, then argmax on the others."""
    path = tmp_path / "two"
    torch.save(two_classes(files["ofa-mbv3-w1.0"][1]), path)
    two = replace(get_space("ofa-mbv3-w1.0"), n_classes=2)
    monkeypatch.setattr(ofa_weights, "get_space", lambda name: two)
    source = open_accuracy(f"supernet:{path}", data=str(folder))
    assert isinstance(source, OfaAccuracy)
    (arch,) = random_archs("ofa-mbv3-w1.0", 1)

    task = imagenet_task(str(folder), SIDE, n_classes=2)

    def tensor(pixels: np.ndarray) -> torch.Tensor:
        scaled = (pixels.astype(np.float64) - IMAGENET_MEAN) / IMAGENET_STD
        return torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float()

    network = OfaSupernet.open(path).network(arch)
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = 1.0
            norm.train()
    with torch.inference_mode():
        network(tensor(task.train.images))
        logits = network.eval()(tensor(task.validation.images))
        alone = network_from_checkpoint(path, arch, data=str(folder))
        torch.testing.assert_close(
            alone(tensor(task.validation.images)), logits, rtol=1e-2, atol=1e-2
        )
    right = (logits.argmax(1).numpy() == task.validation.labels).mean()
    assert source.score([arch]) == [pytest.approx(100.0 * right)]
    other = OfaAccuracy.open(path, data="elsewhere")
    assert other.digest != source.digest
