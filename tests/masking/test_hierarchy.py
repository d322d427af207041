from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.cluster import hierarchy as scipy_hierarchy
from scipy.spatial.distance import squareform
from timm.layers.attention import Attention
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch._subclasses.fake_tensor import FakeTensorMode

from evomask.masking import Hierarchy, NonFiniteAffinity, build_hierarchy
from evomask.masking import hierarchy as hierarchy_module
from evomask.masking.affinity import symmetric_attention
from evomask.masking.hierarchy import Linkage

BOTH_LINKAGES = pytest.mark.parametrize("linkage", get_args(Linkage))
REAL_GRIDS = [(1, 2), (1, 3), (2, 3), (4, 4), (7, 7), (8, 8), (12, 8), (14, 14), (12, 20), (16, 16)]


def leaf_sets(children, patches: int) -> list[int]:
    """The patches under each node, as the bits of a number."""
    sets = [1 << patch for patch in range(patches)]
    for first, second in children.tolist():
        sets.append(sets[first] | sets[second])
    return sets


def levels(children, patches: int) -> list[int]:
    """Eq. 10."""
    level = [1] * patches
    for first, second in children.tolist():
        level.append(max(level[first], level[second]) + 1)
    return level


def partition(groups) -> set[frozenset[int]]:
    """Group numbers of patches -> the set of groups."""
    groups = list(groups)
    return {frozenset(patch for patch, other in enumerate(groups) if other == group) for group in groups}


def random_affinity(images: int, patches: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if seed % 2:  # like attention
        logits = torch.randn(images, patches, patches, generator=generator)
        return symmetric_attention(logits.mul(2).softmax(dim=-1))
    return symmetric_attention(torch.rand(images, patches, patches, generator=generator))


def tied_affinity(kind: str, patches: int, seed: int) -> torch.Tensor:
    """(1, N, N) of small integers."""
    generator, patch = np.random.default_rng(seed), np.arange(patches)
    prototype = generator.integers(0, 4, patches)
    affinity = {
        "equal": np.full((patches, patches), 3),
        "blocks": np.where(patch[:, None] // 3 == patch // 3, 2, 0),
        "duplicates": generator.integers(0, 50, (4, 4))[prototype[:, None], prototype],
        "integers": generator.integers(0, 4, (patches, patches)),
    }[kind]
    return torch.from_numpy(affinity)[None].float()


def replay(similarity_NN: np.ndarray, children: list[list[int]], linkage: Linkage, slack: float = 0) -> None:
    """Assert that each merge, in its turn, joins a pair than which no other is more similar."""
    patches = len(similarity_NN)
    similarity = np.full((2 * patches - 1, 2 * patches - 1), -np.inf, dtype=similarity_NN.dtype)
    similarity[:patches, :patches] = similarity_NN
    np.fill_diagonal(similarity, -np.inf)
    alive, size = list(range(patches)), [1] * patches
    for new, (first, second) in enumerate(children, start=patches):
        assert similarity[first, second] >= similarity[np.ix_(alive, alive)].max() - slack
        alive.remove(first)
        alive.remove(second)
        size.append(size[first] + size[second])
        share = Fraction(size[first], size[new]) if linkage == "average" else Fraction(1, 2)
        to_union = share * similarity[first, alive] + (1 - share) * similarity[second, alive]
        similarity[new, alive] = similarity[alive, new] = to_union
        alive.append(new)
    assert len(alive) == 1


# Against scipy's greedy result


def assert_scipys_tree(affinity_BNN: torch.Tensor, linkage: Linkage) -> int:
    """Equal leaf sets merge by merge, levels and similarities; how many images have another greedy tree, by a tie.

    Of attention in float32 about one matrix in a thousand has one: 3% of its pairs are equal to another. Means are taken in
    float64, as scipy takes them.
    """
    affinity_BNN = affinity_BNN.double()
    ours, patches, ambiguous = build_hierarchy(affinity_BNN, linkage), affinity_BNN.shape[1], 0
    for image, similarity in enumerate(affinity_BNN.numpy()):
        assert (similarity == similarity.T).all()
        expected = scipy_hierarchy.linkage(squareform(-similarity, checks=False), linkage)
        expected_children = expected[:, :2].astype(int)
        level_of = dict(zip(leaf_sets(ours.children[image], patches), ours.level[image].tolist(), strict=True))
        expected_sets = leaf_sets(expected_children, patches)
        if level_of.keys() != set(expected_sets):
            replay(similarity, ours.children[image].tolist(), linkage, slack=1e-12 * np.abs(similarity).max())
            ambiguous += 1
            continue
        assert level_of == dict(zip(expected_sets, levels(expected_children, patches), strict=True))
        np.testing.assert_allclose(ours.similarity[image].numpy(), -expected[:, 2], rtol=1e-12, atol=1e-15)
        assert ours.size[image, patches:].tolist() == expected[:, 3].tolist()
    return ambiguous


@BOTH_LINKAGES
def test_200_random_matrices_give_scipys_tree(linkage):
    sizes = [2, 3, 4, 5, 7, 9, 12, 16, 20, 25, 36, 49, 64, 81, 100, 128, 144, 196, 225, 256]
    ambiguous = [assert_scipys_tree(random_affinity(10, size, seed), linkage) for seed, size in enumerate(sizes)]
    assert sum(ambiguous) <= 2


@pytest.fixture(scope="module")
def photographs() -> Iterator[Image.Image]:
    """200 images: photographs where the data is at hand, else smooth random ones."""
    files = sorted((Path(__file__).parents[2].parent / "shared/data/imagenette112/train").glob("*/*.webp"))
    if files:
        return (Image.open(file).convert("RGB") for file in files[:: len(files) // 200])
    generator = np.random.default_rng(0)
    small = (Image.fromarray(generator.integers(0, 256, (7, 7, 3), dtype=np.uint8)) for _ in range(200))
    return (image.resize((112, 112), Image.Resampling.BICUBIC) for image in small)


@pytest.fixture(scope="module")
def real_affinities(photographs) -> list[torch.Tensor]:
    """20 images at each of `REAL_GRIDS`: attention in six blocks of a fresh timm ViT, from its plain forward."""
    return [_real_affinity(grid, photographs) for grid in REAL_GRIDS]


@torch.no_grad()
def _real_affinity(grid: tuple[int, int], photographs: Iterator[Image.Image]) -> torch.Tensor:
    height, width = grid[0] * 8, grid[1] * 8
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(grid[0] * grid[1])
        model = timm.create_model("vit_tiny_patch16_224", img_size=(height, width), patch_size=8, depth=6).eval()
    assert isinstance(model, VisionTransformer)
    assert model.pos_embed is not None
    model.pos_embed[:, 1:] = build_sincos2d_pos_embed(list(grid), model.embed_dim)
    images = [np.asarray(next(photographs).resize((width, height))) for _ in range(20)]
    maps = []
    for layer in model.modules():
        if isinstance(layer, Attention):
            layer.fused_attn = False  # pyright: ignore[reportAttributeAccessIssue]
            layer.attn_drop.register_forward_hook(lambda _module, _inputs, softmax: maps.append(softmax))
    model(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 64 - 2)
    assert len(maps) == 6
    attention = torch.stack(maps).mean(dim=(0, 2))
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(attention.shape[:2]))
    return symmetric_attention(attention[:, 1:, 1:])


@BOTH_LINKAGES
def test_200_real_attention_matrices_give_scipys_tree(real_affinities, linkage):
    assert [len(affinity) for affinity in real_affinities] == [20] * 10
    assert sum(assert_scipys_tree(affinity, linkage) for affinity in real_affinities) <= 2


@BOTH_LINKAGES
def test_in_float32_a_tree_is_greedy_but_for_rounding(real_affinities, linkage):
    for affinity in real_affinities:
        hierarchy = build_hierarchy(affinity, linkage)
        assert hierarchy.similarity.dtype == torch.float32
        for image, similarity in enumerate(affinity.double().numpy()):
            replay(similarity, hierarchy.children[image].tolist(), linkage, slack=1e-6 * np.abs(similarity).max())


@BOTH_LINKAGES
@pytest.mark.parametrize("kind", ["hub", "path", "caterpillar"])
def test_trees_that_are_chains(linkage, kind):
    patches = 128
    place = torch.arange(patches)
    far = torch.maximum(place[:, None], place)
    jitter = random_affinity(1, patches)[0] * 1e-3
    affinity = {
        "hub": 1 / (1 + place[:, None] / 9) + 1 / (1 + place / 9) + jitter,  # some patches are popular with all others
        "path": torch.where((place[:, None] - place).abs() == 1, far.float(), 0) + jitter,  # the longest chain there is
        "caterpillar": -far.float() + jitter / 2,
    }[kind]
    assert assert_scipys_tree(affinity[None], linkage) == 0
    if kind == "caterpillar":
        hierarchy = build_hierarchy(affinity[None], linkage)
        assert hierarchy.level[0].tolist() == [1] * 128 + list(range(2, 129))
        assert hierarchy.leaf_position()[0].sort().values.tolist() == list(range(128))
        assert len(hierarchy.cut(64).unique()) == 65


# Against the paper's loop


def literal_greedy(attention_NN: np.ndarray, linkage: Linkage) -> tuple[list[tuple[int, int]], list[float]]:
    """Eq. 5-13 as they stand, for one image: the children of each new node, and their similarity."""
    children: dict[int, tuple[int, int]] = {}

    def leaves(node: int) -> list[int]:
        return [leaf for child in children[node] for leaf in leaves(child)] if node in children else [node]

    @cache
    def similarity(i: int, j: int) -> float:
        if linkage == "average":
            return float(attention_NN[np.ix_(leaves(i), leaves(j))].mean())
        if i not in children and j not in children:
            return float(attention_NN[i, j])  # Eq. 6
        pairs = [(k, m) for k in children.get(i, (i,)) for m in children.get(j, (j,))]
        return sum(similarity(k, m) for k, m in pairs) / len(pairs)  # Eq. 7

    alive, found = set(range(len(attention_NN))), []  # Eq. 8
    while len(alive) > 1:
        i, j = max(combinations(sorted(alive), 2), key=lambda pair: similarity(*pair))  # Eq. 9
        new = len(attention_NN) + len(children)
        children[new] = (i, j)  # Eq. 11, 12
        found.append(similarity(i, j))
        alive = alive - {i, j} | {new}  # Eq. 13
    return list(children.values()), found


@BOTH_LINKAGES
@pytest.mark.parametrize("patches", [2, 3, 5, 9, 16, 20])
def test_the_tree_is_that_of_the_papers_loop(patches, linkage):
    attention = torch.randn(4, patches, patches, generator=torch.Generator().manual_seed(patches)).softmax(dim=-1)
    hierarchy = build_hierarchy(attention.double(), linkage)
    for image, attention_NN in enumerate(attention.double().numpy()):
        children, similarity = literal_greedy((attention_NN + attention_NN.T) / 2, linkage)
        assert hierarchy.children[image].tolist() == [list(pair) for pair in children]
        assert hierarchy.level[image].tolist() == levels(np.array(children), patches)
        np.testing.assert_allclose(hierarchy.similarity[image].numpy(), similarity, rtol=1e-12)


def test_both_linkages_by_hand():
    # 0 and 1 merge at 8, 2 joins at 6. To 3 they are at 0, 0 and 4: the mean over children is 2, over leaves 4 / 3.
    affinity = torch.tensor([[[9.0, 8, 6, 0], [8, 9, 6, 0], [6, 6, 9, 4], [0, 0, 4, 9]]])
    weighted, average = build_hierarchy(affinity, "weighted"), build_hierarchy(affinity, "average")
    assert weighted.similarity.tolist() == [[8, 6, 2]]
    assert average.similarity[0].tolist() == pytest.approx([8, 6, 4 / 3])
    for hierarchy in (weighted, average):
        assert hierarchy.children.tolist() == [[[0, 1], [2, 4], [3, 5]]]
        assert hierarchy.level.tolist() == [[1, 1, 1, 1, 2, 3, 4]]
        assert hierarchy.size.tolist() == [[1, 1, 1, 1, 2, 3, 4]]
        assert hierarchy.parent.tolist() == [[4, 4, 5, 6, 5, 6, 6]]
        assert hierarchy.height.tolist() == [4]
        assert [hierarchy.cut(level).tolist() for level in (1, 2, 3, 4)] == [
            [[0, 1, 2, 3]],
            [[4, 4, 2, 3]],
            [[5, 5, 5, 3]],
            [[6, 6, 6, 6]],
        ]
        assert hierarchy.leaf_order().tolist() == [[3, 2, 0, 1]]
        assert hierarchy.leaf_order(torch.tensor([[True, True, False]])).tolist() == [[3, 1, 0, 2]]


# Ties


def exact(affinity_NN: torch.Tensor) -> np.ndarray:
    """The mean of both directions, as fractions."""
    affinity = np.array([[Fraction(entry) for entry in row] for row in affinity_NN.tolist()])
    return (affinity + affinity.T) / 2


@BOTH_LINKAGES
@pytest.mark.parametrize("kind", ["equal", "blocks", "duplicates", "integers"])
@pytest.mark.parametrize("patches", [3, 8, 21])
def test_with_ties_the_tree_is_one_that_the_greedy_loop_could_give(kind, patches, linkage):
    affinity = torch.cat([tied_affinity(kind, patches, seed) for seed in range(5)])
    hierarchy = build_hierarchy(affinity, linkage)
    for affinity_NN, children in zip(affinity, hierarchy.children.tolist(), strict=True):
        replay(exact(affinity_NN), children, linkage)
    again = build_hierarchy(affinity.flip(0), linkage)
    assert torch.equal(again.children.flip(0), hierarchy.children)
    for image in range(5):
        alone = build_hierarchy(affinity[image : image + 1], linkage)
        for name in ("parent", "level", "size", "children", "similarity"):
            assert torch.equal(getattr(alone, name)[0], getattr(hierarchy, name)[image])


@BOTH_LINKAGES
def test_rounding_puts_no_node_before_its_children(linkage):
    # In float64 a mean of equal numbers, x / 3 + 2 x / 3, may lie above x.
    generator = torch.Generator().manual_seed(0)
    affinity = torch.rand(40, 1, 1, generator=generator, dtype=torch.float64).expand(40, 30, 30)
    hierarchy = build_hierarchy(affinity, linkage)
    assert (hierarchy.similarity.diff(dim=1) <= 0).all()
    assert (hierarchy.children < torch.arange(30, 59).view(-1, 1)).all()
    for image in range(40):
        assert hierarchy.level[image].tolist() == levels(hierarchy.children[image], 30)


def test_replay_tells_a_wrong_tree():
    affinity = exact(torch.tensor([[9, 8, 6, 0], [8, 9, 6, 0], [6, 6, 9, 4], [0, 0, 4, 9]]))
    replay(affinity, [[0, 1], [2, 4], [3, 5]], "weighted")
    with pytest.raises(AssertionError):
        replay(affinity, [[0, 1], [2, 3], [4, 5]], "weighted")


# What scipy can do with it


@BOTH_LINKAGES
@pytest.mark.parametrize("patches", [2, 3, 30, 64])
def test_linkage_works_in_scipy(patches, linkage):
    affinities = [random_affinity(2, patches, seed=1), tied_affinity("integers", patches, seed=0)]
    for hierarchy in (build_hierarchy(affinity, linkage) for affinity in affinities):
        for image in range(len(hierarchy.parent)):
            z = hierarchy.linkage(image)
            assert z.dtype == np.float64
            assert z.shape == (patches - 1, 4)
            assert scipy_hierarchy.is_valid_linkage(z, throw=True)
            assert scipy_hierarchy.is_monotonic(z)
            drawn = scipy_hierarchy.dendrogram(z, no_plot=True)["leaves"]
            assert drawn == hierarchy.leaf_order()[image].tolist()
            node = np.arange(patches)
            for merge, (distance, following) in enumerate(zip(z[:, 2], [*z[1:, 2], np.inf], strict=True)):
                node[np.isin(node, z[merge, :2])] = patches + merge
                if distance < following:
                    between = (distance + min(following, distance + 1)) / 2
                    assert partition(scipy_hierarchy.fcluster(z, between, "distance")) == partition(node)


# Properties of any tree


@st.composite
def hierarchies(draw) -> Hierarchy:
    patches, seed = draw(st.integers(2, 24)), draw(st.integers(0, 10**6))
    kind = draw(st.sampled_from(["random", "equal", "blocks", "duplicates", "integers", "chain"]))
    linkage = draw(st.sampled_from(get_args(Linkage)))
    if kind == "random":
        return build_hierarchy(random_affinity(3, patches, seed), linkage)
    if kind == "chain":
        popularity = torch.rand(3, 1, patches, generator=torch.Generator().manual_seed(seed)) * 10
        return build_hierarchy(popularity + random_affinity(3, patches, seed), linkage)
    return build_hierarchy(torch.cat([tied_affinity(kind, patches, seed + image) for image in range(3)]), linkage)


property_test = settings(max_examples=80, derandomize=True)


@property_test
@given(hierarchy=hierarchies())
def test_the_parts_of_a_tree_agree(hierarchy):
    patches = hierarchy.patches
    for image in range(3):
        children, parent = hierarchy.children[image], hierarchy.parent[image].tolist()
        sets = leaf_sets(children, patches)
        assert sets[-1] == 2**patches - 1
        assert hierarchy.size[image].tolist() == [leaves.bit_count() for leaves in sets]
        assert hierarchy.level[image].tolist() == levels(children, patches)
        assert sorted(children.flatten().tolist()) == list(range(2 * patches - 2))
        assert (children[:, 0] < children[:, 1]).all()
        for merge, (first, second) in enumerate(children.tolist()):
            assert parent[first] == parent[second] == patches + merge
        assert parent[-1] == 2 * patches - 2
        assert hierarchy.height[image] == max(levels(children, patches))
        assert (hierarchy.similarity[image].diff() <= 0).all()


@property_test
@given(hierarchy=hierarchies(), data=st.data())
def test_a_cut_is_the_highest_ancestors_of_at_most_that_level(hierarchy, data):
    patches, image = hierarchy.patches, data.draw(st.integers(0, 2))
    height, level = int(hierarchy.height[image]), hierarchy.level[image].tolist()
    parent, sets = hierarchy.parent[image].tolist(), leaf_sets(hierarchy.children[image], patches)
    assert hierarchy.cut(1)[image].tolist() == list(range(patches))
    assert hierarchy.cut(height)[image].tolist() == [2 * patches - 2] * patches
    assert hierarchy.cut(height + 5)[image].tolist() == [2 * patches - 2] * patches
    finer: set[int] = {1 << patch for patch in range(patches)}
    for depth in range(1, height + 1):
        group_N = hierarchy.cut(depth)[image].tolist()
        groups = {sets[group] for group in group_N}
        assert sum(groups) == 2**patches - 1  # all patches, each once
        for patch, group in enumerate(group_N):
            assert sets[group] >> patch & 1
            assert level[group] <= depth
            assert level[parent[group]] > depth or group == 2 * patches - 2
        assert all(any(small & large == small for large in groups) for small in finer)
        finer = groups


@property_test
@given(hierarchy=hierarchies(), data=st.data())
def test_each_image_can_be_cut_at_its_own_level(hierarchy, data):
    depth = torch.tensor(data.draw(st.lists(st.integers(1, 25), min_size=3, max_size=3)))
    cut = hierarchy.cut(depth)
    assert cut.dtype == torch.long
    assert cut.shape == (3, hierarchy.patches)
    for image in range(3):
        assert torch.equal(cut[image], hierarchy.cut(int(depth[image]))[image])


@property_test
@given(hierarchy=hierarchies(), seed=st.integers(0, 2**31) | st.none())
def test_leaves_of_every_node_stand_together_in_the_order_that_swap_asks_for(hierarchy, seed):
    patches = hierarchy.patches
    swap = torch.zeros(3, patches - 1, dtype=torch.bool)
    if seed is not None:
        swap = torch.rand(3, patches - 1, generator=torch.Generator().manual_seed(seed)) < 0.5
    order = hierarchy.leaf_order(None if seed is None else swap)
    position = hierarchy.leaf_position(None if seed is None else swap)
    for image in range(3):
        expected = [[patch] for patch in range(patches)]
        for (first, second), swapped in zip(hierarchy.children[image].tolist(), swap[image].tolist(), strict=True):
            expected.append(expected[second] + expected[first] if swapped else expected[first] + expected[second])
        assert order[image].tolist() == expected[-1]
        assert position[image, order[image]].tolist() == list(range(patches))


# What a user can get wrong


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(value):
    affinity = random_affinity(2, 4)
    affinity[1, 2, 3] = value
    with pytest.raises(NonFiniteAffinity, match=r"holds NaN or infinity.*: lower the learning rate"):
        build_hierarchy(affinity)
    assert issubclass(NonFiniteAffinity, ValueError)


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 5), (1, 1, 1), (1, 2, 4, 4)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"affinity must be \(images, N, N\) with at least 2 patches, not \("):
        build_hierarchy(torch.zeros(shape))


def test_another_linkage_is_refused():
    with pytest.raises(ValueError, match="linkage must be one of weighted, average, not 'ward'"):
        build_hierarchy(random_affinity(1, 4), "ward")  # type: ignore[arg-type]


@BOTH_LINKAGES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_affinity_is_left_as_it_was(linkage, dtype):
    affinity = random_affinity(2, 6).to(dtype).requires_grad_()
    before = affinity.detach().clone()
    hierarchy = build_hierarchy(affinity, linkage)
    assert torch.equal(affinity, before)
    assert not hierarchy.similarity.requires_grad
    diagonal = before + torch.eye(6, dtype=dtype) * 7  # is not used
    assert torch.equal(build_hierarchy(diagonal, linkage).children, hierarchy.children)


def test_a_batch_may_be_empty():
    hierarchy = build_hierarchy(torch.zeros(0, 5, 5))
    assert hierarchy.height.shape == (0,)
    assert hierarchy.cut(2).shape == (0, 5)


# Backends


@pytest.mark.parametrize(
    ("backend", "missing", "complaint"),
    [
        ("cupy", None, "backend must be one of auto, torch, numba, triton, not 'cupy'"),
        ("numba", "numba", "backend 'numba' is not installed: pip install numba, or leave it at 'auto'"),
        ("triton", "triton", "backend 'triton' is not installed: install torch with CUDA, or leave it at 'auto'"),
        ("triton", None, "backend 'triton' (is not installed|takes an affinity on a GPU, not on cpu: move it)"),
    ],
)
def test_a_backend_that_cannot_be_used_is_refused(monkeypatch, backend, missing, complaint):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if missing:
        monkeypatch.setattr(hierarchy_module, "_is_installed", lambda library: library != missing)
    with pytest.raises(ValueError, match=complaint):
        build_hierarchy(random_affinity(1, 4), backend=backend)


def test_numba_takes_tensors_on_a_cpu_only():
    pytest.importorskip("numba")
    with pytest.raises(ValueError, match="backend 'numba' takes an affinity on a CPU, not on meta: move it"):
        build_hierarchy(torch.zeros(1, 4, 4, device="meta"), backend="numba")


def test_large_grids_on_a_gpu_go_to_torch_and_the_log_says_so_once(monkeypatch, caplog):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    hierarchy_module._say_once.cache_clear()
    with FakeTensorMode():
        chosen = [hierarchy_module._fastest_backend(torch.zeros(2, n, n, device="cuda")) for n in (1024, 1025, 1100)]
    assert chosen == ["triton", "torch", "torch"]
    assert [record.message for record in caplog.records] == [
        "trees are built by torch, which takes many times longer: triton takes up to 1024 patches: use 'torch'"
    ]
    with pytest.raises(ValueError, match="backend 'triton' takes up to 1024 patches: use 'torch', or leave it at 'auto'"):
        build_hierarchy(torch.zeros(1, 1025, 1025), backend="triton")


def test_without_triton_a_gpu_has_the_reference_and_nobody_is_told(monkeypatch, caplog):
    monkeypatch.setattr(hierarchy_module, "_is_installed", lambda library: False)
    with FakeTensorMode():
        assert hierarchy_module._fastest_backend(torch.zeros(2, 9, 9, device="cuda")) == "torch"
    assert not caplog.records


def test_a_numba_that_cannot_be_imported_is_done_without_and_the_log_says_so_once(monkeypatch, caplog):
    pytest.importorskip("numba")

    def broken(name):
        raise ImportError("Numba needs NumPy 2.0 or less")

    affinity = random_affinity(2, 9)
    expected = build_hierarchy(affinity, backend="torch")
    for cached in (hierarchy_module._compiler_obstacle, hierarchy_module._say_once):
        cached.cache_clear()
    monkeypatch.setattr(hierarchy_module, "import_module", broken)
    try:
        assert build_hierarchy(affinity).parent.equal(expected.parent)
        build_hierarchy(affinity)
        with pytest.raises(ValueError, match=r"backend 'numba' cannot be imported \(Numba needs NumPy 2.0 or less\): install"):
            build_hierarchy(affinity, backend="numba")
    finally:
        hierarchy_module._compiler_obstacle.cache_clear()
    [record] = caplog.records
    assert record.message.startswith("trees are built by torch, which takes many times longer: numba cannot be imported")


@BOTH_LINKAGES
def test_the_reference_asks_nothing_of_the_device(linkage):
    # The meta device has no values: whoever asks for one gets an error.
    hierarchy = build_hierarchy(torch.zeros(3, 6, 6, device="meta"), linkage)
    assert hierarchy.parent.shape == (3, 11)
    assert hierarchy.cut(2).shape == hierarchy.cut(torch.zeros(3, device="meta")).shape == (3, 6)
    assert hierarchy.leaf_order(torch.zeros(3, 5, dtype=torch.bool, device="meta")).shape == (3, 6)
